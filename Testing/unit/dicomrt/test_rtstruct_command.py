"""`hnseg rtstruct write | read`, as the command line contract has it."""

import json
import subprocess
import sys

import numpy as np
import pydicom
import pytest

from hnseg.cli.main import main
from hnseg.dicomrt.series import open_series
from hnseg.dicomrt.structure_set import write_structure_set
from hnseg.image.files import read_volume, write_volume
from hnseg.image.segmentation import Segmentation, read_segmentation, write_segmentation
from hnseg.image.volume import Volume
from hnseg.terminology import MODEL_TAG, TAUGHT_TAG


@pytest.fixture
def organs(axial_series, tmp_path):
    """A segmentation file on the series' grid."""
    grid = open_series(axial_series.folder).grid
    masks = {name: np.zeros(grid.shape_kji, bool) for name in ("Brainstem", "Cochlea_L")}
    masks["Brainstem"][6:20, 15:40, 20:41] = True
    masks["Cochlea_L"][25:27, 30:34, 55:60] = True
    write_segmentation(
        Segmentation.from_masks({name: Volume(mask, grid) for name, mask in masks.items()}), tmp_path / "in.seg.nrrd"
    )
    return tmp_path / "in.seg.nrrd"


def run(*words):
    return main(["rtstruct", *map(str, words)])


def test_what_was_written_is_read_back(axial_series, organs, tmp_path, capsys):
    assert run("write", "--series", axial_series.folder, "--labels", organs, "-o", tmp_path / "RT.dcm") == 0
    assert run("read", tmp_path / "RT.dcm", "--series", axial_series.folder, "-o", tmp_path / "out.seg.nrrd") == 0
    before, after = read_segmentation(organs), read_segmentation(tmp_path / "out.seg.nrrd")
    for segment in before.segments:
        np.testing.assert_array_equal(after.mask(segment.name).array_kji, before.mask(segment.name).array_kji)
    assert "2 structures" in capsys.readouterr().out


def test_labels_go_in_and_come_out_as_plain_label_maps_too(axial_series, organs, tmp_path):
    labels = read_segmentation(organs).to_labels()
    write_volume(labels, tmp_path / "labels.nii.gz")
    words = ["--series", axial_series.folder, "--labels", tmp_path / "labels.nii.gz", "-o", tmp_path / "RT.dcm"]
    assert run("write", *words) == 0
    assert run("read", tmp_path / "RT.dcm", "--series", axial_series.folder, "-o", tmp_path / "out.mha") == 0
    np.testing.assert_array_equal(read_volume(tmp_path / "out.mha").array_kji, labels.array_kji)


def test_options_reach_the_file(axial_series, organs, tmp_path):
    words = ["--series", axial_series.folder, "--labels", organs, "-o", tmp_path / "RT.dcm", "--edited", "cochlea l"]
    assert run("write", *words, "--label", "AUTO", "--model", "small", "--model-version", "2.0") == 0
    dataset = pydicom.dcmread(tmp_path / "RT.dcm")
    algorithms = {roi.ROIName: roi.ROIGenerationAlgorithm for roi in dataset.StructureSetROISequence}
    assert algorithms == {"Brainstem": "AUTOMATIC", "Cochlea_L": "SEMIAUTOMATIC"}
    assert dataset.StructureSetLabel == "AUTO"
    assert dataset.SoftwareVersions[1] == "model small 2.0"


