"""The second look: where it looks, what it is given, what it may change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hnseg.image.grid import Grid
from hnseg.image.orient import canonical
from hnseg.image.volume import Volume
from hnseg.inference.confidence import Confidence
from hnseg.inference.predictor import Prediction
from hnseg.inference.second_look import Patient, Region, locate, look_again, part_of
from hnseg.models.metadata import FineStage, NetworkSettings
from hnseg.organs import BY_NAME
from hnseg.preprocessing import NetworkInput, PreprocessSettings, preprocess

TURN = Rotation.from_euler("xyz", [5, -3, 8], degrees=True).as_matrix() @ np.diag([-1, 1, -1])  # i right, k down
GRID = Grid((60, 50, 40), (1.5, 2.0, 2.5), (40.0, -60.0, 700.0), tuple(TURN.ravel()))
SIZE = np.asarray(GRID.size_ijk)
STAGE = FineStage(
    name="small-organs",
    network=NetworkSettings("subpixel_unet"),
    preprocess=PreprocessSettings(spacing_mm=(1.0, 1.0, 1.0)),
    patch_kji=(8, 16, 12),
    labels=("background", "Cochlea_L", "Cochlea_R", "Pituitary", "Brainstem"),
    organs=("Cochlea_L", "Cochlea_R", "Pituitary"),
    margin_mm=4.0,
)
COCHLEA_L, COCHLEA_R, PITUITARY, BRAINSTEM, LIPS = (
    BY_NAME[name].label for name in ("Cochlea_L", "Cochlea_R", "Pituitary", "Brainstem", "Lips")
)
CENTRES = {"Brainstem": (0.0, 0.0, 0.0), "Pituitary": (0.0, -20.0, 10.0), "Cochlea_L": (30.0, 0.0, -400.0)}


def labelled(*boxes: tuple[int, tuple[int, int, int], tuple[int, int, int]]) -> Volume:
    """Boxes of (label, start_ijk, size_ijk) of the CANONICAL grid, on the CT's own left-turned, upside-down grid."""
    labels = Volume(np.zeros(GRID.shape_kji, np.uint8), GRID)
    view = canonical(labels).array_kji
    for label, (i, j, k), (ni, nj, nk) in boxes:
        view[k : k + nk, j : j + nj, i : i + ni] = label
    return labels


def look(labels: Volume, answer: Any, stage: FineStage = STAGE, wanted: Any = STAGE.organs, **options: Any) -> Any:
    """``answer(grid)`` gives the fine labels on a region's grid."""
    asked: list[Grid] = []
    patient = Patient(ct(), None, None, preprocess(ct(), settings=PreprocessSettings(spacing_mm=(3.0, 3.0, 3.0))))

    def predict(given: NetworkInput, grid: Grid, on_progress: Any) -> Prediction:
        asked.append(grid)
        on_progress(0.5, "half")
        fine = answer(grid)
        sure = {int(n): Confidence(0.9, 0.8) for n in np.unique(fine) if n}
        return Prediction(Volume(fine, grid), sure, None, 1, "cpu", "float32")

    seen: list[float] = []
    found = look_again(
        labels, patient, stage, predict, wanted=wanted, centres_mm=CENTRES,
        on_progress=lambda fraction, _text: seen.append(fraction), **options,
    )  # fmt: skip
    return found, asked, seen


def ct() -> Volume:
    k, j, i = np.indices(GRID.shape_kji)
    hu = -1000 + 1040.0 * (((i - 30) / 27) ** 2 + ((j - 24) / 22) ** 2 + ((k - 20) / 30) ** 2 < 1)
    return Volume(hu + np.random.default_rng(0).normal(0, 8, hu.shape), GRID)


def test_an_organ_is_looked_for_where_it_was_seen_with_the_margin_around_it() -> None:
    (region,) = locate(labelled((COCHLEA_L, (30, 20, 10), (4, 6, 8))), ["Cochlea_L"], STAGE, {})
    assert region.organs == {"Cochlea_L"}
    # margins of 4 mm: 2.67 of 1.5 mm, 2 of 2 mm, 1.6 of 2.5 mm; no side is shorter than the patch of 12 × 16 × 8 mm
    assert region.start_ijk == (27, 18, 8)
    assert region.stop_ijk == (37, 28, 20)


