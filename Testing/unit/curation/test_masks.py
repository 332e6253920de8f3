"""Stacking masks: nothing is lost, nothing is moved, and whatever is odd is said."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hnseg.curation.availability import Availability, read_availability, read_patients
from hnseg.curation.masks import read_masks, stack, unstack
from hnseg.errors import UnreadableFile
from hnseg.image.files import write_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.organs import ORGANS, find_organ

C, S = np.cos(np.radians(10)), np.sin(np.radians(10))
OBLIQUE = Grid((40, 9, 7), (3.0, 2.0, 1.0), (-58.0, 11.0, -7.0), (C, -S, 0, S, C, 0, 0, 0, 1))
LEFT, MIDDLE, RIGHT = 30, 20, 10
"""Columns i of OBLIQUE that lie left of, at and right of x = 0."""


def mask(*boxes, grid=OBLIQUE, value=1):
    array = np.zeros(grid.shape_kji, np.uint8)
    for k, j, i in boxes:
        array[k, j, i] = value
    return Volume(array, grid)


def at(i, width=2):
    return (slice(2, 4), slice(2, 5), slice(i, i + width))


def kinds(stacked):
    return [(remark.kind, remark.structure) for remark in stacked.remarks if remark.kind != "volume"]


def labels_of(stacked, kji):
    return int(stacked.labels.array_kji[kji])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_unstacking_a_stack_gives_back_disjoint_masks_exactly(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(ORGANS) + 1, OBLIQUE.shape_kji)
    masks = {organ.name: Volume(labels == organ.label, OBLIQUE) for organ in ORGANS if (labels == organ.label).any()}
    stacked = stack(masks.items(), OBLIQUE)
    for back in (unstack(stacked.segmentation), unstack(stacked.labels)):
        assert list(back) == list(masks)
        assert all(np.array_equal(back[name].array_kji, masks[name].array_kji) for name in masks)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_overlapping_masks_come_back_whole_from_the_segmentation(seed):
    rng = np.random.default_rng(seed)
    masks = {organ.name: Volume(rng.random(OBLIQUE.shape_kji) < 0.2, OBLIQUE) for organ in ORGANS[:6]}
    back = unstack(stack(masks.items(), OBLIQUE).segmentation)
    assert all(np.array_equal(back[name].array_kji, masks[name].array_kji) for name in masks)


def test_of_two_organs_the_one_that_is_small_by_nature_keeps_the_shared_voxels_in_either_order():
    small, large = mask(at(MIDDLE, 2)), mask(at(MIDDLE, 6))  # 12 and 36 voxels, 12 shared
    for pairs in ((("Arytenoid", small), ("Larynx_SG", large)), (("Larynx_SG", large), ("Arytenoid", small))):
        stacked = stack(pairs, OBLIQUE)
        assert labels_of(stacked, (2, 2, MIDDLE)) == find_organ("Arytenoid").label
        assert labels_of(stacked, (2, 2, MIDDLE + 4)) == find_organ("Larynx_SG").label
        (conflict,) = stacked.overlaps.conflicts
        assert (conflict.winner, conflict.loser, conflict.voxels) == ("Arytenoid", "Larynx_SG", 12)
        assert conflict.ml == pytest.approx(12 * 6e-3)
        assert "0.46 mL against 13.3 mL" in conflict.reason


def test_the_overlap_matrix_holds_every_pair_and_each_organs_own_voxels():
    stacked = stack(
        {"Lips": mask(at(18, 6)), "Cavity_Oral": mask(at(20, 4)), "Pituitary": mask(at(22, 1))}.items(), OBLIQUE
    )
    rows = {row.split(",")[0]: row.split(",")[1:] for row in stacked.overlaps.to_csv().splitlines()}
    column = {name: n for n, name in enumerate(rows["voxels"])}
    assert len(rows) == 31
    assert [rows[a][column[b]] for a, b in (("Lips", "Lips"), ("Lips", "Cavity_Oral"), ("Cavity_Oral", "Lips"))] == [
        "36", "24", "24",
    ]  # fmt: skip
    assert rows["Pituitary"][column["Lips"]] == rows["Pituitary"][column["Cavity_Oral"]] == "6"
    assert rows["Parotid_L"][column["Lips"]] == "0"


def test_names_are_matched_by_alias_and_a_second_mask_of_one_organ_is_not_taken():
    stacked = stack([("opticNrvL", mask(at(LEFT))), ("OpticNerve_L", mask(at(RIGHT)))], OBLIQUE)
    assert stacked.annotated == ("OpticNrv_L",)
    assert ("values", "OpticNrv_L") in kinds(stacked)
    assert labels_of(stacked, (2, 2, LEFT)) == find_organ("OpticNrv_L").label
    assert labels_of(stacked, (2, 2, RIGHT)) == 0


def test_a_mask_off_the_grid_is_resampled_by_nearest_and_said_so():
    finer = OBLIQUE.respaced((1.5, 1.0, 0.5))
    doubled = np.repeat(np.repeat(np.repeat(mask(at(MIDDLE, 3)).array_kji, 2, 0), 2, 1), 2, 2)
    stacked = stack([("Brainstem", Volume(doubled, finer))], OBLIQUE)
    assert np.array_equal(unstack(stacked.labels)["Brainstem"].array_kji, mask(at(MIDDLE, 3)).array_kji > 0)
    assert kinds(stacked) == [("off-grid", "Brainstem")]


def test_a_header_that_differs_by_a_rounding_is_no_other_grid():
    near = Grid(OBLIQUE.size_ijk, OBLIQUE.spacing_mm, tuple(np.add(OBLIQUE.origin_lps, 4e-4)), OBLIQUE.direction)
    assert kinds(stack([("Brainstem", mask(at(MIDDLE), grid=near))], OBLIQUE)) == []


def test_empty_masks_are_left_out_and_named():
    stacked = stack([("Lips", mask()), ("Brainstem", mask(at(MIDDLE)))], OBLIQUE)
    assert stacked.annotated == ("Brainstem",)
    assert kinds(stacked) == [("empty", "Lips")]


def test_a_case_without_masks_is_an_empty_segmentation():
    stacked = stack([], OBLIQUE)
    assert stacked.annotated == stacked.segmentation.segments == ()
    assert not stacked.labels.array_kji.any()


def test_values_other_than_0_and_1_are_taken_as_inside_and_named():
    stacked = stack([("Brainstem", mask(at(MIDDLE), value=255))], OBLIQUE)
    assert kinds(stacked) == [("values", "Brainstem")]
    assert labels_of(stacked, (2, 2, MIDDLE)) == find_organ("Brainstem").label


MARKED = [("Brainstem", mask(at(MIDDLE))), ("Pituitary", mask(at(18, 1))), ("OpticChiasm", mask(at(22, 1)))]
MARKS = {"Brainstem": 1.0, "Pituitary": 0.5, "OpticChiasm": 0.0, "Lips": 1.0}


def test_marks_of_zero_leave_out_and_a_promised_mask_that_is_not_there_is_named():
    stacked = stack(MARKED, OBLIQUE, marks=MARKS)
    assert ("availability", "OpticChiasm") in kinds(stacked)
    assert ("availability", "Lips") in kinds(stacked)
    assert "OpticChiasm" not in unstack(stacked.segmentation)


@pytest.mark.parametrize(
    ("partial", "annotated", "ignored", "segmented", "label"),
    [
        ("exclude", ("Brainstem",), (), ["Brainstem"], 0),
        ("ignore", ("Brainstem",), ("Pituitary",), ["Brainstem", "Pituitary"], 0),
        ("keep", ("Brainstem", "Pituitary"), (), ["Brainstem", "Pituitary"], 29),
    ],
)
def test_partial_masks_are_excluded_ignored_or_kept(partial, annotated, ignored, segmented, label):
    stacked = stack(MARKED, OBLIQUE, marks=MARKS, partial=partial)
    assert (stacked.annotated, stacked.ignored) == (annotated, ignored)
    assert list(unstack(stacked.segmentation)) == segmented
    assert labels_of(stacked, (2, 2, 18)) == label


def test_targets_get_the_same_label_whether_or_not_the_other_is_empty_and_never_an_organs_voxels():
    pairs = [("GTVp", mask()), ("GTVn", mask(at(MIDDLE, 4))), ("Brainstem", mask(at(MIDDLE)))]
    stacked = stack(pairs, OBLIQUE, targets=("GTVp", "GTVn"))
    assert labels_of(stacked, (2, 2, MIDDLE + 3)) == 32
    assert labels_of(stacked, (2, 2, MIDDLE)) == find_organ("Brainstem").label
    assert set(stacked.annotated) == {"GTVn", "Brainstem"}


def test_other_structures_stay_out_of_the_label_map():
    stacked = stack([("PTV 70", mask(at(MIDDLE)))], OBLIQUE)
    assert list(unstack(stacked.segmentation)) == ["PTV 70"]
    assert not stacked.labels.array_kji.any()


def agree(stacked):
    """Every conflict counts the voxels of the loser that the label map gives to the winner, and none is left out."""
    masks, labels = unstack(stacked.segmentation), stacked.labels.array_kji
    held = {segment.name: labels == segment.label for segment in stacked.segmentation.segments}
    counted = {
        (winner, loser): int(np.count_nonzero(masks[winner].array_kji & masks[loser].array_kji & held[winner]))
        for winner in masks
        for loser in masks
        if winner != loser
    }
    recorded = {(one.winner, one.loser): one.voxels for one in stacked.overlaps.conflicts}
    return recorded == {pair: voxels for pair, voxels in counted.items() if voxels}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_conflicts_agree_with_the_label_map_voxel_for_voxel(seed):
    """Whatever overlaps: organs, of which some are ignored, targets, and structures that are neither."""
    rng = np.random.default_rng(seed)
    names = [*(organ.name for organ in ORGANS[:5]), "GTVp", "GTVn", "PTV 70"]
    masks = [(name, Volume(rng.random(OBLIQUE.shape_kji) < 0.2, OBLIQUE)) for name in rng.permutation(names).tolist()]
    marks = {organ.name: float(rng.choice([0.5, 1.0])) for organ in ORGANS[:5]}
    assert agree(stack(masks, OBLIQUE, marks=marks, targets=("GTVp", "GTVn")))


def test_an_ignored_mask_wins_no_conflict_and_the_record_says_why_the_other_stands():
    pairs = [("Brainstem", mask(at(MIDDLE, 6))), ("Pituitary", mask(at(MIDDLE, 2)))]
    stacked = stack(pairs, OBLIQUE, marks={"Pituitary": 0.5}, partial="ignore")
    assert labels_of(stacked, (2, 2, MIDDLE)) == find_organ("Brainstem").label
    (conflict,) = stacked.overlaps.conflicts
    assert (conflict.winner, conflict.loser, conflict.voxels) == ("Brainstem", "Pituitary", 12)
    assert "Pituitary is marked as partial or corrupted" in conflict.reason
    assert ("overlap", "Brainstem") in kinds(stacked)


def test_a_partial_mask_that_is_kept_wins_as_any_other():
    pairs = [("Brainstem", mask(at(MIDDLE, 6))), ("Pituitary", mask(at(MIDDLE, 2)))]
    (conflict,) = stack(pairs, OBLIQUE, marks={"Pituitary": 0.5}, partial="keep").overlaps.conflicts
    assert (conflict.winner, conflict.loser) == ("Pituitary", "Brainstem")


def test_two_ignored_masks_have_no_winner_but_stay_in_the_matrix():
    pairs = [("Brainstem", mask(at(MIDDLE, 6))), ("Pituitary", mask(at(MIDDLE, 2)))]
    stacked = stack(pairs, OBLIQUE, marks={"Brainstem": 0.5, "Pituitary": 0.5})
    assert stacked.overlaps.conflicts == ()
    rows = {row.split(",")[0]: row.split(",")[1:] for row in stacked.overlaps.to_csv().splitlines()}
    assert rows["Brainstem"][find_organ("Pituitary").label - 1] == "12"


def test_where_three_organs_meet_only_the_one_in_the_label_map_wins():
    """The arytenoid's 12 voxels lie in both others, which share 24: 12 are left for the glottis to win."""
    pairs = [("Larynx_SG", mask(at(16, 8))), ("Glottis", mask(at(16, 4))), ("Arytenoid", mask(at(16, 2)))]
    won = {(one.winner, one.loser): one.voxels for one in stack(pairs, OBLIQUE).overlaps.conflicts}
    assert won == {("Arytenoid", "Larynx_SG"): 12, ("Arytenoid", "Glottis"): 12, ("Glottis", "Larynx_SG"): 12}


