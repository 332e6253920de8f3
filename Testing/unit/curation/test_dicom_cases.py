"""Patients in DICOM folders: CT, MR and structure set find each other, and the case comes out on the CT's grid."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from hnseg.curation.bias import N4Settings
from hnseg.curation.layouts import find_cases
from hnseg.curation.settings import CurationSettings
from hnseg.curation.sources import source_records
from hnseg.dicomrt.series import open_series
from hnseg.dicomrt.structure_set import write_structure_set
from hnseg.image.dicom import read_series
from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segmentation, read_segmentation
from hnseg.image.volume import Volume
from hnseg.jobs.curate import CurateRequest, run_curate
from HNSegLib.setting_up import requirements

EXTENSION = Path(__file__).parents[3] / "HNSegExtension"
GRID = Grid((28, 24, 20), (6.0, 7.0, 8.0), (-80.0, -80.0, 300.0))


def head(air, tissue, bone):
    k, j, i = np.indices(GRID.shape_kji)
    x, y, z = np.moveaxis(GRID.to_lps(np.stack([i, j, k], axis=-1)) - (2.0, 0.0, 375.0), -1, 0)
    radius = np.sqrt((x / 60) ** 2 + (y / 70) ** 2 + (z / 70) ** 2)
    values = np.where(radius < 1, tissue, air) + np.random.default_rng(1).normal(0, 8, radius.shape)
    values[(radius > 0.8) & (radius < 0.95) & (z > -10)] = bone
    return np.round(values).astype("<i2")


def write_series(folder, modality, pixels, *, description="", patient="P-4711"):
    folder.mkdir(parents=True)
    study, series, frame = (generate_uid() for _ in range(3))
    sop_class = {"CT": CTImageStorage, "MR": MRImageStorage}[modality]
    for k in range(GRID.size_ijk[2]):
        one = FileDataset(None, {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = sop_class
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
        one.PatientName, one.PatientID, one.PatientSex, one.PatientBirthDate = "Doe^Jane", patient, "F", ""
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.StudyDate, one.StudyTime, one.StudyID, one.AccessionNumber = "20260101", "101500", "1", ""
        one.ReferringPhysicianName, one.PositionReferenceIndicator, one.Manufacturer = "", "", "Synthetic"
        one.Modality, one.SeriesDescription, one.SeriesNumber, one.InstanceNumber = modality, description, 1, k + 1
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.ImagePositionPatient = GRID.to_lps((0, 0, k)).tolist()
        one.ImageOrientationPatient, one.PixelSpacing = [1, 0, 0, 0, 1, 0], [GRID.spacing_mm[1], GRID.spacing_mm[0]]
        one.Rows, one.Columns, one.SamplesPerPixel = GRID.size_ijk[1], GRID.size_ijk[0], 1
        one.PhotometricInterpretation, one.PixelRepresentation, one.HighBit = "MONOCHROME2", 1, 15
        one.BitsAllocated = one.BitsStored = 16
        if modality == "CT":
            one.RescaleIntercept, one.RescaleSlope, one.RescaleType = 0, 1, "HU"
        one.PixelData = pixels[k].tobytes()
        one.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Jane twice: with CT, two MRs of which one is T1, and contours; and a second CT without anything else."""
    root = tmp_path_factory.mktemp("dicom")
    write_series(root / "jane" / "ct", "CT", head(-1000, 40, 900))
    write_series(root / "jane" / "t1", "MR", head(15, 420, 60), description="T1 TSE tra")
    write_series(root / "jane" / "t2", "MR", head(15, 300, 60), description="T2 TSE tra")
    write_series(root / "jane again" / "ct", "CT", head(-1000, 40, 900))
    (root / "readme.txt").write_text("not DICOM")
    masks = {}
    for n, name in enumerate(("Brainstem", "Parotid_L")):
        array = np.zeros(GRID.shape_kji, np.uint8)
        array[8:12, 9:13, 11 + 6 * n : 15 + 6 * n] = 1
        masks[name] = Volume(array, GRID)
    write_structure_set(root / "jane" / "rt.dcm", open_series(root / "jane" / "ct"), Segmentation.from_masks(masks))
    return root