def test_a_box_is_no_smaller_than_the_patch_and_moved_into_the_scan_rather_than_cut() -> None:
    stage = replace(STAGE, patch_kji=(20, 40, 30))
    (region,) = locate(labelled((COCHLEA_L, (57, 1, 18), (2, 2, 2))), ["Cochlea_L"], stage, {})
    assert region.size_ijk == (20, 20, 8)
    assert region.stop_ijk[0] == SIZE[0]
    assert region.start_ijk[1] == 0
    whole = replace(STAGE, patch_kji=(800, 800, 800))
    (region,) = locate(labelled((COCHLEA_L, (57, 1, 18), (2, 2, 2))), ["Cochlea_L"], whole, {})
    assert (region.start_ijk, region.stop_ijk) == ((0, 0, 0), GRID.size_ijk)


def test_specks_far_from_an_organ_do_not_widen_its_box() -> None:
    organ = (COCHLEA_L, (30, 20, 10), (4, 6, 8))
    (alone,) = locate(labelled(organ), ["Cochlea_L"], STAGE, {})
    (strewn,) = locate(labelled(organ, (COCHLEA_L, (2, 45, 35), (1, 2, 1))), ["Cochlea_L"], STAGE, {})
    assert strewn == alone


def test_an_organ_that_was_not_seen_is_looked_for_at_its_usual_place_and_not_beyond_the_scan() -> None:
    labels = labelled((BRAINSTEM, (25, 20, 15), (8, 6, 8)))
    (region,) = locate(labels, STAGE.organs, STAGE, CENTRES)
    assert region.organs == {"Pituitary"}  # the left cochlea would be 400 mm below, the right one has no usual place
    grid = canonical(labels).grid
    at = grid.to_ijk(np.add(grid.to_lps((28.5, 22.5, 18.5)), (0.0, -20.0, 10.0)))
    np.testing.assert_allclose((np.add(region.start_ijk, region.stop_ijk) - 1) / 2, at, atol=0.6)
    assert np.all(np.multiply(region.size_ijk, grid.spacing_mm) >= 28)
    assert locate(labelled(), STAGE.organs, STAGE, CENTRES) == ()


def test_boxes_are_joined_where_that_costs_nothing_and_kept_apart_where_it_would() -> None:
    near = labelled((COCHLEA_L, (30, 20, 10), (4, 6, 8)), (COCHLEA_R, (28, 20, 10), (2, 6, 8)))
    (region,) = locate(near, STAGE.organs, STAGE, {})
    assert region.organs == {"Cochlea_L", "Cochlea_R"}
    far = labelled((COCHLEA_L, (50, 40, 30), (4, 6, 8)), (COCHLEA_R, (2, 2, 2), (2, 6, 8)))
    assert [box.organs for box in locate(far, STAGE.organs, STAGE, {})] == [{"Cochlea_R"}, {"Cochlea_L"}]


def test_the_finer_networks_answer_stands_for_its_own_organs_alone() -> None:
    labels = labelled(
        (COCHLEA_L, (30, 20, 10), (4, 6, 8)),
        (BRAINSTEM, (34, 20, 10), (6, 6, 8)),
        (LIPS, (28, 20, 10), (2, 6, 8)),
        (COCHLEA_L, (5, 40, 35), (2, 2, 2)),
    )
    before = labels.array_kji.copy()

    def answer(grid: Grid) -> np.ndarray:
        fine = np.full(grid.shape_kji, BRAINSTEM, np.uint8)
        fine[:, :, :6] = COCHLEA_L
        return fine

    found, _, _ = look(labels, answer, wanted=("Cochlea_L",))
    new, old = canonical(found.labels).array_kji, canonical(labels).array_kji
    (region,) = locate(labels, ["Cochlea_L"], STAGE, {})
    left = region.start_ijk[0] + 6
    assert (new[region.slices_kji][:, :, :6] == COCHLEA_L).all()  # lips included: the small organ wins
    taken = old[region.slices_kji][:, :, 6:]
    # What the first network called the organ becomes what this one says; what neither calls so stays.
    np.testing.assert_array_equal(
        new[region.slices_kji][:, :, 6:], np.where(taken == COCHLEA_L, BRAINSTEM, taken), err_msg=f"from {left}"
    )
    outside = np.ones(new.shape, bool)
    outside[region.slices_kji] = False
    assert (old[outside] == COCHLEA_L).any()
    np.testing.assert_array_equal(new[outside], np.where(old[outside] == COCHLEA_L, 0, old[outside]))
    np.testing.assert_array_equal(labels.array_kji, before)
    assert found.confidence == {COCHLEA_L: Confidence(0.9, 0.8)}
    assert found.labels.grid == GRID