def test_overlaps_of_organs_with_other_structures_are_recorded_with_the_reason():
    pairs = [("GTVp", mask(at(16, 6))), ("PTV 70", mask(at(14, 8))), ("Brainstem", mask(at(MIDDLE, 6)))]
    stacked = stack(pairs, OBLIQUE)
    reasons = {(one.winner, one.loser): (one.voxels, one.reason) for one in stacked.overlaps.conflicts}
    why = "{} is no organ of the table and stays in the segmentation alone."
    assert reasons == {
        ("Brainstem", "GTVp"): (12, why.format("GTVp")),
        ("Brainstem", "PTV 70"): (12, why.format("PTV 70")),
    }
    assert labels_of(stacked, (2, 2, MIDDLE)) == find_organ("Brainstem").label


def test_targets_yield_to_organs_and_the_later_target_to_the_earlier():
    pairs = [("GTVp", mask(at(16, 6))), ("GTVn", mask(at(14, 4))), ("Brainstem", mask(at(MIDDLE, 6)))]
    stacked = stack(pairs, OBLIQUE, targets=("GTVp", "GTVn"))
    reasons = {(one.winner, one.loser): one.reason for one in stacked.overlaps.conflicts}
    assert reasons["Brainstem", "GTVp"] == "GTVp is a target, and a target gets only what no organ claims."
    assert reasons["GTVp", "GTVn"] == "GTVp comes before GTVn among the targets."
    assert len(reasons) == 2
    assert labels_of(stacked, (2, 2, 16)) == 31


