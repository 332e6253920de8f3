"""The original series as its headers tell it: one plane per slice, and the identifiers that exports refer to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset

from hnseg.errors import DicomSeriesError, UnreadableFile
from hnseg.image.grid import Grid, Matrix

_SAME_DIRECTION = 1e-3
_SAME_PLACE_MM = 1e-2
_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")


@dataclass(frozen=True, slots=True)
class Slice:
    """One image of the series: its identity and its plane as a grid that is one voxel deep."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    grid: Grid


@dataclass(frozen=True)
class Series:
    """The slices in order along their normal, and the first one's header without pixels."""

    slices: tuple[Slice, ...]
    header: Dataset

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return str(self.header.SeriesInstanceUID)

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return str(self.header.StudyInstanceUID)

    @property
    def frame_of_reference_uid(self) -> str:
        """Frame of Reference UID."""
        return str(self.header.FrameOfReferenceUID)

    @property
    def normal(self) -> Matrix:
        """Unit normal of the slices, LPS; their order follows it."""
        return self.slices[0].grid.axes[:, 2]

    @cached_property
    def heights_mm(self) -> Matrix:
        """Each slice's position along the normal."""
        return np.array([part.grid.origin_lps for part in self.slices]) @ self.normal

    @property
    def step_mm(self) -> float:
        """Distance between neighbouring slices: the median one, or the slice thickness of a single slice."""
        if len(self.slices) > 1:
            return float(np.median(np.diff(self.heights_mm)))
        return float(self.header.get("SliceThickness") or 1.0)

    def at(self, height_mm: float) -> int | None:
        """The index of the slice at that height along the normal; None if there is none within 0.01 mm."""
        index = int(np.abs(self.heights_mm - height_mm).argmin())
        return index if abs(self.heights_mm[index] - height_mm) <= _SAME_PLACE_MM else None


def series_of(files: Iterable[str | Path]) -> Series:
    """The series from the files of its images, in any order.

    Raises ``DicomSeriesError`` if they are not parallel slices of one series with a frame of reference, and
    ``UnreadableFile`` if one is not a DICOM image.
    """
    headers = [(Path(path), _header(Path(path))) for path in files]
    if not headers:
        raise DicomSeriesError("The series has no image; give the folder with its DICOM files.")
    _refuse_mixture([header for _, header in headers])
    slices = [_slice(path, header) for path, header in headers]
    normal = slices[0].grid.axes[:, 2]
    order = sorted(range(len(slices)), key=lambda n: float(np.dot(slices[n].grid.origin_lps, normal)))
    return Series(tuple(slices[n] for n in order), headers[order[0]][1])


def _header(path: Path) -> Dataset:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        missing = [keyword for keyword in ("SOPInstanceUID", "SOPClassUID", *_GEOMETRY) if keyword not in header]
    except Exception as error:
        raise UnreadableFile(
            f"{path.name} is not readable as DICOM ({type(error).__name__}); fetch it again."
        ) from error
    if missing:
        raise DicomSeriesError(f"{path.name} has no {missing[0]}; give a series of CT or MR slices.")
    return header


def _refuse_mixture(headers: list[Dataset]) -> None:
    for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        values = {str(header.get(keyword, "")) for header in headers}
        if values == {""}:
            raise DicomSeriesError(f"The series has no {keyword}; structures cannot be tied to it.")
        if len(values) > 1:
            raise DicomSeriesError(f"The files have {len(values)} different {keyword}s; give those of one series.")
    first = np.asarray(headers[0].ImageOrientationPatient, dtype=np.float64)
    if any(np.abs(np.asarray(h.ImageOrientationPatient, float) - first).max() > _SAME_DIRECTION for h in headers):
        raise DicomSeriesError("The slices are not parallel, as in a localiser; give one series of parallel slices.")


def _slice(path: Path, header: Dataset) -> Slice:
    along_row, along_column = np.reshape(np.asarray(header.ImageOrientationPatient, dtype=np.float64), (2, 3))
    axes = np.column_stack([along_row, along_column, np.cross(along_row, along_column)])
    axes /= np.linalg.norm(axes, axis=0)
    row_mm, column_mm = (float(value) for value in header.PixelSpacing)
    x, y, z = (float(value) for value in header.ImagePositionPatient)
    depth = float(header.get("SliceThickness") or 1.0)
    grid = Grid((header.Columns, header.Rows, 1), (column_mm, row_mm, depth), (x, y, z), tuple(axes.ravel()))
    return Slice(path, str(header.SOPClassUID), str(header.SOPInstanceUID), grid)


@dataclass(frozen=True, slots=True)
class OpenedSeries:
    """A series and the grid that its volume is read onto."""

    series: Series
    grid: Grid


def open_series(folder: str | Path) -> OpenedSeries:
    """The folder's one series of slices. Raises ``DicomSeriesError`` if there is none, or more than one."""
    series = series_of(_image_files(Path(folder)))
    first = series.slices[0].grid
    spacing = (*first.spacing_mm[:2], series.step_mm)
    size = (*first.size_ijk[:2], len(series.slices))
    return OpenedSeries(series, Grid(size, spacing, first.origin_lps, first.direction))


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DicomSeriesError(f"{folder} is not a folder; give the folder with the series' DICOM files.")
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_slice(path)]


def _is_slice(path: Path) -> bool:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Modality", "Rows"])
    except Exception:  # noqa: BLE001  what is not DICOM is not part of the series
        return False
    return "Rows" in header and header.get("Modality") in ("CT", "MR", "PT")
