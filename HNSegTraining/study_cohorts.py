"""The study's cohorts, all in HaN-Seg's layout and all of phantoms: whole, thinned out, mirrored, as PET/CT.

One set of patients is rendered; the other cohorts are made from its files. Everything follows from seeds.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.image.files import read_volume, write_volume
from hnseg.image.segmentation import organ_in_file_name
from hnseg.phantom.cohort import write_cohort
from hnseg_training.config import CohortConfig

Progress = Callable[[float, str], None]

TRAINED, UNSEEN = 12, 8
PDDCA = (
    "Bone_Mandible", "Brainstem", "Glnd_Submand_L", "Glnd_Submand_R", "OpticChiasm", "OpticNrv_L", "OpticNrv_R",
    "Parotid_L", "Parotid_R",
)  # fmt: skip
LESION = "Larynx_SG"
"""The organ table has no tumour; the lesion's mask goes by this name in the PET/CT cohort, which has no other mask."""

_SUV: Mapping[str, float] = {"Brainstem": 6.0, "Parotid_L": 2.0, "Parotid_R": 2.0, "Cavity_Oral": 2.5, "Glottis": 2.5}
_SITES = ("Cavity_Oral", "Larynx_SG", "Glottis", "Cricopharyngeus")


@dataclass(frozen=True)
class StudyCohort:
    """What is trained on and what is scored."""

    training: tuple[CohortConfig, ...]
    unseen: CohortConfig


def study_cohorts(folder: Path, openkbp: Path, *, on_progress: Progress) -> dict[str, StudyCohort]:
    """Every cohort by name; what is missing of it is written first."""
    both, ct = folder / "hanseg", folder / "ct"
    for seed, part, cases in ((40, "training", TRAINED), (41, "unseen", UNSEEN)):
        write_cohort(both / part, cases=cases, seed=seed, size="small", threads=1, on_progress=on_progress)
        _each(both / part, ct / part, lambda case, target, rng: copy_case(case, target))
        _each(ct / part, folder / "petct" / part, as_petct)
    _each(ct / "training", folder / "pddca", thinned_out)
    _each(ct / "training", folder / "mirrored", mirrored)
    plain, unseen = _cohort(ct / "training"), _cohort(ct / "unseen")
    real = CohortConfig(source="openkbp", path=str(openkbp), cases=40, fold=(0, 4))
    return {
        "hanseg": StudyCohort((_cohort(both / "training"),), _cohort(both / "unseen")),
        "pddca": StudyCohort((_cohort(folder / "pddca"),), unseen),
        "glands": StudyCohort((plain,), unseen),
        "glands-mirrored": StudyCohort((plain, _cohort(folder / "mirrored")), unseen),
        "new-organs": StudyCohort((plain,), unseen),
        "petct": StudyCohort((_cohort(folder / "petct" / "training"),), _cohort(folder / "petct" / "unseen")),
        "openkbp": StudyCohort((real,), replace(real, part="held-out")),
    }


def _cohort(folder: Path) -> CohortConfig:
    return CohortConfig(source="hanseg", path=str(folder), patients=False, registered=True)


def _each(source: Path, target: Path, make: Callable[[Path, Path, np.random.Generator], None]) -> None:
    """``make`` every case of a folder into another one, each as a whole or not at all."""
    for number, case in enumerate(sorted(source.glob("case_*"))):
        if not (target / case.name).exists():
            partial = target / f".{case.name}" / case.name
            shutil.rmtree(partial.parent, ignore_errors=True)
            partial.mkdir(parents=True)
            make(case, partial, np.random.default_rng([7, number]))
            partial.rename(target / case.name)
            partial.parent.rmdir()


def copy_case(case: Path, target: Path, *, keep: Callable[[str], bool] = lambda organ: True) -> None:
    """The CT and the masks of the organs that ``keep`` names, without the MR."""
    for file in case.glob("*.nrrd"):
        organ = organ_in_file_name(file)
        if "_IMG_MR" not in file.name and (organ is None or keep(organ.name)):
            shutil.copyfile(file, target / file.name)