def test_a_region_does_not_name_organs_that_lie_elsewhere() -> None:
    labels = labelled((COCHLEA_L, (50, 40, 30), (4, 6, 8)), (COCHLEA_R, (2, 2, 2), (2, 6, 8)))
    found, asked, seen = look(labels, lambda grid: np.full(grid.shape_kji, COCHLEA_L, np.uint8))
    assert len(asked) == 2
    right, left = locate(labels, STAGE.organs, STAGE, {})
    new = canonical(found.labels).array_kji
    assert set(np.unique(new[right.slices_kji])) == {0}
    assert set(np.unique(new[left.slices_kji])) == {COCHLEA_L}
    assert seen == [0.25, 0.75]


def test_an_organ_without_a_region_stays_as_it_was_and_is_not_asked_for() -> None:
    labels = labelled((LIPS, (30, 20, 10), (4, 6, 8)))
    found, asked, _ = look(labels, None)
    assert asked == []
    assert found.confidence == {}
    np.testing.assert_array_equal(found.labels.array_kji, labels.array_kji)
    only, asked, _ = look(labelled((COCHLEA_L, (30, 20, 10), (4, 6, 8))), None, wanted=("Lips",))
    assert asked == []
    assert (only.labels.array_kji == COCHLEA_L).sum() == 4 * 6 * 8


def mr() -> tuple[Volume, np.ndarray]:
    """An MR of its own grid that covers a part of the CT, 300 mm away, and where CT points lie in it."""
    shift = np.array([300.0, -40.0, 10.0])
    grid = Grid((30, 28, 20), (2.0, 2.2, 3.0), tuple(GRID.centre_lps + shift - (30.0, 28.0, 30.0)))
    rng = np.random.default_rng(2)
    return Volume(rng.gamma(3.0, 60.0, grid.shape_kji), grid), shift


@pytest.mark.parametrize("with_mr", [False, True])
def test_a_part_is_what_the_whole_patient_would_show_there(with_mr: bool) -> None:
    """The training sees patches of the whole patient's input at the stage's spacing: the same numbers."""
    import SimpleITK as sitk

    image, shift = mr()
    ct_to_mr = sitk.TranslationTransform(3, shift.tolist())
    moving = (image, ct_to_mr) if with_mr else (None, None)
    settings = PreprocessSettings(spacing_mm=canonical(ct()).grid.spacing_mm)
    whole = preprocess(ct(), *moving, settings=settings)
    stage = replace(STAGE, preprocess=settings)
    offset = np.rint(canonical(ct()).grid.to_ijk(whole.grid.origin_lps)).astype(int)
    region = Region((20, 12, 9), (44, 30, 25), frozenset({"Pituitary"}))
    given, grid = part_of(Patient(ct(), *moving, whole), region, stage)
    assert given.grid.is_close(grid)
    inner = tuple(slice(a - o, b - o) for a, b, o in zip((9, 12, 20), (25, 30, 44), offset[::-1], strict=True))
    np.testing.assert_allclose(given.array_ckji, whole.array_ckji[(slice(None), *inner)], atol=2e-4)
    np.testing.assert_array_equal(given.body_kji, whole.body_kji[inner])
    assert given.array_ckji[-1].any() == with_mr
