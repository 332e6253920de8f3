"""The MR of a case: its numbers survive, and its padding takes no part."""

import numpy as np
import pytest
import SimpleITK as sitk

from hnseg.curation.bias import N4Settings
from hnseg.curation.mr import place_mr
from hnseg.curation.settings import CurationSettings
from hnseg.image.files import read_volume, write_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume

TURN = np.radians(12.0)
DIRECTION = (1, 0, 0, 0, np.cos(TURN), -np.sin(TURN), 0, np.sin(TURN), np.cos(TURN))
GRID = Grid((46, 40, 32), (2.0, 1.5, 3.0), (-40.0, 25.0, 300.0), DIRECTION)
SAME = sitk.Transform(3, sitk.sitkIdentity)
CT_HU = np.linspace(-100, 900, 500)
PADDING = np.s_[25:]


def settings(scale="scanner", n4=None):
    return CurationSettings(registration="none", n4=n4, mr_scale=scale)


def head(*, air=(5, 25), padded=None):
    """A shaded body in noisy air (uint16), whose last slices may be padding."""
    rng = np.random.default_rng(3)
    array = rng.integers(*air, GRID.shape_kji)
    array[6:25, 8:30, 10:36] = rng.integers(300, 500, (19, 22, 26)) + 10 * np.arange(26)
    if padded is not None:
        array[PADDING] = padded
    return Volume(array.astype(np.uint16), GRID)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32])
def test_whole_numbers_survive_up_to_the_end_of_their_type(tmp_path, dtype):
    top = min(60_000, np.iinfo(dtype).max)
    array = np.linspace(0, top, 105).round().astype(dtype).reshape(3, 5, 7)
    mr = Volume(array, Grid((7, 5, 3), (1.0, 2.0, 3.0), (100.0, -50.0, 25.0), DIRECTION))
    write_volume(place_mr(mr, SAME, CT_HU, mr.grid, settings()).image, tmp_path / "mr.nrrd")
    again = read_volume(tmp_path / "mr.nrrd")
    assert np.array_equal(again.array_kji, array)
    assert again.array_kji.dtype == dtype
    assert again.grid.is_close(mr.grid)


def test_values_that_n4_lifts_over_the_end_of_their_type_get_a_wider_one():
    mr = head()
    bright = mr.with_array(np.minimum(mr.array_kji.astype(np.int64) * 200, 65_535).astype(np.uint16))
    placed = place_mr(bright, SAME, CT_HU, GRID, settings(n4=N4Settings(levels=1, iterations=5)))
    unrounded = placed.bias.apply(bright).array_kji
    assert unrounded.max() > 65_535
    assert placed.image.array_kji.dtype == np.int32
    assert np.abs(placed.image.array_kji - unrounded).max() <= 0.51


@pytest.mark.parametrize("scale", ["scanner", "z-score", "percentiles", "match-ct"])
def test_padding_is_masked_and_never_scaled(scale):
    placed = place_mr(head(padded=0), SAME, CT_HU, GRID, settings(scale))
    assert not placed.valid[PADDING].any()
    assert placed.valid[:25].all()
    assert not placed.image.array_kji[PADDING].any()
    assert placed.record.coverage == pytest.approx(25 / 32, abs=1e-4)


@pytest.mark.parametrize("n4", [None, N4Settings(levels=1, iterations=5)])
def test_every_scale_is_fitted_as_if_the_padding_had_been_cut_off(n4):
    whole = head(air=(95, 125), padded=90)  # bright enough to pass for tissue
    cut = whole.cropped((0, 0, 0), (46, 40, 25))
    found, expected = (place_mr(mr, SAME, CT_HU, mr.grid, settings(n4=n4)).record.scales for mr in (whole, cut))
    exact = 1e-9 if n4 is None else 0.02  # N4's own grid of control points covers what it is given
    assert found.z_score.mean == pytest.approx(expected.z_score.mean, rel=exact)
    assert found.z_score.deviation == pytest.approx(expected.z_score.deviation, rel=max(exact, 5 * exact))
    assert found.landmarks == pytest.approx(expected.landmarks, rel=exact)
    assert (found.percentiles.low, found.match_ct.high) == pytest.approx(
        (expected.percentiles.low, expected.match_ct.high), rel=exact
    )


def test_padding_does_not_bleed_into_the_voxels_beside_it_on_another_grid():
    grid = Grid((40, 36, 40), (1.7, 1.6, 2.0), (-35.0, 27.0, 304.0), DIRECTION)
    flat = head(padded=0)
    flat.array_kji[:25] = np.where(flat.array_kji[:25] > 100, 400, 50)
    flat.array_kji[:25, 0, 0] = 40  # some noise
    placed = place_mr(flat, SAME, CT_HU, grid, settings("scanner"))
    assert 0.3 < placed.valid.mean() < 0.95
    assert placed.image.array_kji[placed.valid].min() >= 39
    assert not placed.image.array_kji[~placed.valid].any()


def test_zeros_all_around_the_body_are_air_and_stay_data():
    mr = head()
    mr.array_kji[mr.array_kji < 100] = 0
    placed = place_mr(mr, SAME, CT_HU, GRID, settings("z-score"))
    assert placed.valid.all()
    assert placed.image.array_kji[0, 0, 0] == pytest.approx(placed.record.scales.z_score.apply(np.zeros(1))[0])
