"""What a network's confidence is worth: the curve from confidence to DSC, and how well it finds the bad organs.

The curve is a logistic regression with DSC as a fractional response (Papke and Wooldridge 1996). Patients and phantoms
weigh alike, however many there are of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import minimize

from hnseg.models.calibration import Calibration, shortfall
from hnseg.organs import BY_NAME
from hnseg.reporting.cohort_plots import svg
from hnseg_training.scores_file import UNION

BAD_DSC = 0.5
"""An organ with less is one that a flag should find."""
FOLDS = 5
_MOST_FALSE_ALARMS = 0.15
_RIDGE = 1e-5
_BINS = 8

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judged:
    """An organ that was found in a case of that kind ("phantom", "openkbp", …): what was known of it, and its DSC."""

    kind: str
    case: str
    mean: float
    boundary: float
    shortfall: float
    dsc: float


@dataclass(frozen=True, slots=True)
class Flagging:
    """How a flag does: of ``bad`` organs it found ``caught``, of ``good`` ones it flagged ``alarms`` for nothing."""

    bad: int
    caught: int
    good: int
    alarms: int


def judged(measured: Mapping[str, Any]) -> tuple[Judged, ...]:
    """The organs of a scores file that the model found and somebody had drawn. Empty if it holds no confidence."""
    return tuple(
        Judged(title.partition(",")[0], case, sure["mean"], sure["boundary"], _shortfall(row), row["dsc"])
        for title, cases in measured.get("confidence", {}).items()
        for case, organs in cases.items()
        for row in measured["cases"][title][case]["organs"]
        if row["dsc"] is not None and (sure := organs.get(row["organ"]))
    )


def several_cases(rows: Sequence[Judged]) -> bool:
    """Whether the organs are those of several cases, so that a curve can be tested on others than it was fitted to."""
    return len({(row.kind, row.case) for row in rows}) > 1


def fit(rows: Sequence[Judged]) -> Calibration:
    """The curve through ``rows``, never falling with confidence or volume, and the threshold that suits it."""
    features, dsc, weights = _features(rows), np.array([row.dsc for row in rows]), _weights(rows)

    def loss(coefficients: Array) -> tuple[float, Array]:
        z = features @ coefficients
        surprise = np.logaddexp(0.0, z) - dsc * z
        slope = features.T @ (weights * (1.0 / (1.0 + np.exp(-z)) - dsc))
        ridge = _RIDGE * np.array([0.0, 1.0, 1.0, 1.0]) * coefficients
        return float(weights @ surprise + ridge @ coefficients / 2), slope + ridge

    bounds = [(None, None), (0, None), (0, None), (None, 0)]
    found = minimize(loss, np.zeros(4), jac=True, method="L-BFGS-B", bounds=bounds)
    offset, mean, boundary, small = found.x.tolist()
    expected = 1.0 / (1.0 + np.exp(-(features @ found.x)))
    cases = {kind: len({row.case for row in rows if row.kind == kind}) for kind in sorted({row.kind for row in rows})}
    return Calibration(offset, mean, boundary, small, _threshold(expected, dsc, weights), cases)


def cross_fitted(rows: Sequence[Judged]) -> Array:
    """(n, 2) expected DSC and threshold of each row, from a fit to the other folds' cases; a case is in one fold."""
    cases = sorted({(row.kind, row.case) for row in rows})
    fold_of = {case: n % FOLDS for n, case in enumerate(cases)}
    folds = np.array([fold_of[row.kind, row.case] for row in rows])
    found = np.zeros((len(rows), 2))
    for fold in set(folds.tolist()):
        other = fit([row for row, own in zip(rows, folds, strict=True) if own != fold])
        for n in np.flatnonzero(folds == fold).tolist():
            found[n] = other.expected_dsc(rows[n].mean, rows[n].boundary, rows[n].shortfall), other.check_below
    return found


def flagging(rows: Sequence[Judged], tested: Array, kind: str) -> Flagging:
    """What the flag does in cases of that kind; ``tested``: of ``cross_fitted``."""
    of_kind = np.array([row.kind == kind for row in rows])
    bad, flagged = np.array([row.dsc < BAD_DSC for row in rows]), tested[:, 0] < tested[:, 1]
    counts = (of_kind & bad, of_kind & bad & flagged, of_kind & ~bad, of_kind & ~bad & flagged)
    return Flagging(*(int(np.count_nonzero(count)) for count in counts))


def reliability_diagram(rows: Sequence[Judged], tested: Array) -> bytes:
    """SVG: mean DSC over expected DSC in bins of equal counts, a line per kind of case, every organ as a dot."""
    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#9aa5b0", linewidth=0.8, label="as promised")
    for kind in sorted({row.kind for row in rows}):
        chosen = [n for n, row in enumerate(rows) if row.kind == kind]
        expected, dsc = tested[chosen, 0], np.array([rows[n].dsc for n in chosen])
        bins = np.array_split(np.argsort(expected), min(_BINS, len(chosen)))
        middles = ([expected[part].mean() for part in bins], [dsc[part].mean() for part in bins])
        (line,) = axes.plot(*middles, "o-", markersize=4, label=f"{kind}, {len(chosen)} organs")
        axes.plot(expected, dsc, ".", color=line.get_color(), markersize=2.5, alpha=0.35)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="expected DSC (fitted on other cases)", ylabel="DSC")
    axes.legend(fontsize=8, frameon=False)
    return svg(figure)


def _features(rows: Sequence[Judged]) -> Array:
    """(n, 4): 1, confidence over the organ and over its boundary, and how much smaller than typical it is."""
    return np.array([(1.0, row.mean, row.boundary, row.shortfall) for row in rows])


def _shortfall(row: Mapping[str, Any]) -> float:
    """Of a structure that is an organ, or several drawn as one."""
    return shortfall(row["prediction_ml"], sum(BY_NAME[name].typical_ml for name in row["organ"].split(UNION)))


def _weights(rows: Sequence[Judged]) -> Array:
    """(n,), of sum 1: every kind of case has the same share."""
    kinds = [row.kind for row in rows]
    return np.array([1.0 / (kinds.count(kind) * len(set(kinds))) for kind in kinds])


def _threshold(expected: Array, dsc: Array, weights: Array) -> float:
    """The highest expected DSC below which at most 15 % of the good organs lie; 1, for all, where no organ is good."""
    good = dsc >= BAD_DSC
    if not good.any():
        return 1.0
    order = np.argsort(expected[good])
    share = np.cumsum(weights[good][order]) / weights[good].sum()
    return float(expected[good][order][np.searchsorted(share, _MOST_FALSE_ALARMS)])
