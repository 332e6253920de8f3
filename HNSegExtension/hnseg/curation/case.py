"""One case, from its files to cleaned images on one grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from hnseg.curation import record as names
from hnseg.curation.alignment import Aligned, Overruled, align
from hnseg.curation.masks import Stacked, stack
from hnseg.curation.mr import MrOnGrid, place_mr
from hnseg.curation.record import CT_BINS_HU, CaseRecord
from hnseg.curation.remarks import Remark
from hnseg.curation.settings import CurationSettings
from hnseg.curation.shape import Kept, ShapeSettings, onto, proof, reshaped, shaped_grid
from hnseg.curation.sources import CaseSource, source_records
from hnseg.evaluation.boxes import Boxed
from hnseg.image.checks import check_ct, check_mr
from hnseg.image.files import read_image, read_volume, write_transform, write_volume
from hnseg.image.grid import Grid
from hnseg.image.segmentation import write_segmentation
from hnseg.image.volume import Volume

OnProgress = Callable[[float, str], None]
AIR_HU = -1000.0
_SPARSE = (2, 4, 4)  # every n-th voxel (k, j, i) is enough for a histogram


@dataclass(frozen=True, slots=True, eq=False)
class CuratedCase:
    """Everything on ``record.grid``. An MR that was registered but not used leaves its ``transform`` alone."""

    record: CaseRecord
    ct: Volume
    structures: Stacked
    mr: MrOnGrid | None = None
    pet: Volume | None = None
    transform: sitk.Transform | None = None


def curate_case(
    source: CaseSource,
    settings: CurationSettings,
    *,
    root: Path,
    overruled: Overruled | None = None,
    on_progress: OnProgress = lambda fraction, text: None,
) -> CuratedCase:
    """Read, register, correct, stack, shape. ``root`` is the folder that source paths are told relative to.

    Raises ``HNSegError`` where the case cannot be used at all; what is merely odd becomes a remark.
    """
    remarks = [Remark("image", "", note) for note in source.notes]
    on_progress(0.0, "Reading the images")
    ct, mr = _read_images(source, remarks)
    sources = source_records(source, root)
    aligned = None
    if mr is not None:
        aligned = align(ct, mr, settings.registration, overruled=overruled, on_progress=_part(on_progress, 0.05, 0.5))
        remarks += _about_alignment(aligned)
    on_progress(0.5, "Stacking the masks")
    structures = _stack(source, ct.grid, settings, remarks)
    on_progress(0.75, "Bringing the case into shape")
    kept, structures = _shape(structures, source, ct, settings.shape)
    grid = structures.labels.grid
    on_progress(0.8, "Bringing the MR onto the CT")
    placed = None
    if mr is not None and aligned is not None and aligned.record.used:
        placed = place_mr(mr, aligned.transform, _sparse(ct), grid, settings)
    shaped_ct = onto(ct, grid, interpolation="linear", fill=AIR_HU)
    record = CaseRecord(
        name=source.name,
        status="doubtful" if any(remark.is_grave for remark in remarks) else "good",
        sources=sources,
        ct_grid=ct.grid,
        grid=grid,
        annotated=structures.annotated,
        ignored=structures.ignored,
        targets=source.targets,
        volumes_ml=_volumes(structures),
        conflicts=structures.overlaps.conflicts,
        kept=kept,
        remarks=tuple(remarks),
        ct_histogram=_histogram(shaped_ct),
        alignment=aligned.record if aligned else None,
        mr=placed.record if placed else None,
        pet=source.pet is not None,
        subject=source.subject,
        patient=source.patient,
    )
    pet = _read_pet(source.pet, grid) if source.pet else None
    return CuratedCase(record, shaped_ct, structures, placed, pet, aligned.transform if aligned else None)


def write_case(case: CuratedCase, folder: Path) -> None:
    """All files of the case into an existing folder. Raises ``OutputError``."""
    write_volume(case.ct, folder / names.CT)
    write_volume(case.structures.labels, folder / names.LABELS)
    write_segmentation(case.structures.segmentation, folder / names.SEGMENTATION)
    (folder / names.OVERLAPS).write_text(case.structures.overlaps.to_csv(), encoding="utf-8")
    if case.transform is not None:
        write_transform(case.transform, folder / names.TRANSFORM)
    if case.mr is not None:
        write_volume(case.mr.image, folder / names.MR)
        write_volume(case.mr.image.with_array(case.mr.valid), folder / names.MR_VALID)
        if case.mr.bias is not None:
            write_volume(case.mr.bias.log_field, folder / names.MR_BIAS)
    if case.pet is not None:
        write_volume(case.pet, folder / names.PET)
    names.write_json(case.record, folder / names.RECORD)


def _read_images(source: CaseSource, remarks: list[Remark]) -> tuple[Volume, Volume | None]:
    """CT and MR, and what is odd about them."""

    def note(text: str) -> None:
        remarks.append(Remark("image", "", text))

    ct = read_image(source.ct, modality="CT", on_note=note)
    mr = read_image(source.mr, modality="MR", on_note=note) if source.mr else None
    for warning in (*check_ct(ct), *(check_mr(mr) if mr is not None else ())):
        note(warning)
    return ct, mr


def _read_pet(path: Path, grid: Grid) -> Volume:
    """Float32, linear: the scanner has put it into the CT's frame."""
    pet = read_volume(path)
    return onto(pet.with_array(pet.array_kji.astype(np.float32)), grid, interpolation="linear", fill=0.0)


