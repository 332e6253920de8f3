"""The prepared cohort: every case preprocessed once, by the very function that prediction uses, and kept on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnseg.errors import InputError, OutputError
from hnseg.image.orient import canonical
from hnseg.image.resample import resample
from hnseg.plain import to_plain
from hnseg.preprocessing import PreprocessSettings, preprocess
from hnseg_training.config import CohortConfig, TrainConfig
from hnseg_training.sources import RawCase, case_files, case_loaders, merge_of

_POINTS_PER_ORGAN = 2000
_WHOLLY = 0.999
_CHOOSES_CASES = ("cases", "seed", "share", "fold", "inner_fold", "part", "patients")
"""Of a cohort's settings those that do not change what a case of it looks like."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedCase:
    """Memory-mapped: ``image`` (C, K, J, I) float16, ``labels`` (K, J, I) uint8, points (n, 3) kji by label.

    ``merge`` (31,) int64: the label that each label counts as, see ``sources.merge_of``.
    """

    name: str
    image: NDArray[np.float16]
    labels: NDArray[np.uint8]
    points: dict[int, NDArray[np.int32]]
    merge: NDArray[np.int64]


def prepare(config: TrainConfig, folder: Path, *, on_progress: Callable[[float, str], None]) -> list[list[Path]]:
    """Preprocess the cohorts into ``folder``; returns each cohort's case folders.

    A case that is there already is kept if it was made of the same files with the same settings.
    """
    return [
        _prepare_cohort(cohort, folder / f"{number}-{cohort.source}", config.preprocess, on_progress)
        for number, cohort in enumerate(config.cohorts)
    ]


def _prepare_cohort(
    cohort: CohortConfig, folder: Path, settings: PreprocessSettings, on_progress: Callable[[float, str], None]
) -> list[Path]:
    loaders = case_loaders(cohort)
    if not loaders:
        where, (index, folds) = cohort.path or cohort.source, cohort.fold
        raise InputError(
            f"{where} has no {cohort.part} case in fold {index} of {folds}; take fewer folds or more cases."
        )
    for index, (name, load) in enumerate(loaders.items()):
        digest = _digest(cohort, name, settings)
        if _digest_of(folder / name) != digest:
            _write(folder / name, load(), settings, digest)
        on_progress((index + 1) / len(loaders), f"{cohort.source}: prepared {name}")
    return [folder / name for name in loaders]


def _digest(cohort: CohortConfig, name: str, settings: PreprocessSettings) -> str:
    """Of all that decides on a prepared case; images by size and time, since reading them would take long."""
    about = {key: value for key, value in to_plain(cohort).items() if key not in _CHOOSES_CASES}
    files = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in case_files(cohort, name)]
    return hashlib.sha256(json.dumps([name, about, to_plain(settings), files]).encode()).hexdigest()


def _digest_of(folder: Path) -> str:
    """What a prepared case was made of; empty if there is none that can be read."""
    try:
        return str(json.loads((folder / "case.json").read_text())["digest"])
    except (OSError, ValueError, LookupError):
        return ""


def open_case(folder: Path) -> PreparedCase:
    """A prepared case, memory-mapped."""
    about = json.loads((folder / "case.json").read_text())
    with np.load(folder / "points.npz") as points:
        by_label = {int(key): points[key] for key in points.files}
    image = np.load(folder / "image.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy", mmap_mode="r")
    return PreparedCase(about["name"], image, labels, by_label, merge_of(about["annotated"], about["unions"]))


def structures_shown(folder: Path) -> list[tuple[int, ...]]:
    """The labels of a prepared case that were drawn and of which a voxel is left, and the unions; each as a group."""
    about = json.loads((folder / "case.json").read_text())
    with np.load(folder / "points.npz") as points:
        present = {int(key) for key in points.files}
    groups = [(label,) for label in about["annotated"]] + [tuple(union) for union in about["unions"]]
    return [group for group in groups if group[0] in present]


def _write(folder: Path, raw: RawCase, settings: PreprocessSettings, digest: str) -> None:
    prepared = preprocess(raw.ct, raw.mr, raw.ct_to_mr, settings=settings)
    if raw.mr_valid is not None:
        valid = raw.mr_valid.with_array(raw.mr_valid.array_kji.astype(np.float32))
        prepared.array_ckji[-2:] *= resample(valid, prepared.grid).array_kji > _WHOLLY
    labels = resample(canonical(raw.labels), prepared.grid, interpolation="nearest").array_kji.astype(np.uint8)
    about = {
        "name": raw.name,
        "annotated": raw.annotated,
        "unions": raw.unions,
        "spacing_mm": prepared.grid.spacing_mm,
        "digest": digest,
    }
    points: dict[str, Any] = {str(label): chosen for label, chosen in _points(labels, prepared.body_kji).items()}
    partial = folder.with_name(folder.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        np.save(partial / "image.npy", prepared.array_ckji.astype(np.float16))
        np.save(partial / "labels.npy", labels)
        np.savez(partial / "points.npz", **points)
        (partial / "case.json").write_text(json.dumps(about))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OutputError(
            f"The case cannot be written to {folder} ({error}); free space or give other --runs."
        ) from error


def _points(labels: NDArray[np.uint8], body: NDArray[np.bool_]) -> dict[int, NDArray[np.int32]]:
    """Up to 2000 voxels of each organ, and of the body without organs (label 0), evenly picked."""
    found = {int(label): np.argwhere(labels == label) for label in np.unique(labels) if label}
    found[0] = np.argwhere(body & (labels == 0))
    if not len(found[0]):
        raise InputError("A training case shows no body; check that its CT is in Hounsfield units.")
    return {label: where[:: max(1, len(where) // _POINTS_PER_ORGAN)].astype(np.int32) for label, where in found.items()}
