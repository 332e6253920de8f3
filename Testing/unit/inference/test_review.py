"""What is said about a result: organs cut off, missing, implausible, swapped; images outside the model's knowledge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.inference.confidence import Confidence
from hnseg.inference.review import (
    OrganFinding,
    input_warnings,
    outside_the_scan,
    reaches_end,
    result_warnings,
    review_organs,
)
from hnseg.inference.voxels import organ_voxels
from hnseg.models.calibration import Calibration
from hnseg.models.metadata import BundleMetadata, InputLimits, NetworkSettings
from hnseg.organs import BY_NAME, find_organs
from hnseg.preprocessing import PreprocessSettings

GRID = Grid((20, 12, 30), (5.0, 6.0, 4.0), (-50.0, 0.0, 100.0))  # one voxel is 0.12 mL
STEM, EYE_L, EYE_R, LIPS = (BY_NAME[n].label for n in ("Brainstem", "Eye_PL", "Eye_PR", "Lips"))
METADATA = BundleMetadata(
    name="m",
    title="m",
    version="1",
    licence="-",
    training_data="-",
    network=NetworkSettings("subpixel_unet"),
    preprocess=PreprocessSettings(),
    patch_kji=(8, 8, 8),
)


def labelled(*places: tuple[int, tuple[slice, slice, slice]], grid: Grid = GRID) -> Volume:
    array = np.zeros(grid.shape_kji, np.uint8)
    for label, box in places:
        array[box] = label
    return Volume(array, grid)


def box(k: int, j: int, i: int, size: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    return slice(k, k + size[0]), slice(j, j + size[1]), slice(i, i + size[2])


def review(labels: Volume, *names: str, metadata: BundleMetadata = METADATA, **confidence: float) -> list[OrganFinding]:
    sure = {BY_NAME[name].label: Confidence(value, value) for name, value in confidence.items()}
    return list(review_organs(labels, metadata, sure, find_organs(names)))


def test_a_plausible_organ_is_ok_and_has_its_volume_and_confidence() -> None:
    labels = labelled((STEM, box(10, 3, 8, (6, 6, 5))))  # 180 voxels, 21.6 mL of 15 … 30
    (finding,) = review(labels, "Brainstem", Brainstem=0.9)
    assert (finding.status, finding.notes) == ("ok", ())
    assert finding.ml == pytest.approx(21.6)
    assert finding.confidence == Confidence(0.9, 0.9)


def test_a_volume_outside_the_range_and_its_tolerance_is_noted() -> None:
    labels = labelled((STEM, box(10, 3, 8, (3, 4, 5))))  # 7.2 mL, below 15 · 0.75
    (finding,) = review(labels, "Brainstem")
    assert finding.status == "check"
    assert "7.2 mL is outside the usual 15 to 30 mL" in finding.notes[0]


def test_a_small_volume_is_no_surprise_where_the_scan_cuts_the_organ() -> None:
    labels = labelled((STEM, box(0, 3, 8, (3, 4, 5))))
    (finding,) = review(labels, "Brainstem")
    assert finding.notes == ("It reaches the scan's lower end and may be cut off.",)


def test_the_scans_ends_are_told_in_patient_space() -> None:
    upside_down = Grid((20, 12, 30), (5.0, 6.0, 4.0), (50.0, 0.0, 100.0), (-1, 0, 0, 0, 1, 0, 0, 0, -1))
    for grid, name in ((GRID, "lower"), (upside_down, "upper")):
        voxels = organ_voxels(labelled((STEM, box(0, 3, 8, (3, 4, 5))), grid=grid))[STEM]
        assert reaches_end(voxels, grid) == (name,)


def test_an_absent_organ_beyond_the_scan_is_told_from_one_that_was_missed() -> None:
    # The scan covers z = 98 … 218. The brainstem's centre is at z = 100 + 4 · 12.5 = 150.
    labels = labelled((STEM, box(10, 3, 8, (6, 6, 5))))
    centres = {"Brainstem": (0.0, 0.0, 30.0), "Glottis": (0.0, 0.0, -60.0), "Lips": (0.0, 0.0, -10.0)}
    metadata = replace(METADATA, organ_centres_mm=centres)
    _, lens, glottis, lips = review(labels, "Brainstem", "Glottis", "Lips", "Eye_AL", metadata=metadata)
    assert glottis.status == lips.status == lens.status == "absent"
    assert glottis.notes == ("The scan ends above the glottic larynx, so there is nothing to find.",)
    assert "look whether the scan shows it" in lips.notes[0]
    assert "look whether the scan shows it" in lens.notes[0]


def test_an_organ_above_the_scan_is_said_to_be_above() -> None:
    found = outside_the_scan({"Lips": np.array([0, 0, 150.0])}, {"Lips": (0, 0, 0), "Eye_AL": (0, 0, 80)}, GRID)
    assert found == {"Eye_AL": "below"}
    assert outside_the_scan({}, {"Lips": (0, 0, 0)}, GRID) == {}


def test_an_organ_that_the_model_was_not_trained_on_is_said_to_be_so() -> None:
    metadata = replace(METADATA, trained_organs=("Brainstem",))
    (finding,) = review(labelled(), "Lips", metadata=metadata)
    assert finding.status == "not trained"


def test_a_calibrated_model_tells_the_dsc_to_expect_and_flags_what_promises_little() -> None:
    calibration = Calibration(offset=-3.0, mean=4.0, boundary=1.0, shortfall=-2.0, check_below=0.55)
    metadata = replace(METADATA, calibration=calibration)
    labels = labelled((STEM, box(10, 3, 8, (6, 6, 5))))
    (fine,) = review(labels, "Brainstem", metadata=metadata, Brainstem=0.8)
    small = np.log(BY_NAME["Brainstem"].typical_ml / 21.6)
    assert small > 0
    assert (fine.status, fine.expected_dsc) == ("ok", pytest.approx(1 / (1 + np.exp(2 * small - 1.0))))
    (doubtful,) = review(labels, "Brainstem", metadata=metadata, Brainstem=0.62)
    assert doubtful.expected_dsc == pytest.approx(1 / (1 + np.exp(2 * small - 0.1)))
    assert doubtful.notes == ("The model is unsure of it.",)


def test_no_dsc_is_promised_for_an_organ_that_no_patient_showed() -> None:
    metadata = replace(
        METADATA, calibration=Calibration(-3.0, 4.0, 1.0, -2.0, 0.55), taught_by={"Brainstem": ("phantom",)}
    )
    (finding,) = review(labelled((STEM, box(10, 3, 8, (6, 6, 5)))), "Brainstem", metadata=metadata, Brainstem=0.62)
    assert finding.expected_dsc is None
    assert finding.notes == ("The model is unsure of it.",)


def test_what_taught_an_organ_goes_with_it_and_raises_no_doubt() -> None:
    labels = labelled((STEM, box(10, 3, 8, (6, 6, 5))))
    metadata = replace(METADATA, taught_by={"Brainstem": ("phantom",), "Eye_PL": ("phantom", "patient")})
    stem, eye = review(labels, "Eye_PL", "Brainstem", metadata=metadata, Brainstem=0.9)
    assert (stem.status, stem.taught_by) == ("ok", ("phantom",))
    assert (eye.status, eye.taught_by) == ("absent", ("phantom", "patient"))


def test_swapped_eyes_are_noted_on_both() -> None:
    size = (4, 4, 4)  # 7.68 mL
    right_way = labelled((EYE_L, box(10, 3, 14, size)), (EYE_R, box(10, 3, 2, size)))
    swapped = labelled((EYE_R, box(10, 3, 14, size)), (EYE_L, box(10, 3, 2, size)))
    assert [finding.status for finding in review(right_way, "Eye_PL", "Eye_PR")] == ["ok", "ok"]
    assert all("may be swapped" in finding.notes[0] for finding in review(swapped, "Eye_PL", "Eye_PR"))


def test_separate_parts_and_low_confidence_are_noted() -> None:
    labels = labelled((STEM, box(10, 3, 2, (6, 6, 3))), (STEM, box(10, 3, 12, (6, 6, 2))))
    (finding,) = review(labels, "Brainstem", Brainstem=0.4)
    assert finding.notes == ("It is in 2 separate parts, of 1 expected.", "The model is unsure of it.")


def ct_of(hu: float, spacing: tuple[float, float, float] = (1.0, 1.5, 3.0)) -> tuple[Volume, Volume]:
    grid = Grid((12, 10, 8), spacing)
    array = np.full(grid.shape_kji, -1000, np.int16)
    array[2:6, 2:8, 3:9] = hu
    return Volume(array, grid), Volume(array > -500, grid)


def test_a_usual_ct_raises_no_warning() -> None:
    assert input_warnings(*ct_of(40), InputLimits()) == ()


def test_coarse_voxels_are_told_along_the_patients_own_axes() -> None:
    (warning,) = input_warnings(*ct_of(40, (1.0, 1.0, 7.0)), InputLimits())
    assert "1 × 1 × 7 mm are coarser than the model knows (2.5 × 2.5 × 4.5 mm)" in warning


@pytest.mark.parametrize(
    ("direction", "side"), [((1, 0, 0, 0, 1, 0, 0, 0, 1), "right"), ((-1, 0, 0, 0, 1, 0, 0, 0, -1), "left")]
)
def test_a_head_that_the_image_cuts_is_told_with_the_patients_own_side(direction: tuple[int, ...], side: str) -> None:
    whole, body = ct_of(40)  # the body fills columns 3 … 8 of 12
    grid = Grid(whole.grid.size_ijk, whole.grid.spacing_mm, (0, 0, 0), direction)
    half, seen = (Volume(image.array_kji, grid).cropped((5, 0, 0), (7, 10, 8)) for image in (whole, body))
    (warning,) = input_warnings(half, seen, InputLimits())
    assert warning.startswith(f"The body reaches the image's {side} side in most slices")


def test_strange_hounsfield_units_in_the_body_are_told() -> None:
    (warning,) = input_warnings(*ct_of(900), InputLimits())
    assert "median of 900 HU" in warning


def test_an_image_that_leaves_most_organs_in_doubt_is_called_out_of_place() -> None:
    names = [organ.name for organ in BY_NAME.values()][:9]
    doubts = [OrganFinding(name, 0.0, None, "absent" if n % 2 else "check") for n, name in enumerate(names)]
    fine = [replace(finding, status="ok") for finding in doubts]
    unknown = [replace(finding, status="not trained") for finding in doubts]
    (sentence,) = result_warnings([*doubts[:5], *fine[5:], *unknown])
    assert sentence.startswith("5 of 9 organs are missing or doubtful: the field of view")
    assert result_warnings([*doubts[:4], *fine[4:]]) == ()
    assert result_warnings(doubts[:5]) == (), "of so few, each speaks for itself"
    assert result_warnings([]) == ()
