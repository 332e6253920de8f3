"""A cohort on disk: HaN-Seg's layout, whole cases only, resumed but never overwritten."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from hnseg.cli.main import main
from hnseg.errors import Cancelled, ConfigError, OutputError
from hnseg.image.files import read_transform, read_volume
from hnseg.organs import ORGANS
from hnseg.phantom import PhantomOptions, draw_patient, render
from hnseg.phantom.cohort import ODD_CASE, patient_of_case, quality_row, write_cohort


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "out"
    write_cohort(folder, cases=1, seed=5, size="small", threads=1)
    return folder


def test_the_layout_is_that_of_hanseg(cohort: Path):
    names = {path.name for path in (cohort / "case_01").iterdir()}
    assert names == {
        "case_01_IMG_CT.nrrd",
        "case_01_IMG_MR_T1.nrrd",
        "case_01_TRUTH_CT_TO_MR.tfm",
        *(f"case_01_OAR_{organ.name}.seg.nrrd" for organ in ORGANS),
    }
    assert {path.name for path in cohort.iterdir()} == {"case_01", "OAR_data.csv", "patient_data.csv", "cohort.json"}


def test_masks_are_plain_uint8_on_the_cts_grid_and_carry_no_segment_keys(cohort: Path):
    ct = read_volume(cohort / "case_01" / "case_01_IMG_CT.nrrd")
    image = sitk.ReadImage(str(cohort / "case_01" / "case_01_OAR_Parotid_L.seg.nrrd"))
    assert image.GetPixelID() == sitk.sitkUInt8
    assert not [key for key in image.GetMetaDataKeys() if key.startswith("Segment")]
    mask = read_volume(cohort / "case_01" / "case_01_OAR_Parotid_L.seg.nrrd")
    assert mask.grid == ct.grid
    assert set(np.unique(mask.array_kji)) == {0, 1}


def test_files_hold_what_was_rendered(cohort: Path):
    case = render(patient_of_case(5, 1, PhantomOptions()), size="small")
    assert np.array_equal(read_volume(cohort / "case_01" / "case_01_IMG_CT.nrrd").array_kji, case.ct.array_kji)
    mr = read_volume(cohort / "case_01" / "case_01_IMG_MR_T1.nrrd")
    assert np.array_equal(mr.array_kji, case.mr.array_kji)
    assert mr.grid.is_close(case.mr.grid)
    truth = read_transform(cohort / "case_01" / "case_01_TRUTH_CT_TO_MR.tfm")
    for point in ((3.0, -80.0, -85.0), (40.0, 5.0, -20.0), (-5.0, 30.0, -180.0)):
        assert truth.TransformPoint(point) == pytest.approx(case.ct_to_mr.TransformPoint(point), abs=1e-6)


def test_tables_are_semicolon_separated_with_a_column_per_organ(cohort: Path):
    header, row = (cohort / "OAR_data.csv").read_text().splitlines()
    assert header.split(";") == ["case", *(organ.name for organ in ORGANS)]
    assert row.split(";") == ["case_01", *["1"] * 30]
    person = (cohort / "patient_data.csv").read_text().splitlines()[1].split(";")
    assert person[0] == "case_01"
    assert person[1] in ("M", "F")
    assert 25 <= int(person[2]) <= 89


def test_case_19_lacks_the_chiasm_and_its_row_says_so():
    patient = patient_of_case(0, ODD_CASE, PhantomOptions())
    assert patient.options.missing == ("OpticChiasm",)
    present = {organ.name for organ in ORGANS} - set(patient.options.missing)
    marks = dict(zip((organ.name for organ in ORGANS), quality_row(ODD_CASE, present).split(";")[1:], strict=True))
    assert [name for name, mark in marks.items() if mark == "0"] == ["OpticChiasm"]
    assert {name for name, mark in marks.items() if mark == "0.5"} == {
        "Brainstem", "OpticNrv_L", "OpticNrv_R", "Pituitary",
    }  # fmt: skip


def test_a_folder_with_anything_else_in_it_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        write_cohort(tmp_path, size="small")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_another_seed_is_refused_and_the_same_cohort_is_resumed(cohort: Path):
    with pytest.raises(OutputError, match="does not hold this cohort"):
        write_cohort(cohort, seed=6, size="small")
    before = (cohort / "case_01" / "case_01_IMG_CT.nrrd").stat().st_mtime_ns
    write_cohort(cohort, cases=1, seed=5, size="small")
    assert (cohort / "case_01" / "case_01_IMG_CT.nrrd").stat().st_mtime_ns == before


def test_a_cancelled_cohort_leaves_no_half_case(tmp_path: Path):
    def stop(fraction: float, text: str) -> None:
        if text.startswith("Writing"):
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        write_cohort(tmp_path / "out", size="small", threads=1, on_progress=stop)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cohort.json"]


def test_a_full_disk_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> None:
        raise OutputError(f"Cannot write {path}: No space left on device.")

    monkeypatch.setattr("hnseg.phantom.cohort.atomic_write", refuse)
    with pytest.raises(OutputError, match="No space left"):
        write_cohort(tmp_path / "out", size="small")
    assert list(tmp_path.iterdir()) == []


def test_no_cases_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="at least 1 case"):
        write_cohort(tmp_path / "out", cases=0)


def test_cases_of_one_cohort_are_different_patients():
    first, second = (patient_of_case(0, n, PhantomOptions()) for n in (1, 2))
    assert first.target_ml != second.target_ml
    assert draw_patient(np.random.default_rng([0, 1])) == first


def test_the_command_refuses_a_negative_seed_and_an_unknown_size(capsys: pytest.CaptureFixture[str]):
    assert main(["phantom", "out", "--seed", "-1"]) == 2
    assert main(["phantom", "out", "--size", "huge"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_command_resumes_a_finished_cohort(cohort: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["phantom", str(cohort), "--cases", "1", "--seed", "5", "--size", "small"]) == 0
    assert "1 phantom case in" in capsys.readouterr().out
