"""What a comparison yields: one row per organ, the means over organs, and the project's rule for empty masks.

The rule (HaN-Seg's own is not published): a reference that is absent is not scored, and what the prediction has there
is reported as false-positive mL; a prediction that is absent where the reference is present has DSC 0, HD95 nan in the
table, and counts with the image diagonal in the penalised mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class OrganScores:
    """The metrics of one organ; nan where a metric has no value.

    ``false_positive_ml`` is what the prediction has outside the reference: all of it where the reference is absent.
    ``z_restricted_…`` compare only the slices that the reference has, for organs whose ends a protocol sets.
    """

    organ: str
    reference_ml: float
    prediction_ml: float
    false_positive_ml: float
    dsc: float = NAN
    iou: float = NAN
    hd_mm: float = NAN
    hd95_mm: float = NAN
    mean_surface_distance_mm: float = NAN
    surface_dsc: float = NAN
    added_path_length_mm: float = NAN
    volume_error: float = NAN
    centroid_shift_mm: float = NAN
    centroid_shift_lps_mm: tuple[float, float, float] = (NAN, NAN, NAN)
    z_restricted_dsc: float = NAN
    z_restricted_hd95_mm: float = NAN
    z_restricted_surface_dsc: float = NAN

    @property
    def scored(self) -> bool:
        """Whether there is a reference to score against."""
        return self.reference_ml > 0

    @property
    def missed(self) -> bool:
        """Whether the reference has the organ and the prediction does not."""
        return self.scored and self.prediction_ml == 0


METRICS = tuple(field.name for field in fields(OrganScores) if field.name not in ("organ", "centroid_shift_lps_mm"))
"""The names of the metrics that are single numbers, in table order."""

HIGHER_IS_BETTER = frozenset({"dsc", "iou", "surface_dsc", "z_restricted_dsc", "z_restricted_surface_dsc"})


@dataclass(frozen=True, slots=True)
class Scores:
    """All organs of one case, the settings that matter, and what the comparison noticed."""

    organs: tuple[OrganScores, ...]
    tolerance_mm: float
    diagonal_mm: float
    warnings: tuple[str, ...] = ()

    def __getitem__(self, organ: str) -> OrganScores:
        """The scores of the organ with that name."""
        return next(row for row in self.organs if row.organ == organ)

    def mean(self) -> dict[str, float]:
        """Means over the scored organs, nan left out; counts; HD95 with the diagonal for each missed organ.

        ``false_positive_ml`` is the sum over the organs that the reference lacks.
        """
        return mean_scores(self.organs, [self.diagonal_mm] * len(self.organs))

    def to_plain(self) -> dict[str, Any]:
        """The contract of ``hnseg evaluate --json``; nan and inf become null."""
        return {
            "organs": {row.organ: _row(row) for row in self.organs},
            "mean": {name: finite(value) for name, value in self.mean().items()},
            "tolerance_mm": self.tolerance_mm,
            "warnings": list(self.warnings),
        }


def mean_scores(rows: Iterable[OrganScores], diagonals_mm: Iterable[float]) -> dict[str, float]:
    """Means over organs (or cases) as ``Scores.mean`` describes; each row has its image's diagonal."""
    pairs = list(zip(rows, diagonals_mm, strict=True))
    scored = [row for row, _ in pairs if row.scored]
    means = {name: mean([getattr(row, name) for row in scored]) for name in METRICS if not name.endswith("_ml")}
    means["hd95_penalised_mm"] = mean(
        [diagonal if row.missed else row.hd95_mm for row, diagonal in pairs if row.scored]
    )
    means["organs_scored"] = len(scored)
    means["organs_missed"] = sum(row.missed for row in scored)
    means["false_positive_ml"] = math.fsum(row.false_positive_ml for row, _ in pairs if not row.scored)
    return means


def mean(values: Iterable[float]) -> float:
    """The mean of the finite values; nan if there are none."""
    kept = [value for value in values if math.isfinite(value)]
    return math.fsum(kept) / len(kept) if kept else NAN


def finite(value: float) -> float | None:
    """JSON has neither nan nor inf."""
    return value if math.isfinite(value) else None


def _row(row: OrganScores) -> dict[str, Any]:
    plain: dict[str, Any] = {name: finite(getattr(row, name)) for name in METRICS}
    plain["centroid_shift_lps_mm"] = [finite(value) for value in row.centroid_shift_lps_mm]
    plain["scored"], plain["missed"] = row.scored, row.missed
    return plain
