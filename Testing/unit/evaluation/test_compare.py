"""Whole segmentations against each other: matching, empty masks, grids that differ, predictions that lie wrongly."""

import json
import re

import numpy as np
import pytest

from hnseg.errors import ConfigError, GeometryMismatch, InputError
from hnseg.evaluation.compare import CompareOptions, compare, score_organ, z_restricted
from hnseg.evaluation.matching import canonical_name, match
from hnseg.evaluation.scores import METRICS
from hnseg.image.grid import Grid
from hnseg.image.resample import resample
from hnseg.image.segmentation import Segment, Segmentation
from hnseg.image.volume import Volume
from hnseg.organs import BY_NAME
from hnseg.terminology import terminology_entry

COS, SIN = np.cos(np.radians(20)), np.sin(np.radians(20))
OBLIQUE = Grid((44, 40, 30), (1.0, 1.2, 2.5), (-20.0, -150.0, 420.0), (COS, -SIN, 0, SIN, COS, 0, 0, 0, 1))


def ball(grid, centre_ijk, radius_mm):
    indices = np.stack(np.meshgrid(*map(np.arange, grid.size_ijk), indexing="ij"), axis=-1)
    distance = np.linalg.norm((indices - centre_ijk) * grid.spacing_mm, axis=-1)
    return Volume((distance <= radius_mm).transpose(2, 1, 0), grid)


def head(grid=OBLIQUE):
    """Two parotids of different size, a brainstem off the middle, a cord below."""
    cord = np.zeros(grid.shape_kji, bool)
    cord[2:14, 26:30, 19:23] = True
    return {
        "Parotid_L": ball(grid, (34, 18, 18), 7.0),
        "Parotid_R": ball(grid, (9, 20, 16), 6.0),
        "Brainstem": ball(grid, (21, 27, 23), 6.5),
        "SpinalCord": Volume(cord, grid),
    }


def segmentation(**changes):
    return Segmentation.from_masks({**head(), **changes})


def moved(segmentation, grid):
    return Segmentation(tuple(Volume(layer.array_kji, grid) for layer in segmentation.layers), segmentation.segments)


def test_equal_segmentations_score_perfectly_on_an_oblique_grid():
    scores = compare(segmentation(), segmentation())
    assert [row.organ for row in scores.organs] == ["Brainstem", "Parotid_L", "Parotid_R", "SpinalCord"]
    for row in scores.organs:
        assert (row.dsc, row.hd95_mm, row.surface_dsc, row.added_path_length_mm, row.volume_error) == (1, 0, 1, 0, 0)
        assert row.centroid_shift_mm == pytest.approx(0.0, abs=1e-9)
    assert scores.mean()["dsc"] == 1.0
    assert scores.warnings == ()


def test_scores_are_those_of_whole_masks_whatever_the_crop():
    shifted = Volume(np.roll(head()["Parotid_L"].array_kji, 2, axis=2), OBLIQUE)
    row = compare(segmentation(Parotid_L=shifted), segmentation())["Parotid_L"]
    whole = score_organ("Parotid_L", shifted.array_kji, head()["Parotid_L"].array_kji, OBLIQUE)
    for name in METRICS:
        np.testing.assert_equal(getattr(row, name), getattr(whole, name))
    assert row.centroid_shift_lps_mm == pytest.approx((2 * COS, 2 * SIN, 0.0))
    assert row.hd_mm == pytest.approx(2.0)


def test_a_missed_organ_has_dsc_0_no_hd95_and_the_diagonal_in_the_penalised_mean():
    missing = {name: mask for name, mask in head().items() if name != "Brainstem"}
    for prediction in (
        Segmentation.from_masks(missing),
        segmentation(Brainstem=Volume(np.zeros(OBLIQUE.shape_kji, bool), OBLIQUE)),
    ):
        scores = compare(prediction, segmentation())
        row, mean = scores["Brainstem"], scores.mean()
        assert (row.dsc, row.surface_dsc, row.volume_error, row.missed) == (0.0, 0.0, -1.0, True)
        assert np.isnan([row.hd95_mm, row.hd_mm, row.mean_surface_distance_mm, row.centroid_shift_mm]).all()
        assert (mean["organs_scored"], mean["organs_missed"]) == (4, 1)
        assert mean["dsc"] == pytest.approx(0.75)
        assert mean["hd95_mm"] == 0.0
        assert mean["hd95_penalised_mm"] == pytest.approx(np.linalg.norm((44, 48, 75)) / 4)


