"""Raw cases: phantoms by seed, and cohorts on disk."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from hnseg.curation.availability import Availability, Marks, read_availability
from hnseg.curation.masks import read_masks, stack
from hnseg.curation.record import CASES, CT, LABELS, MR, MR_VALID, PET, SEGMENTATION, finished_cases, read_case
from hnseg.errors import InputError
from hnseg.image.files import read_transform, read_volume
from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segmentation, read_segmentation
from hnseg.image.volume import Volume
from hnseg.organs import BY_NAME, ORGANS, find_organ, find_organs
from hnseg.plain import nearest
from hnseg_training.config import CohortConfig

if TYPE_CHECKING:
    from hnseg.phantom import Patient


@dataclass(frozen=True, slots=True)
class RawCase:
    """One patient before preprocessing.

    ``annotated`` holds the labels that somebody drew; others are unknown. ``unions`` holds groups of labels that were
    drawn as one structure; in ``labels`` the group's first stands for all. ``mr_valid``: where the MR shows anything,
    for one that was resampled.
    """

    name: str
    ct: Volume
    labels: Volume
    mr: Volume | None = None
    ct_to_mr: sitk.Transform | None = None
    annotated: tuple[int, ...] = tuple(organ.label for organ in ORGANS)
    unions: tuple[tuple[int, ...], ...] = ()
    mr_valid: Volume | None = None


def merge_of(annotated: Iterable[int], unions: Iterable[Sequence[int]]) -> NDArray[np.int64]:
    """(31,) the label that each label counts as: itself if drawn, its union's first member, else background."""
    merge = np.zeros(len(ORGANS) + 1, dtype=np.int64)
    for label in annotated:
        merge[label] = label
    for union in unions:
        merge[list(union)] = union[0]
    return merge


def case_loaders(cohort: CohortConfig) -> dict[str, Callable[[], RawCase]]:
    """Each case of a cohort's part by name, loaded when called; the cases of one patient are in one part."""
    listed = _LISTINGS[cohort.source](cohort)
    patients = {name: _patient(cohort, name) for name in listed}
    everyone = list(dict.fromkeys(patients.values()))
    held_out = _every(everyone, cohort.fold)
    selection = _every([patient for patient in everyone if patient not in held_out], cohort.inner_fold)
    parts = {"held-out": held_out, "selection": selection, "training": set(everyone) - held_out - selection}
    return {name: load for name, load in listed.items() if patients[name] in parts[cohort.part]}


def case_files(cohort: CohortConfig, name: str) -> list[Path]:
    """The files that a case of the cohort is read from, sorted; none of a phantom."""
    folder = Path(cohort.path)
    patterns = {
        "phantom": (),
        "curated": (f"cases/{name}/*",),
        "hanseg": (f"{name}/*", "OAR_data.csv"),
        "openkbp": (f"{name}_*", "availability.csv"),
    }[cohort.source]
    return sorted(file for pattern in patterns for file in folder.glob(pattern) if file.is_file())


def _every(patients: Sequence[str], fold: tuple[int, int]) -> set[str]:
    start, step = fold
    return set(patients[start::step]) if step else set()


def _patient(cohort: CohortConfig, name: str) -> str:
    """Whose case it is, as curation found out; else a person of its own."""
    in_folds = cohort.fold[1] or cohort.inner_fold[1]  # else nobody asks, and reading a thousand records takes long
    known = in_folds and cohort.source == "curated"
    subject = read_case(Path(cohort.path) / CASES / name).subject if known else ""
    return f"subject {subject}" if subject else f"case {name}"


def _phantoms(cohort: CohortConfig) -> dict[str, Callable[[], RawCase]]:
    seeds = range(cohort.seed, cohort.seed + cohort.cases)
    return {f"{seed:06d}": partial(phantom_case, seed, cohort) for seed in seeds}