def parotids(left, right):
    return [("Parotid_L", mask(at(left))), ("Parotid_R", mask(at(right))), ("Brainstem", mask(at(MIDDLE)))]


def test_pairs_on_their_own_sides_need_no_remark():
    assert kinds(stack(parotids(LEFT, RIGHT), OBLIQUE)) == []


def test_an_exchanged_pair_is_found_by_geometry():
    assert kinds(stack(parotids(RIGHT, LEFT), OBLIQUE)) == [("swapped", "Parotid_L")]


def test_sides_are_the_patients_not_the_arrays():
    """The same voxels on a grid whose i runs from left to right."""
    mirrored = Grid(OBLIQUE.size_ijk, OBLIQUE.spacing_mm, (58.0, 11.0, -7.0), (-C, -S, 0, -S, C, 0, 0, 0, 1))
    pairs = [(name, Volume(volume.array_kji, mirrored)) for name, volume in parotids(RIGHT, LEFT)]
    assert kinds(stack(pairs, mirrored)) == []


def test_all_pairs_exchanged_is_one_remark_about_the_case():
    cochleas = [("Cochlea_L", mask(at(RIGHT + 4))), ("Cochlea_R", mask(at(LEFT - 4)))]
    assert kinds(stack([*parotids(RIGHT, LEFT), *cochleas], OBLIQUE)) == [("swapped", "")]