def test_an_absent_reference_is_not_scored_and_its_false_positives_are_reported():
    reference = Segmentation.from_masks({name: mask for name, mask in head().items() if name != "Parotid_R"})
    scores = compare(segmentation(), reference)
    row = scores["Parotid_R"]
    assert not row.scored
    assert np.isnan([row.dsc, row.hd95_mm, row.volume_error]).all()
    expected = head()["Parotid_R"].array_kji.sum() * OBLIQUE.voxel_ml
    assert row.false_positive_ml == pytest.approx(expected)
    assert scores.mean()["organs_scored"] == 3
    assert scores.mean()["false_positive_ml"] == pytest.approx(expected)
    assert scores.mean()["dsc"] == 1.0


def test_the_json_has_numbers_or_null_only():
    missing = Segmentation.from_masks({name: mask for name, mask in head().items() if name != "Brainstem"})
    plain = compare(missing, segmentation()).to_plain()
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text)["organs"]["Brainstem"]["hd95_mm"] is None
    assert plain["organs"]["Parotid_L"]["dsc"] == 1.0
    assert set(plain) == {"organs", "mean", "tolerance_mm", "warnings"}


def test_cord_carotids_and_oesophagus_are_also_scored_within_the_references_slices():
    longer = head()["SpinalCord"].array_kji.copy()
    longer[14:26, 26:30, 19:23] = True
    row = compare(segmentation(SpinalCord=Volume(longer, OBLIQUE)), segmentation())["SpinalCord"]
    assert row.dsc == pytest.approx(2 * 12 / (12 + 24))
    assert (row.z_restricted_dsc, row.z_restricted_hd95_mm, row.z_restricted_surface_dsc) == (1.0, 0.0, 1.0)
    assert np.isnan(compare(segmentation(), segmentation())["Brainstem"].z_restricted_dsc)


