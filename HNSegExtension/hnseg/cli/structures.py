"""One case's structures from whatever a user has: label map, segmentation, mask folder, RTSTRUCT, SEG."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hnseg.errors import DicomSeriesError, InputError, UnreadableFile
from hnseg.image.files import is_dicom
from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segmentation, read_segmentation

IMAGE_ENDINGS = (".seg.nrrd", ".nrrd", ".nii.gz", ".nii", ".mha")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A segmentation and what reading it had to say."""

    segmentation: Segmentation
    warnings: tuple[str, ...] = ()


def load_structures(path: Path, *, series: Path | None = None, grid: Grid | None = None) -> Loaded:
    """One case's structures. An RTSTRUCT is turned into voxels on the series it was drawn on, else on ``grid``.

    The series is the one given, or, where ``path`` is a folder, the one in it.
    """
    if not path.is_dir():
        return _load_dicom(path, series, grid) if is_dicom(path) else Loaded(read_segmentation(path))
    found = list(dicom_structures(path))
    if not found:
        return Loaded(read_segmentation(path))
    if len(found) > 1:
        raise InputError(f"{path} holds {len(found)} DICOM structure files; give one of them.")
    return _load_dicom(found[0], series or _series_in(path), grid)


def load_pair(prediction: Path, reference: Path, *, series: Path | None = None) -> tuple[Loaded, Loaded]:
    """Prediction and reference; an RTSTRUCT without its series is filled on the other one's grid."""
    if _needs_grid(reference, series=series):
        predicted = load_structures(prediction, series=series)
        return predicted, load_structures(reference, series=series, grid=predicted.segmentation.grid)
    expected = load_structures(reference, series=series)
    return load_structures(prediction, series=series, grid=expected.segmentation.grid), expected


def dicom_structures(path: Path) -> Iterator[Path]:
    """The RTSTRUCTs and SEGs below a folder; the file itself if it is one."""
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if part.is_file() and is_dicom(part) and _modality(part) in ("RTSTRUCT", "SEG"):
            yield part


def _needs_grid(path: Path, *, series: Path | None) -> bool:
    """Whether only another image's grid can turn these structures into voxels."""
    found = list(dicom_structures(path))
    if series is not None or len(found) != 1 or _modality(found[0]) != "RTSTRUCT":
        return False
    return not path.is_dir() or _series_in(path) is None


def _series_in(folder: Path) -> Path | None:
    from hnseg.image.dicom import list_series

    try:
        return folder if any(not series.unfit for series in list_series(folder)) else None
    except DicomSeriesError:
        return None


def _modality(path: Path) -> str:
    import pydicom

    try:
        return str(pydicom.dcmread(path, specific_tags=["Modality"], stop_before_pixels=True).get("Modality", ""))
    except Exception:  # noqa: BLE001  an unreadable file has no modality; reading it will say why
        return ""


def _load_dicom(path: Path, series: Path | None, grid: Grid | None) -> Loaded:
    if _modality(path) == "SEG":
        from hnseg.dicomrt.segmentation_object import read_segmentation_object

        return Loaded(read_segmentation_object(path))
    from hnseg.dicomrt.read import read_on_series, read_structure_set

    if series is not None:
        read = read_on_series(path, series)
    elif grid is not None:
        read = read_structure_set(path, grid)
    else:
        raise UnreadableFile(f"{path.name} is an RTSTRUCT, which has no grid of its own; add --series with its images.")
    return Loaded(read.segmentation, read.warnings)