def test_an_organ_without_its_partner_is_judged_by_the_midline():
    found = kinds(stack([("Parotid_L", mask(at(RIGHT))), ("Brainstem", mask(at(MIDDLE)))], OBLIQUE))
    assert found == [("swapped", "Parotid_L")]


def test_a_one_sided_organ_that_holds_both_sides_is_found():
    pairs = [("Parotid_L", mask(at(LEFT), at(RIGHT))), ("Brainstem", mask(at(MIDDLE)))]
    assert kinds(stack(pairs, OBLIQUE)) == [("two-sided", "Parotid_L")]


def test_a_two_sided_organ_on_one_side_is_found():
    pairs = [("BuccalMucosa", mask(at(LEFT))), ("Brainstem", mask(at(MIDDLE)))]
    assert ("two-sided", "BuccalMucosa") in kinds(stack(pairs, OBLIQUE))


def test_a_volume_far_from_the_published_range_is_remarked_on():
    """12 voxels of 6 mm³ are 0.072 mL: usual for no brainstem, within three times the range for a cochlea."""
    stacked = stack([("Brainstem", mask(at(MIDDLE))), ("Cochlea_L", mask(at(LEFT)))], OBLIQUE)
    assert [remark.structure for remark in stacked.remarks if remark.kind == "volume"] == ["Brainstem"]