def test_ct_the_only_t1_and_contours_are_one_case_and_visits_of_one_person_one_subject(patients):
    found = find_cases(patients)
    jane, again = found.cases
    assert found.layout == "DICOM"
    assert (jane.name, again.name) == ("jane", "jane again")
    assert (jane.ct.parent.name, jane.mr.parent.name, jane.structures.path.name) == ("ct", "t1", "rt.dcm")
    assert (again.mr, again.structures) == (None, None)
    assert jane.subject == again.subject != ""
    assert "4711" not in jane.subject


def test_a_structure_set_that_is_cut_short_fails_its_patient_alone(patients, tmp_path):
    source = shutil.copytree(patients, tmp_path / "in")
    whole = (source / "jane" / "rt.dcm").read_bytes()
    (source / "jane" / "rt.dcm").write_bytes(whole[: int(0.7 * len(whole))])
    settings = CurationSettings(registration="none", n4=None)
    outcome = run_curate(CurateRequest(str(source), str(tmp_path / "out"), settings))
    assert list(outcome.failed) == ["jane"]
    assert "rt.dcm" in outcome.failed["jane"]
    assert [*outcome.good, *outcome.doubtful] == ["jane again"]


def test_a_folder_of_one_patient_is_one_case(patients):
    (case,) = find_cases(patients / "jane").cases
    assert (case.name, case.mr.parent.name) == ("jane", "t1")


def test_sources_name_each_series_once(patients):
    jane = find_cases(patients).cases[0]
    assert [(record.role, record.path) for record in source_records(jane, patients)] == [
        ("ct", "jane/ct"), ("mr", "jane/t1"), ("structures", "jane/rt.dcm"),
    ]  # fmt: skip


def test_contours_become_masks_on_the_cts_grid_and_nothing_names_the_patient(patients, tmp_path):
    out = tmp_path / "out"
    settings = CurationSettings(registration="none", n4=None)
    outcome = run_curate(CurateRequest(str(patients), str(out), settings))
    assert not outcome.failed
    masks = read_segmentation(out / "cases" / "jane" / "segmentation.seg.nrrd")
    assert masks.grid.is_close(read_series(patients / "jane" / "ct", modality="CT").grid)
    drawn = np.argwhere(masks.mask("Parotid_L").array_kji)
    assert drawn.min(axis=0).tolist() == [8, 9, 17]
    assert drawn.max(axis=0).tolist() == [11, 12, 20]
    texts = [path.read_text() for path in out.rglob("*") if path.suffix in (".json", ".html", ".csv", ".tfm")]
    assert not any("Doe" in text or "4711" in text for text in texts)
    assert {*outcome.good, *outcome.doubtful} == {"jane", "jane again"}


def not_promised():
    """Modules installed here that curation's requirements in Slicer, and what those require in turn, do not bring."""
    wanted = [one.name for one in requirements(EXTENSION / "HNSegLib" / "curation_requirements.txt")]
    promised = {"hnseg"}
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name not in promised:
            promised.add(name)
            needs = map(Requirement, requires(name) or ())
            wanted += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    brought_by = packages_distributions()
    return [name for name in brought_by if promised.isdisjoint(map(canonicalize_name, brought_by[name]))]


ALONE = """
import json, sys
from importlib.abc import MetaPathFinder
absent, request = json.load(sys.stdin)
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in absent: raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import hnseg.jobs.curate_worker
from hnseg.jobs.curate import CurateRequest, run_curate
outcome = run_curate(CurateRequest.from_json(request))
assert not outcome.failed, outcome.failed
"""


def test_curation_of_contours_needs_no_more_than_its_requirements_in_slicer(patients, tmp_path):
    """From DICOM with RTSTRUCT to the report, in a process that finds nothing else."""
    absent = not_promised()
    assert {"torch", "monai", "highdicom", "skimage"} <= set(absent)
    settings = CurationSettings(registration="none", n4=N4Settings(levels=1, iterations=3))
    request = CurateRequest(str(patients), str(tmp_path / "out"), settings)
    environment = {"PYTHONPATH": str(EXTENSION), "PATH": "", "HOME": "/tmp"}
    words = [sys.executable, "-c", ALONE]
    given = json.dumps([absent, request.to_json()])
    done = subprocess.run(words, input=given, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    masks = read_segmentation(tmp_path / "out" / "cases" / "jane" / "segmentation.seg.nrrd")
    assert masks.mask("Parotid_L").array_kji.sum() == 4 * 4 * 4
    assert (tmp_path / "out" / "report.html").is_file()