def _about_alignment(aligned: Aligned) -> list[Remark]:
    """Nothing where the check is content or a person has decided."""
    found = aligned.record
    if found.overruled:
        return [Remark("image", "", f"A person {found.overruled} the registration (the check said {found.verdict}).")]
    if found.verdict == "good":
        return []
    use = "The MR was used all the same." if found.used else "The MR was left out."
    return [Remark("registration", "", f"Registration {found.verdict}: {found.reason} {use}")]


def _stack(source: CaseSource, grid: Grid, settings: CurationSettings, remarks: list[Remark]) -> Stacked:
    masks, noticed = source.structures.read(grid) if source.structures else ((), ())
    remarks += noticed
    structures = stack(masks, grid, marks=source.marks, partial=settings.partial, targets=source.targets)
    remarks += structures.remarks
    return structures


def _shape(
    structures: Stacked, source: CaseSource, ct: Volume, settings: ShapeSettings
) -> tuple[tuple[Kept, ...], Stacked]:
    """The structures on the case's grid, and the proof that no organ and no target lost anything on the way."""
    segments = tuple(s for s in structures.segmentation.segments if s.organ or s.name in source.targets)
    whole = Boxed.of(replace(structures.segmentation, segments=segments))
    grid = shaped_grid(ct, whole, settings)
    if grid == ct.grid:
        return (), structures
    moved = reshaped(structures.segmentation, grid)
    kept = proof(whole, Boxed.of(replace(moved, segments=segments)))
    labels = onto(structures.labels, grid, interpolation="nearest", fill=0)
    return kept, replace(structures, segmentation=moved, labels=labels)


def _volumes(structures: Stacked) -> dict[str, float]:
    organs = [segment.organ.name for segment in structures.segmentation.segments if segment.organ]
    return {name: round(structures.overlaps.ml(name), 4) for name in organs}


def _histogram(ct: Volume) -> tuple[int, ...]:
    low, high, bins = CT_BINS_HU
    counts, _ = np.histogram(_sparse(ct), bins=bins, range=(low, high))
    return tuple(counts.tolist())


def _sparse(volume: Volume) -> NDArray[Any]:
    k, j, i = _SPARSE
    return volume.array_kji[::k, ::j, ::i]


def _part(on_progress: OnProgress, start: float, end: float) -> OnProgress:
    return lambda fraction, text: on_progress(start + fraction * (end - start), text)
