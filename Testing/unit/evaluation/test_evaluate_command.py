"""`hnseg evaluate` on files, folders and cohorts."""

import base64
import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from hnseg.cli.cases import case_name, cases_in, image_of
from hnseg.cli.main import main
from hnseg.cli.structures import load_structures
from hnseg.image.files import write_volume
from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segmentation, write_segmentation
from hnseg.image.volume import Volume

GRID = Grid((32, 28, 20), (2.0, 2.2, 3.0), (-30.0, -40.0, 100.0))
BOXES = {
    "Brainstem": (slice(10, 16), slice(15, 22), slice(12, 19)),
    "Parotid_L": (slice(5, 11), slice(8, 15), slice(21, 29)),
    "Parotid_R": (slice(5, 11), slice(8, 15), slice(2, 9)),
}


def masks(shift=0, names=tuple(BOXES)):
    volumes = {}
    for name in names:
        array = np.zeros(GRID.shape_kji, bool)
        array[BOXES[name]] = True
        volumes[name] = Volume(np.roll(array, shift, axis=2), GRID)
    return volumes


def write_case(folder, number, *, shift=0, ct=False):
    """A case in HaN-Seg's layout."""
    name = f"case_{number:02d}"
    (folder / name).mkdir(parents=True)
    for organ, mask in masks(shift).items():
        write_volume(mask, folder / name / f"{name}_OAR_{organ}.seg.nrrd")
    if ct:
        noise = np.random.default_rng(number).integers(-100, 100, GRID.shape_kji).astype(np.int16)
        write_volume(Volume(noise, GRID), folder / name / f"{name}_IMG_CT.nrrd")


@pytest.fixture
def cohort(tmp_path):
    """References of three cases, and predictions as files of three kinds, one voxel off."""
    for number in (1, 2, 3):
        write_case(tmp_path / "truth", number, ct=True)
    predicted = tmp_path / "predicted"
    predicted.mkdir()
    shifted = Segmentation.from_masks(masks(1))
    write_segmentation(shifted, predicted / "case_01.seg.nrrd")
    write_volume(shifted.to_labels(), predicted / "case_02_seg.mha")
    write_volume(shifted.to_labels(), predicted / "case_03_seg.nii.gz")
    return tmp_path


def dsc_of_shift(name, shift=1):
    length = BOXES[name][2].stop - BOXES[name][2].start
    return (length - shift) / length


def run(*words):
    return main(["evaluate", *map(str, words)])


def test_the_json_of_one_case_follows_the_contract(tmp_path):
    write_case(tmp_path, 1)
    write_segmentation(Segmentation.from_masks(masks(1)), tmp_path / "organs.seg.nrrd")
    assert run(tmp_path / "organs.seg.nrrd", tmp_path / "case_01", "--json", tmp_path / "s.json") == 0
    scores = json.loads((tmp_path / "s.json").read_text())
    assert set(scores["organs"]) == set(BOXES)
    assert scores["organs"]["Brainstem"]["dsc"] == pytest.approx(dsc_of_shift("Brainstem"))
    assert scores["organs"]["Brainstem"]["hd95_mm"] == pytest.approx(2.0)
    assert scores["mean"]["dsc"] == pytest.approx(np.mean([dsc_of_shift(name) for name in BOXES]))
    assert "Research use" in scores["notice"]


@pytest.mark.parametrize("ending", ["labels.nrrd", "labels.nii.gz", "labels.mha", "organs.seg.nrrd", "folder"])
def test_every_kind_of_file_is_taken_on_either_side(tmp_path, ending):
    write_case(tmp_path, 1)
    organs = Segmentation.from_masks(masks())
    if ending == "folder":
        path = tmp_path / "case_01"
    elif ending == "organs.seg.nrrd":
        path = tmp_path / ending
        write_segmentation(organs, path)
    else:
        path = tmp_path / ending
        write_volume(organs.to_labels(), path)
    for words in ((path, tmp_path / "case_01"), (tmp_path / "case_01", path)):
        assert run(*words, "--organs", ",".join(BOXES), "--json", tmp_path / "s.json") == 0
        assert json.loads((tmp_path / "s.json").read_text())["mean"]["dsc"] == 1.0