def test_restriction_follows_the_patients_axis_not_the_arrays():
    # On a sagittal grid the slices lie along x; head–feet is the array's middle axis.
    sagittal = Grid((6, 5, 4), (1, 1, 1), (0, 0, 0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
    reference = np.zeros((4, 5, 6), bool)
    reference[1, 2:4, 3] = True
    cut, kept = z_restricted(np.ones((4, 5, 6), bool), reference, sagittal)
    assert cut.shape == kept.shape == (4, 2, 6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("parotid l", "Parotid_L"), ("Parotid-Lt", "Parotid_L"), ("Left Parotid", "Parotid_L"),
        ("Glnd_Parotid_R", "Parotid_R"), ("BRAIN_STEM", "Brainstem"), ("Optic-Nerve-Rt", "OpticNrv_R"),
        ("Spinal Cord", "SpinalCord"), ("GTVp", "gtvp"),
    ],
)  # fmt: skip
def test_names_of_other_systems_are_recognised(name, expected):
    assert canonical_name(name) == expected


def test_a_code_identifies_an_organ_whatever_it_is_called():
    tags = {"TerminologyEntry": terminology_entry(BY_NAME["Cochlea_R"])}
    assert canonical_name("Schnecke re.", tags) == "Cochlea_R"
    # Four eye segments share a code on two sides, so that a code alone does not tell which it is.
    assert canonical_name("Auge", {"TerminologyEntry": terminology_entry(BY_NAME["Eye_AL"])}) == "auge"


def test_structures_outside_the_table_are_matched_by_equal_names():
    first = Segmentation.from_masks({"GTVp": head()["Brainstem"]})
    second = Segmentation.from_masks({"gtv_P": head()["Brainstem"]})
    assert compare(first, second)["gtv_P"].dsc == 1.0


def test_two_segments_of_one_organ_are_refused():
    segments = (Segment("Parotid-Lt", 0, 1, (1, 2, 3)), Segment("Parotid_L", 0, 2, (1, 2, 3)))
    with pytest.raises(InputError, match="both Parotid_L"):
        match(segments, segments[:1])


def test_segmentations_without_a_common_organ_are_refused():
    with pytest.raises(InputError, match="no structure in common"):
        compare(Segmentation.from_masks({"Lips": head()["Brainstem"]}), segmentation())


def test_organs_can_be_asked_for_and_left_out():
    scores = compare(segmentation(), segmentation(), CompareOptions(organs=("parotid l", "Brainstem")))
    assert [row.organ for row in scores.organs] == ["Parotid_L", "Brainstem"]
    fewer = compare(segmentation(), segmentation(), CompareOptions(leave_out=("Mandible", "Parotid_R")))
    assert [row.organ for row in fewer.organs] == ["Brainstem", "Parotid_L", "SpinalCord"]
    with pytest.raises(ConfigError):
        CompareOptions(tolerance_mm=-1)


def test_another_grid_is_resampled_onto_the_references_and_said():
    finer = OBLIQUE.respaced((0.5, 0.6, 1.25))
    layers = tuple(resample(layer, finer, interpolation="nearest") for layer in segmentation().layers)
    scores = compare(Segmentation(layers, segmentation().segments), segmentation())
    assert "resampled onto the reference's grid" in scores.warnings[0]
    assert scores.mean()["dsc"] > 0.99


def test_masks_on_other_grids_are_refused_by_the_metric_itself():
    with pytest.raises(GeometryMismatch, match="resample the prediction"):
        score_organ("Lips", np.ones((2, 2, 2), bool), np.ones((2, 2, 3), bool), Grid((3, 2, 2)))


def flipped(axis):
    layers = tuple(layer.with_array(np.flip(layer.array_kji, axis).copy()) for layer in segmentation().layers)
    return Segmentation(layers, segmentation().segments)


def swapped_sides():
    names = {"Parotid_L": "Parotid_R", "Parotid_R": "Parotid_L"}
    return Segmentation.from_masks({names.get(name, name): mask for name, mask in head().items()})


def shifted(vector_lps):
    origin = tuple(np.add(OBLIQUE.origin_lps, vector_lps))
    return moved(segmentation(), Grid(OBLIQUE.size_ijk, OBLIQUE.spacing_mm, origin, OBLIQUE.direction))


def read_as_ras():
    direction = tuple((np.diag([-1.0, -1.0, 1.0]) @ OBLIQUE.axes).ravel())
    x, y, z = OBLIQUE.origin_lps
    return moved(segmentation(), Grid(OBLIQUE.size_ijk, OBLIQUE.spacing_mm, (-x, -y, z), direction))


def without_header():
    """As saved by a tool that keeps the array and forgets where it lies."""
    return moved(segmentation(), Grid(OBLIQUE.size_ijk))


def transposed():
    """As written by a tool that takes an (i, j, k) array for a (k, j, i) one, with the image's header."""
    grid = Grid(OBLIQUE.size_ijk[::-1], OBLIQUE.spacing_mm, OBLIQUE.origin_lps, OBLIQUE.direction)
    layers = tuple(Volume(layer.array_kji.transpose(2, 1, 0).copy(), grid) for layer in segmentation().layers)
    return Segmentation(layers, segmentation().segments)


@pytest.mark.parametrize(
    ("prediction", "words"),
    [
        (flipped(2), "when mirrored left to right,"),
        (flipped(1), "when mirrored front to back,"),
        (flipped(0), "when mirrored head to feet,"),
        (swapped_sides(), "given the other side's label"),
        (shifted((9.0, -12.0, 20.0)), r"shifted by \(-9, 12, -20\) mm"),
        (read_as_ras(), "read as RAS instead of LPS"),
        (without_header(), "given the reference's spacing, origin and direction"),
        (transposed(), "given its axes in another order"),
    ],
)
def test_predictions_that_lie_wrongly_are_recognised_and_named(prediction, words):
    scores = compare(prediction, segmentation())
    (said,) = [warning for warning in scores.warnings if "Scores rise" in warning]
    assert pytest.approx(1.0, abs=0.08) == float(said.split(" to ")[1].split()[0])
    assert re.search(words, said), said


def test_a_prediction_that_is_merely_bad_is_not_suspected():
    rng = np.random.default_rng(1)
    noisy = {}
    for name, mask in head().items():
        noisy[name] = mask.with_array(mask.array_kji & (rng.random(mask.array_kji.shape) < 0.3))
    scores = compare(Segmentation.from_masks(noisy), segmentation())
    assert scores.mean()["dsc"] < 0.6
    assert scores.warnings == ()


def test_progress_reaches_the_end_and_a_cancelled_comparison_stops():
    seen = []
    compare(segmentation(), segmentation(), on_progress=lambda fraction, text: seen.append(fraction))
    assert seen[-1] == 1.0
    assert seen == sorted(seen)