def test_no_patient_data_reaches_the_terminal(axial_series, organs, tmp_path, capfd):
    words = ["--series", axial_series.folder, "--labels", organs, "-o", tmp_path / "RT.dcm"]
    assert run("write", *words) == 0
    assert run("read", tmp_path / "RT.dcm", "--series", axial_series.folder, "-o", tmp_path / "o.seg.nrrd") == 0
    assert run("read", axial_series.files[0], "--series", axial_series.folder, "-o", tmp_path / "p.seg.nrrd") == 1
    said = "".join(capfd.readouterr())
    for secret in ("Müller", "Änne", "P-4711", "19500102"):
        assert secret not in said
        assert not any(secret in path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
def test_odd_values_are_not_quoted_since_they_may_name_the_patient(series_maker, tmp_path, kind):
    made = series_maker(tmp_path / "ct", size=(24, 22, 4))
    for file in made.files:
        content = file.read_bytes().replace("Müller^Änne".encode("latin-1"), "MüllerXÄnne".encode("latin-1"))
        file.write_bytes(content.replace(b"P-4711", b"\x01-4711").replace(b".8.498.", b".8.098."))
    mask = np.ones((4, 22, 24), bool)
    organs = Segmentation.from_masks({"Lips": Volume(mask, open_series(made.folder).grid)})
    write_segmentation(organs, tmp_path / "in.seg.nrrd")
    words = ["--series", made.folder, "--labels", tmp_path / "in.seg.nrrd", "-o", tmp_path / "RT.dcm", "--model", "m"]
    command = [sys.executable, "-m", "hnseg.cli.main", kind, "write", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4711" not in done.stdout


def test_evaluate_takes_an_rtstruct_with_its_series_or_on_the_references_grid(axial_series, organs, tmp_path):

    assert run("write", "--series", axial_series.folder, "--labels", organs, "-o", tmp_path / "RT.dcm") == 0
    for options in (["--series", str(axial_series.folder)], []):
        words = ["evaluate", str(tmp_path / "RT.dcm"), str(organs), "--json", str(tmp_path / "s.json"), *options]
        assert main(words) == 0
        assert json.loads((tmp_path / "s.json").read_text())["mean"]["dsc"] == 1.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("write", "--series", "absent", "--labels", "in.seg.nrrd", "-o", "RT.dcm"), "no file or folder"),
        (("write", "--series", "ct", "--labels", "absent.seg.nrrd", "-o", "RT.dcm"), "no file"),
        (("write", "--series", "ct", "--labels", "in.seg.nrrd", "-o", "nowhere/RT.dcm"), "no folder"),
        (("write", "--series", "ct", "--labels", "in.seg.nrrd", "-o", "RT.dcm", "--edited", "Foo"), "Foo"),
        (("write", "--series", "ct", "--labels", "in.seg.nrrd", "-o", "RT.dcm", "--tolerance-mm", "99"), "tolerance"),
        (("read", "absent.dcm", "--series", "ct", "-o", "out.seg.nrrd"), "no file"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(axial_series, organs, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ct").symlink_to(axial_series.folder)
    assert run(*words) == 1
    error = capsys.readouterr().err.strip()
    assert said in error
    assert error.endswith(".")
    assert "\n" not in error
    assert not (tmp_path / "RT.dcm").exists()


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
def test_the_model_that_a_segmentation_names_is_in_the_object(axial_series, organs, tmp_path, capsys, kind):
    words = ["write", "--series", str(axial_series.folder), "--labels", str(organs), "-o", str(tmp_path / "x.dcm")]
    assert main([kind, *words]) == 0
    assert "does not say which model" in capsys.readouterr().err
    tagged = read_segmentation(organs)
    name = tagged.segments[0].name
    tagged = tagged.tagged({MODEL_TAG: "hnseg-base 1.2.3"}, {name: {TAUGHT_TAG: "phantoms only"}})
    write_segmentation(tagged, organs)
    assert main([kind, *words]) == 0
    assert capsys.readouterr().err == ""
    dataset = pydicom.dcmread(tmp_path / "x.dcm")
    assert dataset.SoftwareVersions[1] == "model hnseg-base 1.2.3"
    assert dataset.ContributingEquipmentSequence[0].SoftwareVersions == "1.2.3"
    items, key = (
        (dataset.StructureSetROISequence, "ROIDescription") if kind == "rtstruct" else
        (dataset.SegmentSequence, "SegmentDescription")
    )  # fmt: skip
    said = [str(item.get(key, "")).endswith("the model learnt it from phantoms only") for item in items]
    assert said == [True] + [False] * (len(items) - 1)


def test_a_cohort_of_structure_sets_is_read_on_each_cases_own_series(series_maker, tmp_path):
    for number, kind in ((1, "oblique"), (2, "feet-first")):
        case = f"case_{number:02d}"
        made = series_maker(tmp_path / "truth" / case / "CT", kind, size=(40, 36, 14))
        series = open_series(made.folder)
        for place, shift in (("truth", 0), ("ours", 1)):
            mask = np.zeros(series.grid.shape_kji, bool)
            mask[3:11, 8:28, 10 + shift : 30 + shift] = True
            organs = Segmentation.from_masks({"Brainstem": Volume(mask, series.grid)})
            (tmp_path / place / case / "RT").mkdir(parents=True)
            write_structure_set(tmp_path / place / case / "RT" / "RS.dcm", series, organs)
    for options in ([], ["--series", str(tmp_path / "truth")]):
        words = [str(tmp_path / "ours"), str(tmp_path / "truth"), "--json", str(tmp_path / "s.json"), *options]
        assert main(["evaluate", *words]) == 0
        scores = json.loads((tmp_path / "s.json").read_text())
        assert {case: row["organs"]["Brainstem"]["dsc"] for case, row in scores["cases"].items()} == pytest.approx(
            {"case_01": 0.95, "case_02": 0.95}
        )
        assert scores["warnings"] == []
    one = [str(tmp_path / "ours" / "case_02"), str(tmp_path / "truth" / "case_02"), "--json", str(tmp_path / "s.json")]
    assert main(["evaluate", *one]) == 0
    assert json.loads((tmp_path / "s.json").read_text())["organs"]["Brainstem"]["hd95_mm"] == pytest.approx(0.9)