def phantom_case(seed: int, cohort: CohortConfig) -> RawCase:
    """The phantom patient of that seed, as ``phantom_size`` says.

    The MR of "organs" has pixels of 1…1.4 mm, as fine as the CT's where it can.
    """
    from hnseg.phantom import PhantomOptions, draw_patient, render

    rng = np.random.default_rng(seed)
    patient = draw_patient(rng, PhantomOptions(variation=cohort.variation))
    if cohort.phantom_size == "organs":
        pixel_mm, slice_mm = rng.uniform(*cohort.pixel_mm), rng.uniform(*cohort.slice_mm)
        mr_mm = float(np.clip(pixel_mm, 1.0, 1.4))
        ct_grid = _around_organs(patient, (pixel_mm, pixel_mm, slice_mm), cohort)
        case = render(patient, ct_grid=ct_grid, mr_spacing_mm=(mr_mm, mr_mm, max(1.7, patient.scan.mr_slice)))
    else:
        case = render(patient, size=cohort.phantom_size)
    return RawCase(f"phantom-{seed}", case.ct, case.labels, case.mr, case.ct_to_mr)


def _around_organs(patient: Patient, spacing_mm: tuple[float, float, float], cohort: CohortConfig) -> Grid:
    """The part of the patient's CT grid that surrounds the cohort's organs: shoulders and couch teach little."""
    from hnseg.phantom import ct_grid_of, labels_on

    grid = ct_grid_of(patient, spacing_mm=spacing_mm)
    wanted = [organ.label for organ in find_organs(cohort.around)] if cohort.around else range(1, len(ORGANS) + 1)
    labels = labels_on(patient, grid.respaced((4.0, 4.0, 4.0)))
    organs = labels.grid.to_lps(np.argwhere(np.isin(labels.array_kji, list(wanted)))[:, ::-1])
    start = np.maximum(np.floor(grid.to_ijk(organs.min(axis=0) - cohort.margin_mm)), 0).astype(int)
    stop = np.minimum(np.ceil(grid.to_ijk(organs.max(axis=0) + cohort.margin_mm)) + 1, grid.size_ijk).astype(int)
    return grid.cropped(start.tolist(), (stop - start).tolist())


# OpenKBP's label and column → our organs. Its larynx is several of ours; its oesophagus begins with our inlet, and what
# lies below our short cervical segment counts as more of that.
OPENKBP = {
    1: ("Brainstem", ("Brainstem",)),
    2: ("SpinalCord", ("SpinalCord",)),
    3: ("Parotid_R", ("Parotid_R",)),
    4: ("Parotid_L", ("Parotid_L",)),
    5: ("Esophagus", ("Esophagus_S", "Cricopharyngeus")),
    6: ("Larynx", ("Larynx_SG", "Glottis", "Arytenoid")),
    7: ("Bone_Mandible", ("Bone_Mandible",)),
}


def _openkbp(cohort: CohortConfig) -> dict[str, Callable[[], RawCase]]:
    folder = Path(cohort.path)
    table = folder / "availability.csv"
    if not table.exists():
        raise InputError(f"The OpenKBP folder {folder} has no availability.csv; give the folder that holds it.")
    with table.open() as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    return {next(iter(row.values())): partial(_openkbp_case, folder, row) for row in rows[: cohort.cases]}


def _openkbp_case(folder: Path, row: dict[str, str]) -> RawCase:
    name, *_ = row.values()
    groups = {
        value: tuple(find_organ(organ).label for organ in organs)
        for value, (column, organs) in OPENKBP.items()
        if row[column] == "1"
    }
    drawn = read_volume(folder / f"{name}_oar.nii.gz")
    lookup = np.zeros(256, dtype=np.uint8)
    for value, group in groups.items():
        lookup[value] = group[0]
    ct = read_volume(folder / f"{name}_ct.nii.gz")
    return RawCase(
        name,
        ct,
        drawn.with_array(lookup[drawn.array_kji]),
        annotated=tuple(group[0] for group in groups.values() if len(group) == 1),
        unions=tuple(group for group in groups.values() if len(group) > 1),
    )


def _hanseg(cohort: CohortConfig) -> dict[str, Callable[[], RawCase]]:
    folder = Path(cohort.path)
    names = sorted(child.name for child in folder.glob("case_*") if child.is_dir())
    if not names:
        raise InputError(f"The folder {folder} holds no case_XX folders; give the folder that holds them (set_1).")
    table = folder / "OAR_data.csv"
    marks = read_availability(table) if table.exists() else Availability()
    return {
        name: partial(_hanseg_case, folder / name, marks.of(name), cohort.registered) for name in names[: cohort.cases]
    }


