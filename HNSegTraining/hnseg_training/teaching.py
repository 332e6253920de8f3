"""What showed each organ to a network: phantoms, patients, or patients on whom it was drawn as one with others."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from hnseg.errors import InputError, UnreadableFile
from hnseg.image.files import atomic_write
from hnseg.models.bundle import METADATA, open_bundle
from hnseg.models.metadata import Teaching
from hnseg.organs import ORGANS
from hnseg.plain import from_plain, to_plain
from hnseg_training.cases import structures_shown
from hnseg_training.config import CohortConfig, TrainConfig

TEACHING = "teaching.json"
"""In a run's folder: what its training cases taught."""


@dataclass(frozen=True, slots=True)
class Taught:
    """``trained``: the organs that the network learnt, in label order; ``taught_by``: what showed them, if known.

    ``joined``: groups of organs that a case of the run's own has as one structure.
    """

    trained: tuple[str, ...] = ()
    taught_by: dict[str, tuple[Teaching, ...]] = field(default_factory=dict)
    joined: tuple[tuple[str, ...], ...] = ()


def taught(config: TrainConfig, cohorts: Sequence[Sequence[Path]]) -> Taught:
    """What the prepared training cases, by cohort, show of the configuration's organs.

    An organ that none of them shows keeps what is known of the weights that training started from. ``InputError`` if
    they show no organ at all.
    """
    classes = {organ.name for organ in config.classes}
    found: dict[str, set[Teaching]] = defaultdict(set)
    joined: dict[tuple[str, ...], None] = {}
    for cohort, folders in zip(config.cohorts, cohorts, strict=True):
        for organs in _shown(folders):
            if classes.issuperset(organs):  # where in a group the known part of it lies is unknown
                joined |= {organs: None} if len(organs) > 1 else {}
                for organ in organs:
                    found[organ].add(_kind(cohort, organs))
    if not found:
        raise InputError(
            f"No training case shows an organ that {config.name} is to find; look what is drawn, and at its organs."
        )
    before = _before(Path(config.start_from)) if config.start_from else Taught()
    own = {organ: tuple(kind for kind in get_args(Teaching) if kind in kinds) for organ, kinds in found.items()}
    by, known = {**before.taught_by, **own}, {*before.trained, *own}
    names = [organ.name for organ in ORGANS if organ.name in classes & known]
    return Taught(tuple(names), {name: by[name] for name in names if name in by}, tuple(joined))


def write_taught(run: Path, found: Taught) -> None:
    """Into the run's folder."""
    with atomic_write(run / TEACHING) as partial:
        partial.write_text(json.dumps(to_plain(found), indent=1))


def read_taught(run: Path) -> Taught:
    """What ``write_taught`` wrote. ``UnreadableFile`` if it did not."""
    try:
        data = json.loads((run / TEACHING).read_text())
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{run} does not say what taught it ({error}); `hnseg-train resume` adds it.") from error
    return from_plain(Taught, data, where=str(run / TEACHING))


def _before(source: Path) -> Taught:
    """What taught the first network of a bundle, or the network of a run."""
    if not (source / METADATA).exists():
        return read_taught(source)
    metadata = open_bundle(source).metadata
    return Taught(metadata.trained_organs or metadata.labels[1:], metadata.taught_by)


def _shown(folders: Sequence[Path]) -> Iterator[tuple[str, ...]]:
    for folder in folders:
        yield from (tuple(ORGANS[label - 1].name for label in group) for group in structures_shown(folder))


def _kind(cohort: CohortConfig, organs: Sequence[str]) -> Teaching:
    if cohort.source == "phantom" or not cohort.patients:
        return "phantom"
    return "patient" if len(organs) == 1 else "patient union"
