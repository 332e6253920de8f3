"""Scores of a bundle on whole volumes, through the very pipeline that a user runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hnseg.errors import HNSegError
from hnseg.evaluation.cohort import Cohort
from hnseg.evaluation.compare import CompareOptions, compare
from hnseg.evaluation.scores import Scores
from hnseg.image.segmentation import Segmentation
from hnseg.image.volume import Volume
from hnseg.inference.segment import SegmentOptions, segment
from hnseg.models.bundle import Bundle
from hnseg.organs import ORGANS
from hnseg_training.config import CohortConfig
from hnseg_training.scores_file import write_scores
from hnseg_training.sources import RawCase, case_loaders


def validate(
    bundle: Bundle,
    cohorts: tuple[CohortConfig, ...],
    *,
    output: Path,
    on_progress: Callable[[float, str], None],
    cases: int | None = None,
) -> dict[str, Cohort]:
    """Segment every case with MR (where it has one) and without; write all scores as JSON and return them by title.

    The MR is registered by the engine, not placed by the truth. Scored are the organs that were drawn and that the
    model knows, unions as one; ``cases`` limits each cohort. A case that the engine refuses is named under ``failed``.
    The file is rewritten after each case.
    """
    scored: dict[str, list[tuple[str, Scores]]] = defaultdict(list)
    failed: list[str] = []
    found: dict[str, Cohort] = {}
    todo = [(cohort, load) for cohort in cohorts for load in list(case_loaders(cohort).values())[:cases]]
    for number, (cohort, load) in enumerate(todo):
        case = load()
        for title, mr in _modes(cohort, case):
            try:
                scored[title].append((case.name, _scores(bundle, case, mr)))
            except HNSegError as error:
                failed.append(f"{case.name}, {title}: {error}")
        found = {title: Cohort(bundle.name, tuple(rows)) for title, rows in scored.items() if rows}
        write_scores(output, found, model=bundle.name, version=bundle.metadata.version, failed=failed)
        on_progress((number + 1) / len(todo), _summary(case, found))
    return found


def _modes(cohort: CohortConfig, case: RawCase) -> list[tuple[str, Volume | None]]:
    if case.mr is None:
        return [(f"{cohort.source}, CT", None)]
    return [(f"{cohort.source}, CT + MR", case.mr), (f"{cohort.source}, CT", None)]


def _scores(bundle: Bundle, case: RawCase, mr: Volume | None) -> Scores:
    result = segment(case.ct, mr, bundle=bundle, options=SegmentOptions())
    lookup, names = as_drawn(case), structure_names(case, bundle.metadata.organs)
    scores = compare(
        Segmentation.from_labels(result.labels.with_array(lookup[result.labels.array_kji])),
        Segmentation.from_labels(case.labels),
        CompareOptions(organs=tuple(names), check_placement=False),
    )
    return replace(scores, organs=tuple(replace(row, organ=names[row.organ]) for row in scores.organs))


def as_drawn(case: RawCase) -> NDArray[np.uint8]:
    """(256,) what each predicted label counts as in this case: itself, or the first of its union."""
    lookup = np.arange(256, dtype=np.uint8)
    for union in case.unions:
        lookup[list(union)] = union[0]
    return lookup


def structure_names(case: RawCase, known: tuple[str, ...]) -> dict[str, str]:
    """What somebody drew and the model knows: the organ whose label stands for it → its name, or those of its parts."""
    groups = [(label,) for label in case.annotated] + list(case.unions)
    names = [[ORGANS[label - 1].name for label in group] for group in groups]
    return {parts[0]: " + ".join(parts) for parts in names if set(parts) <= set(known)}


def _summary(case: RawCase, found: Mapping[str, Cohort]) -> str:
    means = ", ".join(f"{title} {cohort.mean()['dsc']:.3f}" for title, cohort in found.items())
    return f"{case.name}; DSC so far: {means}"