def test_a_cohort_is_matched_by_case_and_scored_into_csv_json_and_a_page(cohort, capsys):
    files = {kind: cohort / f"s.{kind}" for kind in ("json", "csv", "html")}
    options = [word for kind, path in files.items() for word in (f"--{kind}", path)]
    assert run(cohort / "predicted", cohort / "truth", "--organs", ",".join(BOXES), *options) == 0
    scores = json.loads(files["json"].read_text())
    assert set(scores["cases"]) == {"case_01", "case_02", "case_03"}
    assert scores["organs"]["Parotid_L"]["dsc"] == pytest.approx(dsc_of_shift("Parotid_L"))
    rows = list(csv.DictReader(files["csv"].read_text().splitlines()))
    assert len(rows) == 9
    page = files["html"].read_text()
    for words in ("Research use only", "Worst cases", "Bland–Altman", "between observers", "data:image/png", "case_0"):
        assert words in page
    assert_self_contained(page)
    out = capsys.readouterr().out
    assert "Parotid_L" in out
    assert "3 cases" in out


class References(HTMLParser):
    """What a page would have a browser fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        assert tag not in ("link", "iframe", "object", "embed", "base")


def assert_self_contained(page):
    references = References()
    references.feed(page)
    assert references.found
    assert [value for value in references.found if not value.startswith(("data:image/", "#"))] == []
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:)", page)
    for svg in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page):
        drawing = base64.b64decode(svg).decode()
        assert [link for link in re.findall(r"href=\"([^\"]+)", drawing) if not link.startswith("#")] == []


def test_the_page_of_one_case_names_both_sides_and_shows_a_missed_organ(tmp_path, capsys):
    write_case(tmp_path, 1)
    found = Segmentation.from_masks(masks(1, ("Brainstem", "Parotid_L")) | {"Lens-Lt": masks()["Parotid_R"]})
    write_segmentation(found, tmp_path / "organs.seg.nrrd")
    assert run(tmp_path / "organs.seg.nrrd", tmp_path / "case_01", "--html", tmp_path / "s.html") == 0
    page = (tmp_path / "s.html").read_text()
    assert_self_contained(page)
    for words in ("organs against case_01", "case_01, Parotid_R: missed", "Without a reference", "all organs"):
        assert words in page or words in svg_text(page), words
    extra = np.prod([part.stop - part.start for part in BOXES["Parotid_R"]]) * GRID.voxel_ml
    said = capsys.readouterr().out
    assert f"not scored: Lens-Lt {extra:.1f} mL" in said
    assert "nan" not in said


def svg_text(page):
    drawings = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)
    return "".join(base64.b64decode(drawing).decode() for drawing in drawings)


def test_systems_are_compared_and_ranked(cohort):
    for number in (1, 2, 3):
        write_case(cohort / "worse", number, shift=3)
    words = [cohort / "predicted", cohort / "truth", "--name", "ours", "--system", f"theirs={cohort / 'worse'}"]
    files = ["--json", cohort / "c.json", "--html", cohort / "c.html", "--organs", ",".join(BOXES)]
    assert run(*words, *files) == 0
    scores = json.loads((cohort / "c.json").read_text())
    assert [rank["system"] for rank in scores["ranking"]] == ["ours", "theirs"]
    overall = next(test for test in scores["tests"] if test["organ"] == "all" and test["metric"] == "dsc")
    assert overall["difference"] == pytest.approx(np.mean([2 / (b[2].stop - b[2].start) for b in BOXES.values()]))
    page = (cohort / "c.html").read_text()
    assert "Ranking" in page
    assert "DSC: ours − theirs" in page


def test_partial_masks_are_left_out_unless_asked_for(cohort):
    table = "case;Brain stem;Parotid_L;Parotid_R\ncase_01;0.5;1;1\ncase_02;1;1;1\ncase_03;1;1;0,5\n"
    (cohort / "truth" / "OAR_data.csv").write_text(table)
    words = [cohort / "predicted", cohort / "truth", "--organs", ",".join(BOXES), "--json", cohort / "s.json"]
    assert run(*words) == 0
    fewer = json.loads((cohort / "s.json").read_text())
    assert fewer["organs"]["Brainstem"]["organs_scored"] == 2
    assert any("marked partial" in warning for warning in fewer["warnings"])
    assert run(*words, "--include-partial") == 0
    assert json.loads((cohort / "s.json").read_text())["organs"]["Brainstem"]["organs_scored"] == 3


def test_a_mirrored_prediction_is_named_on_standard_error(cohort, capsys):
    labels = Segmentation.from_masks(masks()).to_labels()
    write_volume(labels.with_array(labels.array_kji[:, :, ::-1].copy()), cohort / "mirrored.nrrd")
    assert run(cohort / "mirrored.nrrd", cohort / "truth" / "case_01", "--organs", ",".join(BOXES)) == 0
    assert "mirrored left to right" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prediction", "reference", "words"),
    [
        ("predicted", "truth/case_01", "give two folders of cases"),
        ("absent.nrrd", "truth/case_01", "absent.nrrd"),
        ("predicted/case_01.seg.nrrd", "empty", "empty"),
    ],
)
def test_what_cannot_be_compared_gives_a_sentence(cohort, capsys, prediction, reference, words):
    (cohort / "empty").mkdir()
    assert run(cohort / prediction, cohort / reference, "--json", cohort / "s.json") == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in said
    assert said.endswith(".")
    assert not (cohort / "s.json").exists()


def test_a_case_without_a_prediction_is_named(cohort, capsys):
    (cohort / "predicted" / "case_02_seg.mha").unlink()
    words = ["--organs", "Brainstem", "--json", cohort / "s.json", "--html", cohort / "s.html"]
    assert run(cohort / "predicted", cohort / "truth", *words) == 0
    said = "case_02 has no prediction"
    assert said in capsys.readouterr().err
    assert said in json.loads((cohort / "s.json").read_text())["warnings"][0]
    assert said in (cohort / "s.html").read_text()


def test_cohorts_without_a_common_case_are_refused(cohort, capsys):
    write_case(cohort / "others", 8)
    write_case(cohort / "others", 9)
    assert run(cohort / "predicted", cohort / "others") == 1
    assert "No case of" in capsys.readouterr().err


def test_folders_are_told_apart_as_cohorts_and_as_masks_of_one_case(cohort):
    assert set(cases_in(cohort / "truth")) == {"case_01", "case_02", "case_03"}
    assert cases_in(cohort / "truth" / "case_01") is None
    assert cases_in(cohort / "predicted" / "case_01.seg.nrrd") is None
    organs = cohort / "by_organ"
    organs.mkdir()
    for name, mask in masks().items():
        write_volume(mask, organs / f"{name}.nrrd")
    assert cases_in(organs) is None
    assert len(load_structures(organs).segmentation.segments) == 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("case_07", "case_07"), ("case_7_seg.mha", "case_07"), ("pt_12_oar.nii.gz", "pt_12"),
        ("CASE-11_pred.seg.nrrd", "case_11"), ("anna_labels_pred.nrrd", "anna"),
    ],
)  # fmt: skip
def test_case_names_lose_their_role(tmp_path, name, expected):
    assert case_name(tmp_path / name) == expected


def test_the_ct_of_a_case_is_found_beside_its_masks(cohort):
    assert image_of("case_02", cohort / "truth").name == "case_02_IMG_CT.nrrd"
    assert image_of("case_02", cohort / "truth" / "case_02").name == "case_02_IMG_CT.nrrd"
    assert image_of("case_02", cohort / "predicted") is None