def _hanseg_case(folder: Path, marks: Marks, registered: bool) -> RawCase:
    """One case of HaN-Seg: masks merged by priority (small wins); absent and not wholly good ones are not annotated."""
    from hnseg.registration import register_rigid

    name = folder.name
    ct = read_volume(folder / f"{name}_IMG_CT.nrrd")
    files = {organ.name: folder / f"{name}_OAR_{organ.name}.seg.nrrd" for organ in ORGANS}
    masks = read_masks((organ, file) for organ, file in files.items() if file.exists())
    stacked = stack(masks, ct.grid, marks=marks, partial="exclude")
    case = RawCase(
        name, ct, stacked.labels, annotated=tuple(sorted(find_organ(organ).label for organ in stacked.annotated))
    )
    mr_file, truth = folder / f"{name}_IMG_MR_T1.nrrd", folder / f"{name}_TRUTH_CT_TO_MR.tfm"
    mr = read_volume(mr_file) if mr_file.exists() else None
    if mr is None:
        return case
    if truth.exists() or registered:
        transform = read_transform(truth) if truth.exists() else None
    else:
        registration = register_rigid(ct, mr)
        mr = mr if registration.verdict != "failed" else None
        transform = registration.transform
    return replace(case, mr=mr, ct_to_mr=transform)


def _curated(cohort: CohortConfig) -> dict[str, Callable[[], RawCase]]:
    folders = finished_cases(Path(cohort.path))[: cohort.cases]
    if not folders:
        raise InputError(f"{cohort.path} holds no curated cases; give the output folder of `hnseg curate`.")
    _check_unions(cohort, [folder / SEGMENTATION for folder in folders])
    return {folder.name: partial(_curated_case, folder, cohort) for folder in folders}


def _check_unions(cohort: CohortConfig, files: Iterable[Path]) -> None:
    """``InputError`` for a structure that no case has."""
    missing, seen = set(cohort.unions), set[str]()
    for file in files if missing else ():
        seen |= {segment.name for segment in read_segmentation(file).segments}
        missing -= seen
        if not missing:
            return
    for name in sorted(missing):
        raise InputError(f"No case of {cohort.path} has a structure {name!r}; {nearest(name, sorted(seen))}")


def _curated_case(folder: Path, cohort: CohortConfig) -> RawCase:
    """One case of `hnseg curate`: what it calls annotated, and the cohort's ``unions``; ignored structures, tumours and
    others count as not drawn.

    A PET is the second image of a case without MR where the cohort calls second images registered.
    """
    record = read_case(folder)
    annotated = tuple(BY_NAME[name].label for name in record.annotated if name in BY_NAME)
    kept = np.zeros(256, dtype=np.uint8)
    kept[list(annotated)] = annotated
    drawn = read_volume(folder / LABELS)
    case = RawCase(record.name, read_volume(folder / CT), drawn.with_array(kept[drawn.array_kji]), annotated=annotated)
    unions = {name: organs for name, organs in cohort.unions.items() if name not in record.ignored}
    if unions:
        case = with_unions(case, read_segmentation(folder / SEGMENTATION), unions)
    if not record.has_mr:
        return replace(case, mr=read_volume(folder / PET)) if record.pet and cohort.registered else case
    valid = read_volume(folder / MR_VALID)
    reached = np.argwhere(valid.array_kji)
    start, stop = reached.min(axis=0)[::-1], reached.max(axis=0)[::-1] + 1
    box = start.tolist(), (stop - start).tolist()
    return replace(case, mr=read_volume(folder / MR).cropped(*box), mr_valid=valid.cropped(*box))


def with_unions(case: RawCase, drawn: Segmentation, unions: Mapping[str, Sequence[str]]) -> RawCase:
    """The case with the structures of ``drawn`` that stand for several organs each.

    Organs that were drawn on their own keep their voxels; the rest of the structure is the other organs' union.
    """
    labels, found = case.labels.array_kji.copy(), list(case.unions)
    names = {segment.name for segment in drawn.segments}
    for name, organs in unions.items():
        group = tuple(organ.label for organ in find_organs(organs) if organ.label not in case.annotated)
        if group and name in names:
            labels[drawn.mask(name).array_kji & (labels == 0)] = group[0]
            found.append(group)
    return replace(case, labels=case.labels.with_array(labels), unions=tuple(found))


_LISTINGS = {"phantom": _phantoms, "curated": _curated, "openkbp": _openkbp, "hanseg": _hanseg}
