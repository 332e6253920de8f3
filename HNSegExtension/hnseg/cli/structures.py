"""Structures from whatever a user has: label map, segmentation, mask folder, RTSTRUCT, SEG; one case or a cohort."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hnseg.errors import InputError, UnknownOrgan, UnreadableFile
from hnseg.image.files import is_dicom
from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segmentation, organ_in_file_name, read_segmentation
from hnseg.organs import find_organ

_IMAGE_ENDINGS = (".seg.nrrd", ".nrrd", ".nii.gz", ".nii", ".mha")
_IMAGE_WORDS = re.compile(r"(^|[_\-.])(img|ct|mr|mri|t1|pet|image|dose)([_\-.]|$)", re.IGNORECASE)
_CT_NAME = re.compile(r"(^|[_\-.])ct([_\-.]|$)", re.IGNORECASE)
_CASE = re.compile(r"case[_-]?(\d+)", re.IGNORECASE)
_ROLE = re.compile(
    r"([_\-.](seg|segmentation|segmentations|labels?|mask|masks|oars?|pred|prediction|predictions|truth|organs))+$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A segmentation and what reading it had to say."""

    segmentation: Segmentation
    warnings: tuple[str, ...] = ()


def load_structures(path: Path, *, series: Path | None = None, grid: Grid | None = None) -> Loaded:
    """One case's structures. An RTSTRUCT needs the series it was drawn on, or any grid, to be turned into voxels."""
    if path.is_dir():
        found = list(_dicom_structures(path))
        if not found:
            return Loaded(read_segmentation(path))
        if len(found) > 1:
            raise InputError(f"{path} holds {len(found)} DICOM structure files; give one of them.")
        path = found[0]
    if not is_dicom(path):
        return Loaded(read_segmentation(path))
    return _load_dicom(path, series, grid)


def needs_grid(path: Path, *, series: Path | None) -> bool:
    """Whether only another image's grid can turn these structures into voxels."""
    found = list(_dicom_structures(path)) if path.is_dir() else [path]
    return series is None and len(found) == 1 and is_dicom(found[0]) and _modality(found[0]) == "RTSTRUCT"


def cases_in(path: Path) -> dict[str, Path] | None:
    """Case name → structures, if the folder is a cohort; None if it is one case (a file, or masks side by side)."""
    if not path.is_dir():
        return None
    root = path / "set_1" if (path / "set_1").is_dir() else path
    entries = [entry for entry in sorted(root.iterdir()) if not entry.name.startswith(".") and _holds_structures(entry)]
    cases = {case_name(entry): entry for entry in entries}
    if len(cases) < len(entries) or any(organ_in_file_name(entry) for entry in entries if entry.is_file()):
        return None  # masks side by side: several files of one case, or files named after organs
    return _sole_files(cases) if len(cases) > 1 or any(entry.is_dir() for entry in cases.values()) else None


def case_name(path: Path) -> str:
    """``case_07`` of ``case_07_seg.mha`` and of the folder ``case_07``; ``pt_12`` of ``pt_12_oar.nii.gz``."""
    numbered = _CASE.search(path.name)
    return f"case_{int(numbered[1]):02d}" if numbered else _ROLE.sub("", stem(path))


def stem(path: Path) -> str:
    """The file name without its ending, ``.seg.nrrd`` and ``.nii.gz`` included."""
    for ending in (*_IMAGE_ENDINGS, ".dcm"):
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.name


def _holds_structures(entry: Path) -> bool:
    if entry.is_dir():
        return any(_holds_structures(part) for part in entry.iterdir() if part.is_file())
    if is_dicom(entry):
        return _modality(entry) in ("RTSTRUCT", "SEG")
    return entry.name.lower().endswith(_IMAGE_ENDINGS) and not _IMAGE_WORDS.search(stem(entry))


def _sole_files(cases: dict[str, Path]) -> dict[str, Path]:
    """A case folder with one structure file and no masks stands for that file."""
    return {name: _sole_file(entry) for name, entry in cases.items()}


def _sole_file(entry: Path) -> Path:
    if not entry.is_dir():
        return entry
    files = [part for part in sorted(entry.iterdir()) if part.is_file() and _holds_structures(part)]
    return files[0] if len(files) == 1 else entry


def _dicom_structures(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_file() and is_dicom(path) and _modality(path) in ("RTSTRUCT", "SEG"):
            yield path


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


def load_pair(prediction: Path, reference: Path, *, series: Path | None = None) -> tuple[Loaded, Loaded]:
    """Prediction and reference; an RTSTRUCT without its series is filled on the other one's grid."""
    if needs_grid(reference, series=series):
        predicted = load_structures(prediction, series=series)
        return predicted, load_structures(reference, series=series, grid=predicted.segmentation.grid)
    expected = load_structures(reference, series=series)
    return load_structures(prediction, series=series, grid=expected.segmentation.grid), expected


def image_of(case: str, place: Path) -> Path | None:
    """The CT of a case: a file or folder of that case below ``place``, or beside the structures in its folder."""
    folder = place if place.is_dir() else place.parent
    for entry in (folder, *sorted(folder.iterdir())):
        if entry.is_file() and case_name(entry).startswith(case) and _CT_NAME.search(stem(entry)):
            return entry
        if entry.is_dir() and case_name(entry) == case:
            images = [part for part in sorted(entry.iterdir()) if part.is_file() and _CT_NAME.search(stem(part))]
            if images:
                return images[0]
    return None


def partial_organs(reference: Path) -> dict[str, tuple[str, ...]]:
    """Case → organs that HaN-Seg's ``OAR_data.csv``, beside or above the cases, marks 0.5 (partial or corrupted)."""
    for folder in (reference, reference / "set_1", reference.parent):
        table = folder / "OAR_data.csv"
        if table.is_file():
            return _partial_in(table)
    return {}


def _partial_in(table: Path) -> dict[str, tuple[str, ...]]:
    header, *rows = csv.reader(table.read_text(encoding="utf-8-sig").splitlines(), delimiter=";")
    organs = [_organ_name(text) for text in header]
    return {
        case_name(Path(row[0])): tuple(
            organ for organ, cell in zip(organs, row, strict=False) if organ and cell.strip().replace(",", ".") == "0.5"
        )
        for row in rows
        if row
    }


def _organ_name(text: str) -> str | None:
    try:
        return find_organ(text).name
    except UnknownOrgan:
        return None
