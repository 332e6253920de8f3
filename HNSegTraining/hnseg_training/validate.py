"""Scores of a bundle on whole volumes, through the very pipeline that a user runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from hnseg.errors import HNSegError, InputError
from hnseg.evaluation.cohort import Cohort
from hnseg.evaluation.compare import CompareOptions, compare
from hnseg.evaluation.scores import Scores
from hnseg.image.segmentation import Segmentation
from hnseg.image.volume import Volume
from hnseg.inference.confidence import Confidence
from hnseg.inference.segment import SegmentOptions, SegmentResult, segment
from hnseg.models.bundle import Bundle
from hnseg.organs import ORGANS
from hnseg_training.config import CohortConfig
from hnseg_training.gallery import Gallery
from hnseg_training.scores_file import UNION, worst_folder, write_scores
from hnseg_training.sources import RawCase, case_loaders


def validate(
    bundle: Bundle,
    cohorts: tuple[CohortConfig, ...],
    *,
    output: Path,
    on_progress: Callable[[float, str], None],
    cases: int | None = None,
    of: str = "",
) -> dict[str, Cohort]:
    """Segment every case with MR (where it has one) and without; write all scores as JSON and return them by title.

    A model that takes no MR is shown none. The MR is registered by the engine, not placed by the truth, unless the
    cohort calls it registered. Scored are the organs that were drawn and that the model knows, unions as one; ``cases``
    limits each cohort. A case that the engine refuses, or that shows nothing to score, is named under ``failed``.
    ``of`` is the digest that the file keeps of the run's network, cases and configuration. The file, in which the
    model's confidence stands beside the scores, is rewritten after each case; pictures of the worst organs lie beside
    it, of phantoms alone. ``InputError`` if there is no case at all.
    """
    scored: dict[str, list[tuple[str, Scores]]] = defaultdict(list)
    sure: dict[str, dict[str, dict[str, Confidence]]] = defaultdict(dict)
    worst = Gallery(worst_folder(output))
    failed: list[str] = []
    found: dict[str, Cohort] = {}
    todo = cases_to_score(cohorts, cases)
    for number, (cohort, source, load) in enumerate(todo):
        case = load()
        case = replace(case, name=f"{case.name}{source}")
        names = structure_names(case, bundle.metadata.organs)
        if not names:
            failed.append(f"{case.name}: nothing is drawn that the model knows")
        for title, mr in _modes(cohort, case, takes_mr=bundle.metadata.takes_mr) if names else ():
            try:
                result = segment(case.ct, mr, bundle=bundle, options=SegmentOptions(), ct_to_mr=_place(cohort, case))
            except HNSegError as error:
                failed.append(f"{case.name}, {title}: {error}")
                continue
            predicted, drawn = as_drawn(case, result.labels), Segmentation.from_labels(case.labels)
            scores = _scores(predicted, drawn, names)
            scored[title].append((case.name, scores))
            sure[title][case.name] = structure_confidence(result, names)
            if cohort.source == "phantom":
                worst.show(f"{case.name}, {title}", scores, predicted, drawn, case.ct)
        found = {title: Cohort(bundle.name, tuple(rows)) for title, rows in scored.items() if rows}
        write_scores(
            output,
            found,
            model=bundle.name,
            version=bundle.metadata.version,
            failed=failed,
            complete=cases is None and number + 1 == len(todo),
            of=of,
            confidence=sure,
            worst=worst.captions,
        )
        on_progress((number + 1) / len(todo), _summary(case, found))
    return found


def cases_to_score(
    cohorts: Sequence[CohortConfig], cases: int | None = None
) -> list[tuple[CohortConfig, str, Callable[[], RawCase]]]:
    """Each case's cohort, what to add to its name so that no other cohort's case is called alike, and its loader.

    ``InputError`` if there is none.
    """
    kinds = [_kind(cohort) for cohort in cohorts]
    todo = [
        (cohort, f" of cohort {number}" if kinds.count(kind) > 1 else "", load)
        for number, (cohort, kind) in enumerate(zip(cohorts, kinds, strict=True), 1)
        for load in list(case_loaders(cohort).values())[:cases]
    ]
    if not todo:
        raise InputError("There is no case to score; name cohorts with cases under validation.")
    return todo


def _kind(cohort: CohortConfig) -> str:
    return cohort.source if cohort.variation == 1 else f"{cohort.source} varied {cohort.variation:g} times"


def _modes(cohort: CohortConfig, case: RawCase, *, takes_mr: bool) -> list[tuple[str, Volume | None]]:
    cases = _kind(cohort)
    if case.mr is None or not takes_mr:
        return [(f"{cases}, CT", None)]
    return [(f"{cases}, CT + MR", case.mr), (f"{cases}, CT", None)]


def _place(cohort: CohortConfig, case: RawCase) -> sitk.Transform | None:
    """Where the second image lies, if that need not be found out; ``sitk.Transform()`` is the identity."""
    return (case.ct_to_mr or sitk.Transform()) if cohort.registered else None


def _scores(predicted: Segmentation, drawn: Segmentation, names: Mapping[str, str]) -> Scores:
    scores = compare(predicted, drawn, CompareOptions(organs=tuple(names), check_placement=False))
    return replace(scores, organs=tuple(replace(row, organ=names[row.organ]) for row in scores.organs))


def as_drawn(case: RawCase, labels: Volume) -> Segmentation:
    """Predicted labels as the case has them: each is itself, or the first of its union."""
    lookup = np.arange(256, dtype=np.uint8)
    for union in case.unions:
        lookup[list(union)] = union[0]
    return Segmentation.from_labels(labels.with_array(lookup[labels.array_kji]))


def structure_confidence(result: SegmentResult, names: Mapping[str, str]) -> dict[str, Confidence]:
    """The model's confidence in each structure that it found; in a union that of its parts, weighted by volume."""
    found = {}
    for name in names.values():
        parts = [one for one in result.organs if one.organ in name.split(UNION) and one.confidence]
        total = sum(part.ml for part in parts)
        if total > 0:
            mean, boundary = (
                sum(part.ml * getattr(part.confidence, which) for part in parts) / total
                for which in ("mean", "boundary")
            )
            found[name] = Confidence(mean, boundary)
    return found


def structure_names(case: RawCase, known: tuple[str, ...]) -> dict[str, str]:
    """What somebody drew and the model knows: the organ whose label stands for it → its name, or those of its parts."""
    groups = [(label,) for label in case.annotated] + list(case.unions)
    names = [[ORGANS[label - 1].name for label in group] for group in groups]
    return {parts[0]: UNION.join(parts) for parts in names if set(parts) <= set(known)}


def _summary(case: RawCase, found: Mapping[str, Cohort]) -> str:
    means = ", ".join(f"{title} {cohort.mean()['dsc']:.3f}" for title, cohort in found.items())
    return f"{case.name}; DSC so far: {means}"
