"""The original series: where its slices lie, and the identifiers that exports refer to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread

from hnseg.dicomrt.files import tolerant
from hnseg.dicomrt.provenance import COPIED_FROM_PATIENT_AND_STUDY
from hnseg.errors import DicomSeriesError, UnreadableFile
from hnseg.image.dicom import SeriesInfo, list_series
from hnseg.image.dicom_headers import SliceHeader
from hnseg.image.dicom_stack import Stack, stack
from hnseg.image.grid import Grid, Matrix

_FEWEST_SLICES = 2  # contours need planes and their distance; a volume that is worth predicting on needs more
_NEARLY_ON_A_SLICE = 0.11  # of the slice distance: what a series counted as even may be off

_HEADER_TAGS = ("SpecificCharacterSet", "SOPClassUID", "SeriesInstanceUID", *COPIED_FROM_PATIENT_AND_STUDY)


@dataclass(frozen=True)
class Series:
    """The slices in order along their normal, and what exports take over of the first one's header."""

    stack: Stack
    header: Dataset

    @property
    def slices(self) -> tuple[SliceHeader, ...]:
        """The images, in order along the normal."""
        return self.stack.slices

    @property
    def sop_class_uid(self) -> str:
        """CT or MR Image Storage."""
        return str(self.header.SOPClassUID)

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
        return self.stack.axes[:, 2]

    @cached_property
    def heights_mm(self) -> Matrix:
        """Each slice's position along the normal."""
        return np.array([part.position_lps for part in self.slices]) @ self.normal

    @cached_property
    def grid(self) -> Grid:
        """The grid that the series is read onto; its slices lie in the planes of the series', tilted or not."""
        return self.stack.grid

    def plane(self, index: int) -> Grid:
        """One slice's own pixels, one voxel deep."""
        part = self.slices[index]
        rows, columns = part.size_rows_columns
        row_mm, column_mm = part.spacing_rows_columns_mm
        x, y, z = part.position_lps
        axes = tuple(self.stack.axes.ravel())
        return Grid((columns, rows, 1), (column_mm, row_mm, self.stack.step_mm), (x, y, z), axes)

    def at(self, height_mm: float) -> int | None:
        """The index of the slice at that height along the normal; None if there is none but for jitter."""
        index = int(np.abs(self.heights_mm - height_mm).argmin())
        tolerance = _NEARLY_ON_A_SLICE * self.stack.step_mm
        return index if abs(self.heights_mm[index] - height_mm) <= tolerance else None


def open_series(path: str | Path, *, preferred: Collection[str] = ()) -> Series:
    """The CT or MR series below a folder, or the one that a DICOM file belongs to; only headers are read.

    Of several, the one whose UID is ``preferred`` is taken, else the only CT. Raises ``DicomSeriesError`` if that
    leaves none or several, or if the series does not say which patient study and frame of reference it belongs to.
    """
    path = Path(path)
    if not path.exists():
        raise UnreadableFile(f"There is no file or folder {path}; check the path.")
    series = _pick(path, preferred)
    stacked = stack(series)
    header = _header(stacked.slices[0].path)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "SOPClassUID"):
        if not header.get(keyword):
            raise DicomSeriesError(f"{series} has no {keyword}, so nothing can refer to it; export it again.")
    return Series(stacked, header)


def _pick(path: Path, preferred: Collection[str]) -> SeriesInfo:
    everything = list_series(path if path.is_dir() else path.parent)
    usable = [series for series in everything if len(series.slices) >= _FEWEST_SLICES]
    if not path.is_dir():
        usable = [series for series in usable if path in [part.path for part in series.slices]]
    for fitting in (
        [series for series in usable if series.uid in preferred],
        usable,
        [series for series in usable if series.modality == "CT"],
    ):
        if len(fitting) == 1:
            return fitting[0]
    listed = "; ".join(map(str, usable or everything))
    if usable:
        raise DicomSeriesError(
            f"{path} holds {len(usable)} series: {listed}. Give one file of the series that is meant."
        )
    raise DicomSeriesError(f"{path} holds no series that is a volume, only {listed}. Give the original series' folder.")


def _header(path: Path) -> Dataset:
    try:
        with tolerant():
            header = dcmread(path, stop_before_pixels=True, specific_tags=list(_HEADER_TAGS))
            header.decode()  # now, and not at first use: pydicom warns of odd values as it converts them
            return header
    except Exception as error:
        raise UnreadableFile(
            f"{path.name} is not readable as DICOM ({type(error).__name__}); fetch it again."
        ) from error
