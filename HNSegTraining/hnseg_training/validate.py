"""Scores of a bundle on whole volumes, through the very pipeline that a user runs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hnseg.errors import HNSegError
from hnseg.evaluation.compare import CompareOptions, compare
from hnseg.image.files import atomic_write
from hnseg.image.segmentation import Segmentation
from hnseg.image.volume import Volume
from hnseg.inference.segment import SegmentOptions, segment
from hnseg.models.bundle import Bundle
from hnseg.organs import ORGANS
from hnseg_training.config import CohortConfig
from hnseg_training.sources import RawCase, case_loaders

Rows = dict[str, dict[str, list[float]]]


def validate(
    bundle: Bundle,
    cohorts: tuple[CohortConfig, ...],
    *,
    output: Path,
    on_progress: Callable[[float, str], None],
    cases: int | None = None,
) -> None:
    """Segment every case with MR (where it has one) and without, and write per-organ means of DSC and HD95 as JSON.

    The MR is registered by the engine, not placed by the truth. Only annotated organs are scored, and unions as one;
    ``cases`` limits each cohort. A case that the engine refuses is named under ``failed``. The file is rewritten after
    each case.
    """
    rows: Rows = defaultdict(lambda: defaultdict(list))
    failed: list[str] = []
    todo = [(cohort, load) for cohort in cohorts for load in list(case_loaders(cohort).values())[:cases]]
    for number, (cohort, load) in enumerate(todo):
        case = load()
        for title, mr in _modes(cohort, case):
            try:
                dsc, hd95 = _scores(bundle, case, mr)
            except HNSegError as error:
                failed.append(f"{case.name}, {title}: {error}")
                continue
            for organ, value in dsc.items():
                rows[f"{title}: DSC"][organ].append(value)
            for organ, value in hd95.items():
                rows[f"{title}: HD95 mm"][organ].append(value)
        _write(output, bundle, rows, failed)
        on_progress((number + 1) / len(todo), _summary(case, rows))


def _modes(cohort: CohortConfig, case: RawCase) -> list[tuple[str, Volume | None]]:
    if case.mr is None:
        return [(f"{cohort.source}, CT", None)]
    return [(f"{cohort.source}, CT + MR", case.mr), (f"{cohort.source}, CT", None)]


def _scores(bundle: Bundle, case: RawCase, mr: Volume | None) -> tuple[dict[str, float], dict[str, float]]:
    result = segment(case.ct, mr, bundle=bundle, options=SegmentOptions())
    lookup, names = as_drawn(case), structure_names(case)
    scores = compare(
        Segmentation.from_labels(result.labels.with_array(lookup[result.labels.array_kji])),
        Segmentation.from_labels(case.labels),
        CompareOptions(organs=tuple(names), check_placement=False),
    )
    scored = [row for row in scores.organs if row.scored]
    return {names[row.organ]: row.dsc for row in scored}, {names[row.organ]: row.hd95_mm for row in scored}


def as_drawn(case: RawCase) -> NDArray[np.uint8]:
    """(256,) what each predicted label counts as in this case: itself, or the first of its union."""
    lookup = np.arange(256, dtype=np.uint8)
    for union in case.unions:
        lookup[list(union)] = union[0]
    return lookup


def structure_names(case: RawCase) -> dict[str, str]:
    """What somebody drew: the organ whose label stands for it → its name, a union's being that of its parts."""
    groups = [(label,) for label in case.annotated] + list(case.unions)
    names = [[ORGANS[label - 1].name for label in group] for group in groups]
    return {parts[0]: " + ".join(parts) for parts in names}


def _write(output: Path, bundle: Bundle, rows: Rows, failed: list[str]) -> None:
    tables = {title: _means(organs) for title, organs in rows.items()}
    cases = {title: max(len(values) for values in organs.values()) for title, organs in rows.items()}
    about = {"model": bundle.name, "version": bundle.metadata.version, "cases": cases, "failed": failed}
    with atomic_write(output) as partial:
        partial.write_text(json.dumps({"about": about, "tables": tables}, indent=1))


def _means(organs: dict[str, list[float]]) -> dict[str, float]:
    """Mean by organ, missing values (HD95 of an organ that was not found) left out, and the mean of the means."""
    means = {organ: float(np.nanmean(values)) for organ, values in organs.items() if np.isfinite(values).any()}
    return {**means, "mean": float(np.mean(list(means.values())))}


def _summary(case: RawCase, rows: Rows) -> str:
    means = {title: _means(organs)["mean"] for title, organs in rows.items() if title.endswith("DSC")}
    return f"{case.name}; so far " + ", ".join(f"{title} {value:.3f}" for title, value in means.items())
