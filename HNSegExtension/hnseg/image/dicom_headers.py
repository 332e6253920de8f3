"""What lies in a DICOM folder: headers, and series with what keeps them from being a volume, if anything does."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

from hnseg.errors import DicomSeriesError, UnreadableFile
from hnseg.image.checks import FEWEST_SLICES
from hnseg.image.files import is_dicom

_CT, _MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
_ENHANCED = (
    f"{_CT}.1", f"{_CT}.2", f"{_MR}.1", f"{_MR}.3", f"{_MR}.4",
    "1.2.840.10008.5.1.4.1.1.7.1", "1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.7.3",
)  # fmt: skip
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "SeriesDescription",
    "SeriesNumber", "ImageType", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns",
    "SamplesPerPixel", "NumberOfFrames", "RescaleType",
]  # fmt: skip
# What pydicom raises on files that are damaged, besides OSError.
_RUBBISH = (InvalidDicomError, BytesLengthException, EOFError, NotImplementedError, ValueError, TypeError, KeyError)


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """What places one image in the patient. ``unfit`` says what keeps it from being a slice; empty if nothing does."""

    path: Path
    sop_instance_uid: str
    series_uid: str
    frame_of_reference: str
    modality: str
    description: str
    series_number: str
    image_type: tuple[str, ...]
    rescale_type: str
    position_lps: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_rows_columns_mm: tuple[float, ...]
    size_rows_columns: tuple[int, int]
    unfit: str


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """One series of a folder; ``slices`` are its usable images. ``unfit`` says why it is no volume; empty if it is."""

    uid: str
    modality: str
    description: str
    number: str
    images: int
    slices: tuple[SliceHeader, ...]
    unfit: str

    def __str__(self) -> str:
        name = f"{self.description!r}" if self.description else "no description"
        number = f"series {self.number}, " if self.number else ""
        plural = "image" if self.images == 1 else "images"
        modality, unfit = self.modality or "no modality", f": {self.unfit}" if self.unfit else ""
        return f"{name} ({number}{modality}, {self.images} {plural}{unfit})"


def list_series(folder: str | Path) -> tuple[SeriesInfo, ...]:
    """The image series below a folder, by series number; other files are passed over.

    Raises ``DicomSeriesError`` when there is no DICOM image at all.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UnreadableFile(f"There is no folder {folder}; check the path.")
    by_uid: dict[str, list[SliceHeader]] = {}
    for path in _dicom_files(folder):
        header = read_header(path)
        if header is not None:
            by_uid.setdefault(header.series_uid, []).append(header)
    if not by_uid:
        raise DicomSeriesError(f"{folder} holds no DICOM images; give the folder with the CT's or MR's files.")
    return tuple(sorted((_series(headers) for headers in by_uid.values()), key=_by_number))


def read_header(path: Path) -> SliceHeader | None:
    """The header of one image; None for a DICOM file that holds no image (a directory, a structure set, a plan)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are judged below
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
            return _header(dataset, path)
    except _RUBBISH:
        raise UnreadableFile(f"{path.name} is not a whole DICOM file; export the series again.") from None
    except OSError as error:
        raise UnreadableFile(f"Cannot open {path}: {error.strerror}; check its permissions.") from None


def _dicom_files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if is_dicom(path):
                yield path


def _header(dataset: pydicom.Dataset, path: Path) -> SliceHeader | None:
    if not _text(dataset, "SeriesInstanceUID") or _integer(dataset, "Rows") == 0:
        return None
    header = SliceHeader(
        path=path,
        sop_instance_uid=_text(dataset, "SOPInstanceUID"),
        series_uid=_text(dataset, "SeriesInstanceUID"),
        frame_of_reference=_text(dataset, "FrameOfReferenceUID"),
        modality=_text(dataset, "Modality"),
        description=_text(dataset, "SeriesDescription"),
        series_number=_text(dataset, "SeriesNumber"),
        image_type=_texts(dataset, "ImageType"),
        rescale_type=_text(dataset, "RescaleType"),
        position_lps=_floats(dataset, "ImagePositionPatient", 3),
        orientation=_floats(dataset, "ImageOrientationPatient", 6),
        spacing_rows_columns_mm=_floats(dataset, "PixelSpacing", 2),
        size_rows_columns=(_integer(dataset, "Rows"), _integer(dataset, "Columns")),
        unfit="",
    )
    return replace(header, unfit=_why_no_slice(header, dataset))


def _why_no_slice(header: SliceHeader, dataset: pydicom.Dataset) -> str:
    sop_class = _text(dataset, "SOPClassUID")
    if _integer(dataset, "SamplesPerPixel") > 1:
        return "a colour screen, not a slice"
    if sop_class in _ENHANCED or _integer(dataset, "NumberOfFrames") > 1:
        return "an enhanced multi-frame object; convert it to single frames or NRRD"
    if sop_class == _SECONDARY_CAPTURE:
        return "a secondary capture, such as a dose screen"
    if "LOCALIZER" in header.image_type:
        return "a localiser"
    if "MOSAIC" in header.image_type:
        return "a mosaic of slices; convert it to single slices or NRRD"
    if sop_class not in (_CT, _MR):
        return "neither CT nor MR slices"
    if not (header.position_lps and header.orientation and header.spacing_rows_columns_mm):
        return "without a position in the patient"
    return ""


def _series(headers: list[SliceHeader]) -> SeriesInfo:
    # The same image twice, as in a folder and its backup, is one image.
    unique = list({header.sop_instance_uid or str(header.path): header for header in headers}.values())
    slices = tuple(header for header in unique if not header.unfit)
    first = slices[0] if slices else unique[0]
    return SeriesInfo(
        uid=first.series_uid,
        modality=first.modality,
        description=first.description,
        number=first.series_number,
        images=len(unique),
        slices=slices,
        unfit=_why_no_volume(unique, slices),
    )


def _why_no_volume(headers: Iterable[SliceHeader], slices: tuple[SliceHeader, ...]) -> str:
    if not slices:
        return Counter(header.unfit for header in headers).most_common(1)[0][0]
    return "too few slices" if len(slices) < FEWEST_SLICES else ""


def _by_number(series: SeriesInfo) -> tuple[int, str]:
    return (int(series.number) if series.number.lstrip("-").isdigit() else 0, series.uid)


def _text(dataset: pydicom.Dataset, name: str) -> str:
    return str(dataset.get(name) or "").strip()


def _texts(dataset: pydicom.Dataset, name: str) -> tuple[str, ...]:
    value = dataset.get(name) or ()
    return (value,) if isinstance(value, str) else tuple(str(item) for item in value)


def _integer(dataset: pydicom.Dataset, name: str) -> int:
    try:
        return int(dataset.get(name) or 0)
    except (TypeError, ValueError):
        return 0


def _floats(dataset: pydicom.Dataset, name: str, count: int) -> tuple[float, ...]:
    """The numbers; none where they are absent, too few or no numbers."""
    try:
        values = tuple(float(value) for value in dataset.get(name) or ())
    except (TypeError, ValueError):
        return ()
    return values if len(values) == count else ()
