"""Windows: where they lie and how they are weighted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnseg.errors import ConfigError
from hnseg.inference.tiles import TileSettings, importance, window_rows, window_starts


def test_an_axis_that_fits_in_one_patch_has_one_window() -> None:
    assert window_starts(5, 8, 0.5) == (0,)
    assert window_starts(8, 8, 0.5) == (0,)


def test_windows_are_spread_evenly_and_end_at_the_end() -> None:
    # (20 - 8) / (8 · 0.5) = 3 steps of 4
    assert window_starts(20, 8, 0.5) == (0, 4, 8, 12)
    # (20 - 8) / 8 = 1.5 → 2 steps of 6
    assert window_starts(20, 8, 0.0) == (0, 6, 12)


@given(st.integers(1, 200), st.integers(1, 64), st.floats(0, 0.9))
def test_windows_cover_the_axis_and_share_at_least_the_overlap(size: int, patch: int, overlap: float) -> None:
    starts = window_starts(size, patch, overlap)
    covered = {v for start in starts for v in range(start, start + patch)}
    assert covered >= set(range(size))
    assert starts[-1] == max(size - patch, 0)
    steps = np.diff(starts)
    assert (steps <= patch * (1 - overlap) + 1).all()
    assert (steps > 0).all()


def test_a_window_without_body_is_left_out_and_its_row_stays() -> None:
    body = np.zeros((8, 4, 12), bool)
    body[7, 3, 1] = True
    tiles = TileSettings((4, 4, 4), overlap=0.0)
    rows = window_rows(body.shape, tiles, body)
    assert [(row.k, row.starts_ji) for row in rows] == [(0, ()), (4, ((0, 0),))]


def test_windows_without_body_stay_when_that_is_asked_for() -> None:
    tiles = TileSettings((4, 4, 4), overlap=0.0, skip_outside_body=False)
    rows = window_rows((8, 4, 12), tiles, np.zeros((8, 4, 12), bool))
    assert [len(row.starts_ji) for row in rows] == [3, 3]


def test_importance_is_one_in_the_middle_positive_everywhere_and_a_gaussian_of_an_eighth_of_the_patch() -> None:
    weight = importance((7, 9, 16))
    assert weight.shape == (7, 9, 16)
    assert weight[3, 4, 7] == weight[3, 4, 8] == weight.max() == 1.0
    assert weight.min() > 0
    # two voxels off the middle of 9: 2 / (9/8) = 1.78 standard deviations
    assert weight[3, 6, 7] == pytest.approx(np.exp(-0.5 * (2 / (9 / 8)) ** 2), rel=1e-6)


@pytest.mark.parametrize(
    "settings",
    [{"patch_kji": (0, 1, 1)}, {"patch_kji": (4, 4, 4), "overlap": 1.0}, {"patch_kji": (4, 4, 4), "batch": -1}],
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        TileSettings(**settings)  # type: ignore[arg-type]
