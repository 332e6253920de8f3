"""Corrections after prediction, on small label volumes with answers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.inference.postprocess import Removal, postprocess
from hnseg.inference.voxels import connected_parts, organ_voxels
from hnseg.models.metadata import PostprocessSettings
from hnseg.organs import BY_NAME

NOTHING = PostprocessSettings(largest_parts=False, fill_holes=False, inside_body=False, check_sides=False)
GRID = Grid((20, 12, 9), (1.0, 2.0, 3.0), (-10.0, 5.0, 100.0))  # one voxel is 0.006 mL
FEET_FIRST = Grid((20, 12, 9), (1.0, 2.0, 3.0), (9.0, 5.0, 100.0), (-1, 0, 0, 0, 1, 0, 0, 0, -1))
STEM, EYE_L, EYE_R, ARYTENOID = (BY_NAME[n].label for n in ("Brainstem", "Eye_PL", "Eye_PR", "Arytenoid"))


def volume(grid: Grid = GRID, **boxes: tuple[int, str]) -> Volume:
    """Labels from boxes: name=(label, "k,j,i") in numpy slice notation."""
    array = np.zeros(grid.shape_kji, np.uint8)
    for label, text in boxes.values():
        k, j, i = (slice(*(int(n) for n in part.split(":"))) for part in text.split(","))
        array[k, j, i] = label
    return Volume(array, grid)


def test_with_every_rule_off_the_labels_stay_and_nothing_is_reported() -> None:
    labels = volume(a=(STEM, "1:3,2:5,3:9"), b=(STEM, "6:7,2:3,3:4"))
    after, removals = postprocess(labels, NOTHING)
    np.testing.assert_array_equal(after.array_kji, labels.array_kji)
    assert removals == ()


def test_only_the_largest_part_of_an_organ_stays() -> None:
    labels = volume(a=(STEM, "1:3,2:5,3:9"), b=(STEM, "6:7,2:3,3:6"))
    after, removals = postprocess(labels, replace(NOTHING, largest_parts=True))
    np.testing.assert_array_equal(after.array_kji, volume(a=(STEM, "1:3,2:5,3:9")).array_kji)
    assert removals == (Removal("Brainstem", pytest.approx(3 * 0.006), "apart from the organ"),)  # type: ignore[arg-type]


def test_voxels_that_touch_by_a_corner_are_one_part() -> None:
    labels = volume(a=(STEM, "1:3,2:5,3:9"), b=(STEM, "3:4,5:6,9:10"))
    assert postprocess(labels, replace(NOTHING, largest_parts=True))[1] == ()


def test_the_last_voxel_of_a_row_does_not_touch_the_first_of_the_next() -> None:
    labels = volume(a=(STEM, "2:3,3:4,18:20"), b=(STEM, "2:3,4:5,0:1"))
    after, _ = postprocess(labels, replace(NOTHING, largest_parts=True, spare_part=2.0))
    np.testing.assert_array_equal(after.array_kji, volume(a=(STEM, "2:3,3:4,18:20")).array_kji)


def test_two_arytenoids_stay_and_a_third_part_goes() -> None:
    labels = volume(a=(ARYTENOID, "1:3,2:4,3:6"), b=(ARYTENOID, "1:3,2:4,10:13"), c=(ARYTENOID, "7:8,2:4,3:5"))
    after, removals = postprocess(labels, replace(NOTHING, largest_parts=True))
    assert np.count_nonzero(after.array_kji) == 24
    assert [removal.ml for removal in removals] == [pytest.approx(4 * 0.006)]


def test_the_bundle_can_ask_for_another_number_of_parts() -> None:
    labels = volume(a=(STEM, "1:3,2:5,3:9"), b=(STEM, "6:7,2:3,3:6"))
    settings = replace(NOTHING, largest_parts=True, parts={"Brainstem": 2})
    assert postprocess(labels, settings)[1] == ()


def test_a_gap_in_a_long_organ_does_not_cost_its_other_half() -> None:
    labels = volume(a=(STEM, "1:3,2:5,3:9"), b=(STEM, "6:8,2:5,3:7"))  # 36 and 24 voxels
    assert postprocess(labels, replace(NOTHING, largest_parts=True, spare_part=0.6))[1] == ()
    assert len(postprocess(labels, replace(NOTHING, largest_parts=True, spare_part=0.7))[1]) == 1


def test_enclosed_background_is_filled_and_another_organ_inside_is_not() -> None:
    labels = volume(a=(STEM, "1:6,2:8,3:12"), hole=(0, "2:4,3:5,4:6"), other=(EYE_L, "3:4,6:7,9:10"))
    after, removals = postprocess(labels, replace(NOTHING, fill_holes=True))
    expected = volume(a=(STEM, "1:6,2:8,3:12"), other=(EYE_L, "3:4,6:7,9:10"))
    np.testing.assert_array_equal(after.array_kji, expected.array_kji)
    assert removals == ()


def test_a_hollow_that_is_open_to_the_outside_is_not_filled() -> None:
    labels = volume(a=(STEM, "0:6,2:8,3:12"), hole=(0, "0:4,3:5,4:6"))
    after, _ = postprocess(labels, replace(NOTHING, fill_holes=True))
    filled = volume(a=(STEM, "0:6,2:8,3:12"))
    # The scan's own end closes nothing: what lies beyond it is not known.
    assert np.count_nonzero(after.array_kji) < np.count_nonzero(filled.array_kji)


def test_what_lies_farther_from_the_body_than_the_margin_is_removed() -> None:
    body_grid = Grid((6, 8, 9), (4.0, 4.0, 4.0), (-10.0, 5.0, 100.0))
    body = np.zeros(body_grid.shape_kji, bool)
    body[:, :, :3] = True  # centres at x = −10, −6, −2: up to −2 + 4 = 2 with one voxel of margin
    labels = volume(a=(STEM, "1:3,2:5,0:20"))
    settings = replace(NOTHING, inside_body=True, body_margin_mm=4.0)
    after, removals = postprocess(labels, settings, Volume(body, body_grid))
    kept = np.flatnonzero(after.array_kji.any(axis=(0, 1)))
    # voxel i has x = i − 10; its nearest body voxel is kept up to centre 2, that is x < 4 → i ≤ 13 or 14 on the tie
    assert kept[0] == 0
    assert kept[-1] in (13, 14)
    assert removals[0].reason == "outside the body"


def test_a_part_beyond_the_partner_is_cut_in_patient_space() -> None:
    """Left is +x. The left eye lies at i = 14 … 17, a false part of it at i = 0 … 1, beyond the right eye at 3 … 6."""
    boxes = {"l": (EYE_L, "2:5,3:6,14:18"), "r": (EYE_R, "2:5,3:6,3:7"), "false": (EYE_L, "2:3,3:4,0:2")}
    for grid in (GRID, FEET_FIRST):
        labels = volume(**boxes) if grid is GRID else Volume(volume(**boxes).array_kji[:, :, ::-1].copy(), grid)
        after, removals = postprocess(labels, replace(NOTHING, check_sides=True))
        assert removals == (Removal("Eye_PL", pytest.approx(2 * 0.006), "on the other side"),)  # type: ignore[arg-type]
        assert np.count_nonzero(after.array_kji == EYE_L) == 36
        assert np.count_nonzero(after.array_kji == EYE_R) == 36


def test_swapped_organs_are_left_for_a_person() -> None:
    labels = volume(l=(EYE_L, "2:5,3:6,3:7"), r=(EYE_R, "2:5,3:6,14:18"))
    after, removals = postprocess(labels, replace(NOTHING, check_sides=True))
    assert removals == ()
    np.testing.assert_array_equal(after.array_kji, labels.array_kji)


def test_a_lone_organ_has_no_wrong_side() -> None:
    labels = volume(l=(EYE_L, "2:5,3:6,0:4"))
    assert postprocess(labels, replace(NOTHING, check_sides=True))[1] == ()


def test_the_input_is_not_changed_and_an_empty_volume_stays_empty() -> None:
    labels = volume(a=(STEM, "1:3,2:5,3:9"), b=(STEM, "6:7,2:3,3:6"))
    before = labels.array_kji.copy()
    postprocess(labels, PostprocessSettings())
    np.testing.assert_array_equal(labels.array_kji, before)
    empty = volume()
    after, removals = postprocess(empty, PostprocessSettings(), empty.with_array(np.zeros(GRID.shape_kji, bool)))
    assert not after.array_kji.any()
    assert removals == ()


def test_an_organ_that_lies_wholly_outside_the_body_vanishes() -> None:
    labels = volume(a=(STEM, "1:3,2:5,3:9"))
    nobody = labels.with_array(np.zeros(GRID.shape_kji, bool))
    after, removals = postprocess(labels, PostprocessSettings(), nobody)
    assert not after.array_kji.any()
    assert removals[0].ml == pytest.approx(36 * 0.006)


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.4))
def test_parts_are_those_of_scipy_with_26_neighbours(seed: int, share: float) -> None:
    array = (np.random.default_rng(seed).random((5, 6, 7)) < share).astype(np.uint8)
    labels = Volume(array, Grid((7, 6, 5)))
    marked, count = ndimage.label(array, np.ones((3, 3, 3)))
    expected = {tuple(np.flatnonzero(marked == n)) for n in range(1, count + 1)}
    voxels = organ_voxels(labels).get(1, np.array([], np.int64))
    parts = connected_parts(voxels, labels.grid)
    assert {tuple(part) for part in parts} == expected
    assert [len(part) for part in parts] == sorted((len(part) for part in parts), reverse=True)