def thinned_out(case: Path, target: Path, rng: np.random.Generator) -> None:
    """As PDDCA: nine organs on the CT alone, of whose masks a fifth is missing."""
    drawn = {organ for organ in PDDCA if rng.random() >= 0.2}
    copy_case(case, target, keep=drawn.__contains__)


def mirrored(case: Path, target: Path, rng: np.random.Generator) -> None:
    """The mirror image across x with every mask under its old name: what a mirror does that does not swap the sides."""
    copy_case(case, target)
    for file in target.glob("*.nrrd"):
        volume = read_volume(file)
        write_volume(volume.with_array(np.ascontiguousarray(volume.array_kji[:, :, ::-1])), file)


def as_petct(case: Path, target: Path, rng: np.random.Generator) -> None:
    """CT with a lesion, PET in the MR's place and on the CT's grid, the lesion's mask alone."""
    ct = read_volume(case / f"{case.name}_IMG_CT.nrrd")
    masks = {organ: case / f"{case.name}_OAR_{organ}.seg.nrrd" for organ in (*_SUV, *_SITES)}
    organs = {name: read_volume(file).array_kji > 0 for name, file in masks.items() if file.exists()}
    site = np.argwhere(organs[str(rng.choice([name for name in _SITES if name in organs]))])
    lesion = ellipsoid(ct.array_kji, site[rng.integers(len(site))], rng, ct.grid.spacing_mm[::-1])
    hu = np.where(lesion, np.int16(60) + rng.normal(0, 12, lesion.shape).astype(np.int16), ct.array_kji)
    write_volume(ct.with_array(hu.astype(np.int16)), target / f"{case.name}_IMG_CT.nrrd")
    suv = uptake(hu, organs, lesion, rng, ct.grid.spacing_mm[::-1])
    write_volume(ct.with_array(suv), target / f"{case.name}_IMG_MR_T1.nrrd")
    write_volume(ct.with_array(lesion.astype(np.uint8)), target / f"{case.name}_OAR_{LESION}.seg.nrrd")


def ellipsoid(
    hu: NDArray[np.int16], centre_kji: NDArray[np.int64], rng: np.random.Generator, spacing_kji: tuple[float, ...]
) -> NDArray[np.bool_]:
    """Soft tissue within an ellipsoid with half-axes of 8 … 16 mm."""
    half_mm = rng.uniform(8.0, 16.0, 3)
    offsets = [(np.arange(n) - c) * mm for n, c, mm in zip(hu.shape, centre_kji, spacing_kji, strict=True)]
    k, j, i = np.meshgrid(*offsets, indexing="ij", sparse=True)
    near = (k / half_mm[0]) ** 2 + (j / half_mm[1]) ** 2 + (i / half_mm[2]) ** 2 <= 1
    return np.asarray(near & (hu > -200) & (hu < 400))


def uptake(
    hu: NDArray[np.int16],
    organs: Mapping[str, NDArray[np.bool_]],
    lesion: NDArray[np.bool_],
    rng: np.random.Generator,
    spacing_kji: tuple[float, ...],
) -> NDArray[np.float32]:
    """SUV × 100: body 1, organs as usual, the lesion 4 … 12; blurred to 6 mm (FWHM), with noise."""
    suv = np.where(hu > -300, 1.0, 0.0)
    for name, value in _SUV.items():
        suv[organs.get(name, np.zeros_like(lesion))] = value
    suv[lesion] = rng.uniform(4.0, 12.0)
    blurred = ndimage.gaussian_filter(suv, [6.0 / 2.355 / mm for mm in spacing_kji])
    return np.asarray(np.clip(blurred + rng.normal(0, 0.1, suv.shape), 0, None) * 100, dtype=np.float32)
