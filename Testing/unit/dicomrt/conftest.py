"""Synthetic CT series, written with pydicom: axial, oblique, tilted gantry, feet first."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RTDoseStorage, generate_uid

PATIENT_NAME = "Müller^Änne"


@dataclass(frozen=True)
class Made:
    folder: Path
    axes: np.ndarray  # columns: along a row, along a column, normal
    step_lps: np.ndarray  # from one slice to the next
    origin_lps: np.ndarray
    pixel_mm: tuple[float, float]  # along a row (i), along a column (j)
    size_ijk: tuple[int, int, int]

    @property
    def files(self):
        return sorted(self.folder.glob("*.dcm"))

    def to_lps(self, ijk):
        ijk = np.asarray(ijk, float)
        steps = np.column_stack([self.axes[:, 0] * self.pixel_mm[0], self.axes[:, 1] * self.pixel_mm[1], self.step_lps])
        return ijk @ steps.T + self.origin_lps


def rotation(degrees_x=0.0, degrees_z=0.0):
    a, b = np.radians([degrees_x, degrees_z])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return about_z @ about_x


def geometry(kind):
    """Axes of the slices and the direction in which the table moves."""
    if kind == "axial":
        return np.eye(3), np.array([0.0, 0.0, 1.0])
    if kind == "oblique":
        axes = rotation(12.0, 7.0)
        return axes, axes[:, 2]
    if kind == "tilted":  # the gantry leans, the table still moves along z
        return rotation(-15.0), np.array([0.0, 0.0, 1.0])
    if kind == "feet-first":  # feet first, supine: rows run to the patient's right, slices from head to feet
        return np.diag([-1.0, 1.0, -1.0]), np.array([0.0, 0.0, -1.0])
    raise ValueError(kind)


KINDS = ("axial", "oblique", "tilted", "feet-first")


def make_series(folder, kind="axial", *, size=(72, 64, 32), pixel=(0.9, 1.1), step=2.5, pixels=None):
    folder.mkdir(parents=True, exist_ok=True)
    axes, along = geometry(kind)
    made = Made(folder, axes, along * step, np.array([-40.0, -60.0, 300.0]), pixel, size)
    study, series, frame = (generate_uid() for _ in range(3))
    rng = np.random.default_rng(0)
    for k in range(size[2]):
        dataset = FileDataset(None, {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.PatientName, dataset.PatientID, dataset.PatientSex = PATIENT_NAME, "P-4711", "F"
        dataset.PatientBirthDate, dataset.StudyDate, dataset.StudyTime = "19500102", "20260301", "101500"
        dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = "S1", "A77", ""
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.PositionReferenceIndicator = ""
        dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "CT", 3, k + 1
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.PatientPosition = "FFS" if kind == "feet-first" else "HFS"
        dataset.Manufacturer, dataset.KVP, dataset.AcquisitionNumber = "Synthetic", 120, 1
        dataset.SliceThickness = step
        dataset.ImagePositionPatient = [f"{v:.6f}" for v in made.to_lps((0, 0, k))]
        dataset.ImageOrientationPatient = [f"{v:.9f}" for v in (*axes[:, 0], *axes[:, 1])]
        dataset.PixelSpacing = [pixel[1], pixel[0]]
        dataset.Rows, dataset.Columns = size[1], size[0]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "HU"
        values = pixels[k] if pixels is not None else rng.integers(-50, 60, (size[1], size[0]))
        dataset.PixelData = np.ascontiguousarray(values, dtype="<i2").tobytes()
        dataset.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)
    return made


@pytest.fixture(scope="session", params=KINDS)
def any_series(request, tmp_path_factory):
    """Each of the four geometries in turn."""
    return make_series(tmp_path_factory.mktemp(request.param) / "ct", request.param)


@pytest.fixture(scope="session")
def axial_series(tmp_path_factory):
    return make_series(tmp_path_factory.mktemp("plain") / "ct", "axial")


@pytest.fixture(scope="session")
def series_maker():
    return make_series


@pytest.fixture
def read_dicom():
    return pydicom.dcmread


def save_dose(path, dose, *, absolute=False, reverse=False, **changes):
    dataset = FileDataset(None, {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = RTDoseStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Modality, dataset.DoseUnits, dataset.DoseType, dataset.DoseSummationType = (
        "RTDOSE",
        "GY",
        "PHYSICAL",
        "PLAN",
    )
    grid, array = dose.grid, dose.array_kji
    heights = np.arange(grid.size_ijk[2]) * grid.spacing_mm[2]
    origin = np.array(grid.origin_lps)
    if reverse:
        origin, heights, array = grid.to_lps((0, 0, grid.size_ijk[2] - 1)), -heights, array[::-1]
    dataset.ImagePositionPatient = origin.tolist()
    dataset.ImageOrientationPatient = [*grid.axes[:, 0], *grid.axes[:, 1]]
    dataset.PixelSpacing = [grid.spacing_mm[1], grid.spacing_mm[0]]
    dataset.GridFrameOffsetVector = (heights + (origin[2] if absolute else 0.0)).tolist()
    dataset.Columns, dataset.Rows, dataset.NumberOfFrames = grid.size_ijk
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 32
    dataset.HighBit, dataset.PixelRepresentation = 31, 0
    dataset.DoseGridScaling = "1e-6"
    dataset.PixelData = np.rint(array / 1e-6).astype("<u4").tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="session")
def write_dose():
    """Saves a dose volume as an RTDOSE; keywords change or remove attributes."""
    return save_dose
