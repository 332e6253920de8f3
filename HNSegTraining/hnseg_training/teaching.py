"""What showed each organ to a network: phantoms, patients, or patients on whom it was drawn as one with others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from hnseg.curation.availability import GOOD, Availability, read_availability
from hnseg.curation.record import RECORD, read_case
from hnseg.image.segmentation import organ_in_file_name
from hnseg.models.bundle import METADATA, open_bundle
from hnseg.models.metadata import Teaching
from hnseg.organs import BY_NAME
from hnseg_training.config import CohortConfig, TrainConfig, load_config
from hnseg_training.sources import OPENKBP
from hnseg_training.weights import CONFIG


def taught_by(config: TrainConfig) -> dict[str, tuple[Teaching, ...]]:
    """Organ → its kinds of teaching, by the configuration's own cohorts.

    An organ that none of them shows keeps what is known of the weights that training started from.
    """
    found: dict[str, set[Teaching]] = defaultdict(set)
    for cohort in config.cohorts:
        for organ, kind in _shown(cohort):
            found[organ].add(kind)
    own = {organ: tuple(kind for kind in get_args(Teaching) if kind in kinds) for organ, kinds in found.items()}
    known = {**_before(Path(config.start_from) if config.start_from else None), **own}
    return {organ.name: known[organ.name] for organ in config.classes if organ.name in known}


def drawn_as_one(config: TrainConfig) -> tuple[tuple[str, ...], ...]:
    """The groups of organs that a cohort of the configuration has as one structure."""
    if all(cohort.source != "openkbp" for cohort in config.cohorts):
        return ()
    return tuple(organs for _, organs in OPENKBP.values() if len(organs) > 1)


def _before(source: Path | None) -> dict[str, tuple[Teaching, ...]]:
    """What taught the network of a run or a bundle."""
    if source is None:
        return {}
    if (source / METADATA).exists():
        return open_bundle(source).metadata.taught_by
    return taught_by(load_config(source / CONFIG))


def _shown(cohort: CohortConfig) -> Iterator[tuple[str, Teaching]]:
    whole: Teaching = "patient" if cohort.patients else "phantom"
    if cohort.source == "phantom":
        yield from ((organ, "phantom") for organ in BY_NAME)
    elif cohort.source == "openkbp":
        for _, organs in OPENKBP.values():
            yield from ((organ, "patient" if len(organs) == 1 else "patient union") for organ in organs)
    elif cohort.source == "curated":
        records = Path(cohort.path).glob(f"cases/*/{RECORD}")
        yield from ((organ, whole) for record in records for organ in read_case(record.parent).annotated)
    else:
        yield from ((organ, whole) for organ in _drawn_in_hanseg(Path(cohort.path)))


def _drawn_in_hanseg(folder: Path) -> set[str]:
    """The organs with a mask in some case of HaN-Seg's layout that its table does not call partial or missing."""
    table = folder / "OAR_data.csv"
    marks = read_availability(table) if table.exists() else Availability()
    masks = ((mask.parent.name, organ_in_file_name(mask)) for mask in folder.glob("case_*/*_OAR_*.seg.nrrd"))
    return {organ.name for case, organ in masks if organ and marks.of(case).get(organ.name, GOOD) == GOOD}