def test_masks_are_read_in_order_and_few_at_a_time(tmp_path):
    files = {}
    for n, organ in enumerate(ORGANS[:5]):
        files[organ.name] = tmp_path / f"{organ.name}.seg.nrrd"
        write_volume(mask(at(n, n + 1)), files[organ.name])
    read = list(read_masks(files.items()))
    assert [name for name, _ in read] == list(files)
    assert [int(volume.array_kji.sum()) for _, volume in read] == [6 * (n + 1) for n in range(5)]


def test_a_mask_that_cannot_be_read_stops_the_case_with_its_name(tmp_path):
    (tmp_path / "Lips.nrrd").write_bytes(b"NRRD0004\ngarbage")
    with pytest.raises(UnreadableFile, match=r"Lips\.nrrd"):
        list(read_masks([("Lips", tmp_path / "Lips.nrrd")]))


TABLE = "case;OpticNrvL;Cavity Oral;Eye_A_L;brain stem;Adenoid\ncase_01;1;0,5;0;1;1\nCase 2;0.5;;x;1;1\n"


def test_the_availability_table_is_read_with_any_spelling(tmp_path):
    (tmp_path / "OAR_data.csv").write_text("\ufeff" + TABLE, encoding="utf-8")
    table = read_availability(tmp_path / "OAR_data.csv")
    assert table.of("case_01") == {"OpticNrv_L": 1.0, "Cavity_Oral": 0.5, "Eye_AL": 0.0, "Brainstem": 1.0}
    assert table.of("CASE-002") == {"OpticNrv_L": 0.5, "Brainstem": 1.0}
    assert len(table.notes) == 2
    assert "Adenoid" in table.notes[0]
    assert "'x'" in table.notes[1]


def test_commas_and_tabs_separate_too(tmp_path):
    for delimiter in ",\t":
        (tmp_path / "t.csv").write_text(f"case{delimiter}Lips\ncase_03{delimiter}0.5\n")
        assert read_availability(tmp_path / "t.csv").of("case_3") == {"Lips": 0.5}


def test_what_is_no_table_is_refused_with_its_name(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnreadableFile, match=r"t\.csv"):
        read_availability(tmp_path / "t.csv")


def test_a_case_that_the_table_does_not_list_has_no_marks():
    assert Availability().of("case_01") == {}


def test_sex_and_age_are_read_loosely_and_their_absence_is_no_error(tmp_path):
    (tmp_path / "p.csv").write_text("Patient;Gender;Age [years]\ncase_01;F;63\ncase_02;;71\n")
    assert read_patients(tmp_path / "p.csv") == {"case1": {"sex": "F", "age": "63"}, "case2": {"age": "71"}}
    assert read_patients(tmp_path / "absent.csv") == {}
