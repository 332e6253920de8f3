"""The organ table, its names, its order and what Slicer gets of it."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from hnseg.errors import UnknownOrgan
from hnseg.organ_resources import FILES, main
from hnseg.organs import BY_NAME, ORGANS, Side, find_organ, find_organs, swap_sides
from hnseg.terminology import segment_tags, terminology_entry

REPOSITORY = next(parent for parent in Path(__file__).resolve().parents if (parent / "pyproject.toml").is_file())

# The challenge's output labels (HaN-Seg 2023), as published.
CHALLENGE = """A_Carotid_L A_Carotid_R Arytenoid Bone_Mandible Brainstem BuccalMucosa Cavity_Oral Cochlea_L Cochlea_R
    Cricopharyngeus Esophagus_S Eye_AL Eye_AR Eye_PL Eye_PR Glnd_Lacrimal_L Glnd_Lacrimal_R Glnd_Submand_L
    Glnd_Submand_R Glnd_Thyroid Glottis Larynx_SG Lips OpticChiasm OpticNrv_L OpticNrv_R Parotid_L Parotid_R Pituitary
    SpinalCord"""

PAIRS = ("A_Carotid", "Cochlea", "Eye_A", "Eye_P", "Glnd_Lacrimal", "Glnd_Submand", "OpticNrv", "Parotid")


def colour_distances():
    colours = rgb2lab(np.array([[organ.rgb for organ in ORGANS]]) / 255)[0]
    return deltaE_ciede2000(colours[:, None], colours[None])


def test_labels_are_the_challenges_1_to_30_in_alphabetical_order():
    assert [organ.name for organ in ORGANS] == CHALLENGE.split()
    assert [organ.label for organ in ORGANS] == list(range(1, 31))
    assert [organ.name for organ in ORGANS] == sorted(organ.name for organ in ORGANS)


@pytest.mark.parametrize(
    ("name", "code", "side"),
    [
        ("OpticNrv_R", "18234004", "24028007"),
        ("Cochlea_L", "80169004", "7771000"),
        ("Eye_PR", "79652003", "24028007"),
        ("Arytenoid", "77578007", "51440002"),
        ("Larynx_SG", "86483002", None),
        ("SpinalCord", "2748008", None),
    ],
)
def test_codes_and_sides_are_those_of_the_published_mapping(name, code, side):
    organ = BY_NAME[name]
    assert organ.sct_code == code
    assert (organ.side.code if organ.side else None) == side


def test_partners_are_symmetric_share_a_code_and_are_on_opposite_sides():
    paired = [organ for organ in ORGANS if organ.partner]
    assert {organ.name for organ in paired} == {f"{stem}{side}" for stem in PAIRS for side in _sides(stem)}
    for organ in paired:
        partner = BY_NAME[organ.partner]
        assert partner.partner == organ.name
        assert partner.sct_code == organ.sct_code
        assert {organ.side, partner.side} == {Side.LEFT, Side.RIGHT}


def _sides(stem):
    return ("L", "R") if stem in ("Eye_A", "Eye_P") else ("_L", "_R")


def test_swapping_sides_twice_is_the_same_label_and_midline_labels_stay():
    assert swap_sides(1) == 2
    assert swap_sides(0) == 0
    assert swap_sides(BY_NAME["SpinalCord"].label) == BY_NAME["SpinalCord"].label
    assert swap_sides(BY_NAME["Arytenoid"].label) == BY_NAME["Arytenoid"].label
    assert [swap_sides(swap_sides(label)) for label in range(31)] == list(range(31))


def test_only_arytenoid_and_buccal_mucosa_have_two_parts_in_one_label():
    assert [organ.name for organ in ORGANS if organ.components == 2] == ["Arytenoid", "BuccalMucosa"]
    assert [organ.name for organ in ORGANS if organ.side is Side.BOTH] == ["Arytenoid", "BuccalMucosa"]


def test_left_and_right_have_colours_that_a_person_can_tell_apart():
    distances = colour_distances()
    for stem in PAIRS:
        left, right = (BY_NAME[stem + side].label - 1 for side in _sides(stem))
        assert distances[left, right] > 20, stem  # CIEDE2000; 10 is "different at a glance"


def test_no_two_organs_have_nearly_the_same_colour():
    distances = colour_distances() + 100 * np.eye(30)
    assert distances.min() > 5


def test_left_organs_have_the_colours_of_the_published_table():
    assert BY_NAME["Parotid_L"].rgb == (31, 45, 172)
    assert BY_NAME["SpinalCord"].rgb == (244, 214, 49)
    assert BY_NAME["SpinalCord"].rgb_unit == pytest.approx((0.956863, 0.839216, 0.192157), abs=1e-6)


def test_small_organs_win_over_large_ones():
    assert sorted(organ.priority for organ in ORGANS) == list(range(1, 31))
    by_priority = sorted(ORGANS, key=lambda organ: organ.priority)
    volumes = [organ.typical_ml for organ in by_priority]
    assert volumes == sorted(volumes)
    for small, large in (("Lips", "Cavity_Oral"), ("Glottis", "Larynx_SG"), ("OpticChiasm", "OpticNrv_L")):
        assert BY_NAME[small].priority < BY_NAME[large].priority


def test_typical_volumes_lie_in_their_published_ranges():
    for organ in ORGANS:
        low, high = organ.range_ml
        assert low < organ.typical_ml < high, organ.name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Parotid_L", "Parotid_L"),
        ("parotid l", "Parotid_L"),
        ("OpticNrvL", "OpticNrv_L"),
        ("Cavity Oral", "Cavity_Oral"),
        ("BRAINSTEM", "Brainstem"),
        ("BrainStem", "Brainstem"),
        ("eye-al", "Eye_AL"),
        ("Glnd_Parotid_R", "Parotid_R"),
        ("Spinal_Cord", "SpinalCord"),
        ("Chiasm", "OpticChiasm"),
        ("Parotid-Lt", "Parotid_L"),
        ("Left Parotid", "Parotid_L"),
        ("RightParotid", "Parotid_R"),
        ("R_Parotid", "Parotid_R"),
        ("Optic-Nerve-Rt", "OpticNrv_R"),
        ("Eye_A_L", "Eye_AL"),
    ],
)
def test_names_and_aliases_are_found_whatever_their_case_and_separators(written, name):
    assert find_organ(written).name == name


def test_no_name_or_alias_stands_for_two_organs():
    owners = {}
    for organ in ORGANS:
        for text in (organ.name, *organ.aliases):
            owners.setdefault(re.sub(r"[ _-]", "", text).lower(), set()).add(organ.name)
    assert {text: names for text, names in owners.items() if len(names) > 1} == {}


def test_an_unknown_name_is_refused_with_the_nearest_known_one():
    with pytest.raises(UnknownOrgan, match="'Parotis_L'; did you mean Parotid_L"):
        find_organ("Parotis_L")
    with pytest.raises(UnknownOrgan, match="use one of A_Carotid_L"):
        find_organ("Xyz")


def test_several_names_come_in_label_order_and_once_each():
    assert [organ.label for organ in find_organs(["SpinalCord", "Brainstem", "brain stem"])] == [5, 30]


def test_the_table_needs_neither_numpy_nor_torch():
    heavy = ("numpy", "torch", "SimpleITK", "pydicom", "scipy")
    code = (
        "import sys, hnseg.organs, hnseg.terminology, hnseg.organ_resources;"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_terminology_entry_is_in_slicers_syntax():
    assert terminology_entry(BY_NAME["Parotid_L"]) == (
        "Segmentation category and type - HNSeg~SCT^123037004^Anatomical Structure~SCT^45289007^Parotid gland"
        "~SCT^7771000^Left~~^^~^^"
    )
    assert terminology_entry(BY_NAME["SpinalCord"]).split("~")[3] == "^^"
    assert segment_tags(BY_NAME["Lips"])["Segmentation.Status"] == "notstarted"


@pytest.mark.parametrize("name", FILES)
def test_slicers_files_are_what_the_table_says(name):
    written = (REPOSITORY / "Resources" / name).read_bytes().decode()
    assert written == FILES[name](), "run: python -m hnseg.organ_resources Resources"


def test_the_command_writes_all_files(tmp_path):
    main([str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    assert (tmp_path / "HNSeg.ctbl").read_text().splitlines()[-1] == "30 SpinalCord 244 214 49 255"


def test_the_colour_table_with_codes_holds_a_row_for_each_label():
    rows = list(csv.DictReader(FILES["HNSeg.csv"]().splitlines()))
    assert [int(row["LabelValue"]) for row in rows] == list(range(31))
    parotid = rows[BY_NAME["Parotid_R"].label]
    assert (parotid["Name"], parotid["Type_CodeValue"], parotid["TypeModifier_CodeMeaning"]) == (
        "Parotid_R", "45289007", "Right",
    )  # fmt: skip


def test_the_terminology_has_every_code_once_with_the_colour_of_each_side():
    context = json.loads(FILES["HNSeg.term.json"]())
    (category,) = context["SegmentationCodes"]["Category"]
    types = {entry["CodeValue"]: entry for entry in category["Type"]}
    assert len(types) == len(category["Type"]) == len({organ.sct_code for organ in ORGANS})
    for organ in ORGANS:
        shown = [types[organ.sct_code], *types[organ.sct_code].get("Modifier", [])]
        wanted = organ.side.code if organ.side else organ.sct_code
        (entry,) = [entry for entry in shown if entry["CodeValue"] == wanted]
        same_code = [other for other in ORGANS if (other.sct_code, other.side) == (organ.sct_code, organ.side)]
        largest = max(same_code, key=lambda other: other.typical_ml)
        assert entry["recommendedDisplayRGBValue"] == list(largest.rgb)
