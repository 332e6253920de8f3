"""The scores of many cases by one system, and the table and JSON they are kept in."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnseg.evaluation.scores import HIGHER_IS_BETTER, METRICS, OrganScores, Scores, finite, mean_scores
from hnseg.organs import BY_NAME

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cohort:
    """One system's scores, case by case; ``notes`` are about the cohort as a whole."""

    system: str
    cases: tuple[tuple[str, Scores], ...]
    notes: tuple[str, ...] = ()

    @property
    def organs(self) -> tuple[str, ...]:
        """The structures that some case was scored on, in the organ table's order, others after them."""
        found = {row.organ: None for _, scores in self.cases for row in scores.organs if row.scored}
        return tuple(sorted(found, key=lambda name: (BY_NAME[name].label if name in BY_NAME else 1000, name)))

    def rows(self, organ: str | None = None) -> Iterable[tuple[str, OrganScores, float]]:
        """Case, scores and image diagonal (mm) of every organ, or of one."""
        for case, scores in self.cases:
            for row in scores.organs:
                if organ in (None, row.organ):
                    yield case, row, scores.diagonal_mm

    def values(self, metric: str, organ: str | None = None) -> dict[tuple[str, str], float]:
        """Case and organ → value, for the scored ones; a missed organ's HD95 is nan, as in the table."""
        return {(case, row.organ): float(getattr(row, metric)) for case, row, _ in self.rows(organ) if row.scored}

    def penalised(self, metric: str, organ: str | None = None) -> dict[tuple[str, str], float]:
        """As ``values``, but a missed organ counts: 0 where more is better, the image diagonal for a distance in mm."""
        missed = {(case, row.organ): diagonal for case, row, diagonal in self.rows(organ) if row.missed}
        if metric in HIGHER_IS_BETTER:
            missed = dict.fromkeys(missed, 0.0)
        return {key: missed.get(key, value) for key, value in self.values(metric, organ).items()}

    def mean(self, organ: str | None = None) -> dict[str, float]:
        """Means over all scored organs of all cases, or over the cases of one organ; see ``mean_scores``."""
        rows = list(self.rows(organ))
        return mean_scores([row for _, row, _ in rows], [diagonal for _, _, diagonal in rows])

    @property
    def extra_ml(self) -> dict[str, list[float]]:
        """Structure → the mL predicted in each case whose reference lacks it."""
        extra: dict[str, list[float]] = {}
        for _, row, _ in self.rows():
            if not row.scored and row.prediction_ml > 0:
                extra.setdefault(row.organ, []).append(row.prediction_ml)
        return extra

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notes, and what the comparisons noticed, with the case's name."""
        return (*self.notes, *(f"{case}: {warning}" for case, scores in self.cases for warning in scores.warnings))

    def worst(self, metric: str = "dsc", *, count: int = 6) -> list[tuple[str, OrganScores]]:
        """The organs that scored worst, one per organ name, so that one hard organ does not fill the list."""
        down = metric in HIGHER_IS_BETTER
        scored = [(case, row) for case, row, _ in self.rows() if row.scored]
        scored.sort(key=lambda item: _badness(getattr(item[1], metric), higher_is_better=down))
        first_of_organ = {row.organ: (case, row) for case, row in reversed(scored)}
        kept = sorted(first_of_organ.values(), key=scored.index)
        return kept[:count]


def _badness(value: float, *, higher_is_better: bool) -> float:
    if not np.isfinite(value):
        return -np.inf
    return value if higher_is_better else -value


def to_csv(cohorts: Sequence[Cohort]) -> str:
    """One row per system, case and organ; a metric without a value is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["system", "case", "organ", "scored", "missed", *METRICS])
    for cohort in cohorts:
        for case, row, _ in cohort.rows():
            cells = [finite(getattr(row, name)) for name in METRICS]
            written = ["" if value is None else repr(float(value)) for value in cells]
            writer.writerow([cohort.system, case, row.organ, int(row.scored), int(row.missed), *written])
    return text.getvalue()


def to_plain(cohort: Cohort) -> dict[str, Any]:
    """The contract of ``hnseg evaluate --json`` for a cohort: means per organ, the overall mean, and every case."""
    return {
        "organs": {organ: _plain_mean(cohort.mean(organ)) for organ in cohort.organs},
        "mean": _plain_mean(cohort.mean()),
        "cases": {case: scores.to_plain() for case, scores in cohort.cases},
        "warnings": list(cohort.warnings),
    }


def _plain_mean(means: dict[str, float]) -> dict[str, float | None]:
    return {name: finite(value) for name, value in means.items()}
