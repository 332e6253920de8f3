"""Cases in folders laid out as the public data sets are. The first layout that finds a case is the folder's."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hnseg.curation.availability import Availability, case_key, read_availability, read_patients
from hnseg.curation.dicom_layout import dicom_cases
from hnseg.curation.sources import CaseSource, LabelFile, MaskFiles
from hnseg.errors import InputError, UnreadableFile
from hnseg.image.segmentation import organ_in_file_name

IMAGES = (".nrrd", ".nii.gz", ".nii", ".mha")
HECKTOR_TARGETS = ("GTVp", "GTVn")
# Its larynx and oesophagus follow other guidelines than HaN-Seg's: they are other structures.
OPENKBP = {
    1: "Brainstem", 2: "SpinalCord", 3: "Parotid_R", 4: "Parotid_L", 5: "Esophagus (OpenKBP)", 6: "Larynx (OpenKBP)",
    7: "Bone_Mandible",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """The cases of a folder, by name, and what its tables left open."""

    layout: str
    cases: tuple[CaseSource, ...]
    notes: tuple[str, ...] = ()


def find_cases(folder: str | Path) -> Found:
    """Recognise the folder's layout and list its cases. Raises ``InputError`` where there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UnreadableFile(f"There is no folder {folder}; check the path.")
    for layout, find in _LAYOUTS.items():
        if found := find(folder):
            return Found(layout, tuple(sorted(found.cases, key=lambda case: _natural(case.name))), found.notes)
    raise InputError(
        f"{folder} holds no case that is known; give a folder laid out as HaN-Seg (case_01/case_01_IMG_CT.nrrd), PDDCA "
        "(NAME/img.nrrd), HECKTOR (NAME__CT.nii.gz), OpenKBP (pt_1_ct.nii.gz) or with DICOM, a folder per patient."
    )


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _hanseg(folder: Path) -> Found | None:
    """``case_XX/case_XX_IMG_CT.nrrd`` beside ``OAR_data.csv``; the folder itself, its ``set_1``, or one above that."""
    for root in (folder, folder / "set_1", folder / "HaN-Seg" / "set_1"):
        cases = [path for path in sorted(root.glob("case_*")) if path.is_dir()] if root.is_dir() else []
        if any(next(path.glob("*_IMG_*"), None) for path in cases):
            table = _table(root, "OAR_data.csv")
            patients = read_patients(root / "patient_data.csv")
            return Found("HaN-Seg", tuple(_hanseg_case(path, table, patients) for path in cases), table.notes)
    return None


def _table(root: Path, name: str) -> Availability:
    path = root / name
    return read_availability(path) if path.exists() else Availability(notes=(f"There is no {name} beside the cases.",))


def _hanseg_case(folder: Path, table: Availability, patients: Mapping[str, Mapping[str, str]]) -> CaseSource:
    name = folder.name
    mr = folder / f"{name}_IMG_MR_T1.nrrd"
    masks = _mask_files(folder.glob(f"{name}_OAR_*.nrrd"))
    return CaseSource(
        name=name,
        ct=folder / f"{name}_IMG_CT.nrrd",
        mr=mr if mr.exists() else None,
        structures=masks,
        marks=table.of(name),
        patient=patients.get(case_key(name), {}),
    )


def _mask_files(paths: Iterable[Path]) -> MaskFiles:
    return MaskFiles(tuple((_structure_of(path), path) for path in sorted(paths)))


def _structure_of(path: Path) -> str:
    """The organ in a mask's file name, else the name as it stands there."""
    organ = organ_in_file_name(path)
    return organ.name if organ else _stem(path).rpartition("_OAR_")[2]


def _pddca(folder: Path) -> Found | None:
    """``NAME/img.nrrd`` and ``NAME/structures/ORGAN.nrrd``; the folder's children, or theirs."""
    images = sorted({*folder.glob("*/img.nrrd"), *folder.glob("*/*/img.nrrd")})
    return Found("PDDCA", tuple(_pddca_case(image) for image in images)) if images else None


def _pddca_case(image: Path) -> CaseSource:
    masks = _mask_files((image.parent / "structures").glob("*.nrrd"))
    return CaseSource(image.parent.name, image, structures=masks)


def _hecktor(folder: Path) -> Found | None:
    """``NAME__CT`` and ``NAME__PT``, with ``labelsTr/NAME`` (1 primary tumour, 2 lymph nodes) beside ``imagesTr``."""
    images = [path for path in sorted(folder.rglob("*__CT.*")) if path.name.endswith(IMAGES)]
    return Found("HECKTOR", tuple(_hecktor_case(image) for image in images)) if images else None


def _hecktor_case(image: Path) -> CaseSource:
    name = _stem(image).removesuffix("__CT")
    pet = image.with_name(image.name.replace("__CT", "__PT"))
    places = (image.parent.with_name(image.parent.name.replace("images", "labels")), image.parent)
    labels = [
        place / f"{name}{ending}" for place in places for ending in IMAGES if (place / f"{name}{ending}").exists()
    ]
    drawn = LabelFile(labels[0], dict(enumerate(HECKTOR_TARGETS, 1))) if labels else None
    return CaseSource(
        name, image, pet=pet if pet.exists() else None, structures=drawn, targets=HECKTOR_TARGETS if drawn else ()
    )


def _openkbp(folder: Path) -> Found | None:
    """``pt_N_ct.nii.gz``, ``pt_N_oar.nii.gz`` and ``availability.csv`` (0: not contoured, though it may be there)."""
    images = sorted(folder.glob("pt_*_ct.nii.gz"))
    if not images:
        return None
    drawn = _openkbp_table(folder / "availability.csv")
    return Found("OpenKBP", tuple(_openkbp_case(image, drawn) for image in images))


def _openkbp_table(path: Path) -> dict[str, frozenset[str]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, delimiter=";"))
    except OSError:
        raise UnreadableFile(f"There is no {path}, which says what was contoured; put it beside the images.") from None
    organs = {organ.partition(" ")[0]: organ for organ in OPENKBP.values()}
    columns = [organs.get(text) for text in rows[0]]
    return {
        row[0]: frozenset(organ for organ, cell in zip(columns, row, strict=False) if organ and cell.strip() == "1")
        for row in rows[1:]
        if row
    }


def _openkbp_case(image: Path, drawn: Mapping[str, frozenset[str]]) -> CaseSource:
    name = _stem(image).removesuffix("_ct")
    labels = image.with_name(f"{name}_oar.nii.gz")
    structures = LabelFile(labels, OPENKBP, drawn.get(name, frozenset())) if labels.exists() else None
    return CaseSource(name, image, structures=structures)


def _dicom(folder: Path) -> Found | None:
    cases = tuple(dicom_cases(folder))
    return Found("DICOM", cases) if cases else None


def _stem(path: Path) -> str:
    for ending in (".seg.nrrd", *IMAGES):
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.name


_LAYOUTS: dict[str, Callable[[Path], Found | None]] = {
    "HaN-Seg": _hanseg, "PDDCA": _pddca, "HECKTOR": _hecktor, "OpenKBP": _openkbp, "DICOM": _dicom,
}  # fmt: skip
