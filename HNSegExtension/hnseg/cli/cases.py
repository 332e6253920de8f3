"""Which cases a folder holds, and which prediction belongs to which reference."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hnseg.cli.structures import IMAGE_ENDINGS, dicom_structures
from hnseg.curation.availability import GOOD, Availability, read_availability
from hnseg.errors import InputError
from hnseg.image.segmentation import organ_in_file_name

_IMAGE_WORDS = re.compile(r"(^|[_\-.])(img|ct|mr|mri|t1|pet|image|dose)([_\-.]|$)", re.IGNORECASE)
_CT_NAME = re.compile(r"(^|[_\-.])ct([_\-.]|$)", re.IGNORECASE)
_CASE = re.compile(r"case[_-]?(\d+)", re.IGNORECASE)
_ROLE = re.compile(
    r"([_\-.](seg|segmentation|segmentations|labels?|mask|masks|oars?|pred|prediction|predictions|truth|organs))+$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Case:
    """One patient's prediction and reference, organs to be left out, and the DICOM series of RTSTRUCTs, if given."""

    name: str
    prediction: Path
    reference: Path
    partial: tuple[str, ...] = ()
    series: Path | None = None


@dataclass(frozen=True, slots=True)
class Pairing:
    """The cases that both sides have, and the names of those that the prediction lacks."""

    cases: tuple[Case, ...]
    unpredicted: tuple[str, ...] = ()


def pair_cases(
    prediction: Path, reference: Path, *, series: Path | None = None, include_partial: bool = False
) -> Pairing:
    """The cases of both, by name; ``series`` may hold a folder per case. Raises ``InputError`` if nothing fits."""
    expected, predicted = cases_in(reference), cases_in(prediction)
    quality = Availability() if include_partial else availability_of(reference)
    if not (expected and predicted):
        case = _sole(reference, expected, many=prediction), _sole(prediction, predicted, many=reference)
        name = case_name(case[0])
        return Pairing((Case(name, case[1], case[0], _partial(quality, name), series),))
    shared = [name for name in expected if name in predicted]
    if not shared:
        raise InputError(
            f"No case of {prediction} ({_some(predicted)}) is in {reference} ({_some(expected)}); "
            "name both by case number or alike."
        )
    cases = tuple(
        Case(name, predicted[name], expected[name], _partial(quality, name), series_of(name, series)) for name in shared
    )
    return Pairing(cases, tuple(name for name in expected if name not in predicted))


def is_cohort(path: Path) -> bool:
    """Whether the path is a folder of cases."""
    return cases_in(path) is not None


def cases_in(path: Path) -> dict[str, Path] | None:
    """Case name → structures, if the folder is a cohort; None if it is one case (a file, or masks side by side)."""
    if not path.is_dir():
        return None
    root = path / "set_1" if (path / "set_1").is_dir() else path
    entries = [entry for entry in sorted(root.iterdir()) if not entry.name.startswith(".") and _holds_structures(entry)]
    cases = {case_name(entry): entry for entry in entries}
    if len(cases) < len(entries) or any(organ_in_file_name(entry) for entry in entries if entry.is_file()):
        return None  # masks side by side: several files of one case, or files named after organs
    if len(entries) == 1 and entries[0].is_dir() and not _label_images(entries[0]):
        return None  # one patient's DICOM, in folders by series
    return _sole_files(cases) if len(cases) > 1 or any(entry.is_dir() for entry in cases.values()) else None


def case_name(path: Path) -> str:
    """``case_07`` of ``case_07_seg.mha`` and of the folder ``case_07``; ``pt_12`` of ``pt_12_oar.nii.gz``."""
    numbered = _CASE.search(path.name)
    return f"case_{int(numbered[1]):02d}" if numbered else _ROLE.sub("", stem(path))


def stem(path: Path) -> str:
    """The file name without its ending, ``.seg.nrrd`` and ``.nii.gz`` included."""
    for ending in (*IMAGE_ENDINGS, ".dcm"):
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.name


def series_of(case: str, place: Path | None) -> Path | None:
    """The case's own folder below ``place``, else ``place`` itself."""
    if place is None or not place.is_dir():
        return place
    return next((entry for entry in sorted(place.iterdir()) if entry.is_dir() and case_name(entry) == case), place)


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


def availability_of(reference: Path) -> Availability:
    """What HaN-Seg's ``OAR_data.csv``, beside or above the cases, says of them; nothing where there is none."""
    for folder in (reference, reference / "set_1", reference.parent):
        table = folder / "OAR_data.csv"
        if table.is_file():
            return read_availability(table)
    return Availability()


def _partial(quality: Availability, case: str) -> tuple[str, ...]:
    return tuple(organ for organ, mark in quality.of(case).items() if mark < GOOD)


def _sole(path: Path, cases: dict[str, Path] | None, *, many: Path) -> Path:
    """The path itself, or the only case of a folder."""
    if cases is None:
        return path
    if len(cases) == 1:
        return next(iter(cases.values()))
    raise InputError(f"{path} holds many cases but {many} is one; give two folders of cases, or two of one case.")


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:3]) + (", …" if len(shown) > 3 else "") or "no case"


def _holds_structures(entry: Path) -> bool:
    labelled = bool(_label_images(entry)) if entry.is_dir() else _is_label_image(entry)
    return labelled or next(dicom_structures(entry), None) is not None


def _label_images(folder: Path) -> list[Path]:
    return [part for part in sorted(folder.iterdir()) if part.is_file() and _is_label_image(part)]


def _is_label_image(path: Path) -> bool:
    return path.name.lower().endswith(IMAGE_ENDINGS) and not _IMAGE_WORDS.search(stem(path))


def _sole_files(cases: dict[str, Path]) -> dict[str, Path]:
    """A case folder with one label image and no masks stands for that file."""
    return {name: _sole_file(entry) for name, entry in cases.items()}


def _sole_file(entry: Path) -> Path:
    if not entry.is_dir():
        return entry
    files = _label_images(entry)
    return files[0] if len(files) == 1 else entry
