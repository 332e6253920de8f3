"""Systems against each other on the same cases: paired tests, intervals, and the HaN-Seg challenge's ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hnseg.errors import InputError
from hnseg.evaluation.cohort import Cohort
from hnseg.evaluation.scores import HIGHER_IS_BETTER, NAN, finite, mean

Array = NDArray[np.float64]

CHALLENGE_METRICS = ("dsc", "hd95_mm")
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class PairedTest:
    """First minus second system on the cases that both have.

    ``difference`` is the mean; ``low`` and ``high`` its 95 % bootstrap interval over cases; ``p`` is two-sided
    Wilcoxon's signed-rank test, and ``p_holm`` that adjusted for the organs tested together (Holm 1979).
    """

    organ: str
    metric: str
    cases: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float = NAN


@dataclass(frozen=True, slots=True)
class Rank:
    """A system's place by the challenge's scheme."""

    system: str
    place: int
    significance: dict[str, int]
    metric_ranks: dict[str, int]
    means: dict[str, float]


def paired_tests(first: Cohort, second: Cohort, metric: str, *, seed: int = 0) -> tuple[PairedTest, ...]:
    """One test per organ, and one over all organs ("all") on each case's mean, as organs of a case are not independent.

    Missed organs count as ``Cohort.penalised`` says. Raises ``InputError`` if the systems share no scored case.
    """
    mine, theirs = first.penalised(metric), second.penalised(metric)
    shared = [key for key in mine if key in theirs and np.isfinite([mine[key], theirs[key]]).all()]
    if not shared:
        raise InputError(f"{first.system} and {second.system} share no scored organ; evaluate both on the same cases.")
    rng = np.random.default_rng(seed)
    differences = {key: mine[key] - theirs[key] for key in shared}
    organs = [organ for organ in first.organs if any(key[1] == organ for key in shared)]
    per_organ = _holm(
        [_test(organ, metric, [differences[key] for key in shared if key[1] == organ], rng) for organ in organs]
    )
    cases = list(dict.fromkeys(case for case, _ in shared))
    overall = [mean([differences[key] for key in shared if key[0] == case]) for case in cases]
    return (_test("all", metric, overall, rng), *per_organ)


def bootstrap_interval(
    values: Sequence[float], rng: np.random.Generator, *, share: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean, from 2000 resamples; nan for fewer than two values. Efron 1979."""
    if len(values) < 2:
        return NAN, NAN
    sample = np.asarray(values)
    means = sample[rng.integers(0, len(sample), (_RESAMPLES, len(sample)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def challenge_ranking(cohorts: Sequence[Cohort], *, alpha: float = 0.05) -> tuple[Rank, ...]:
    """Rank systems as HaN-Seg 2023 announced it (han-seg2023.grand-challenge.org, participation rules).

    Per metric (DSC, HD95), every pair of systems is compared by Wilcoxon's signed-rank test over all organs and cases;
    a system's significance score is how many others it beats, and its metric rank follows from that, equal scores
    sharing a rank. The final place aggregates both ranks; ties are ordered by the mean of the metrics. What the rules
    leave open is settled as follows: tests are one-sided at ``alpha``, missed organs have DSC 0 and HD95 the image
    diagonal, ranks are summed, and equal sums are ordered by the systems' ranks in the plain mean of each metric.
    """
    scores = {metric: _significance(cohorts, metric, alpha) for metric in CHALLENGE_METRICS}
    ranks = {metric: _ranks([-wins for wins in score]) for metric, score in scores.items()}
    means = {metric: [mean(c.penalised(metric).values()) for c in cohorts] for metric in CHALLENGE_METRICS}
    by_mean = {
        metric: _ranks([-m if metric in HIGHER_IS_BETTER else m for m in means[metric]]) for metric in CHALLENGE_METRICS
    }
    keys = [
        (sum(ranks[m][n] for m in CHALLENGE_METRICS), sum(by_mean[m][n] for m in CHALLENGE_METRICS))
        for n in range(len(cohorts))
    ]
    ranked = [
        Rank(
            cohort.system,
            1 + sum(key < keys[n] for key in keys),
            {metric: int(scores[metric][n]) for metric in CHALLENGE_METRICS},
            {metric: ranks[metric][n] for metric in CHALLENGE_METRICS},
            {metric: means[metric][n] for metric in CHALLENGE_METRICS},
        )
        for n, cohort in enumerate(cohorts)
    ]
    return tuple(sorted(ranked, key=lambda rank: rank.place))


def comparison_to_plain(cohorts: Sequence[Cohort]) -> dict[str, Any]:
    """For the JSON: each system's means, the first one's tests against each other one, and the ranking."""
    first, *others = cohorts
    tests = [
        {"against": other.system, **asdict(test)}
        for other in others
        for metric in CHALLENGE_METRICS
        for test in paired_tests(first, other, metric)
    ]
    return {
        "systems": {cohort.system: {name: finite(mm) for name, mm in cohort.mean().items()} for cohort in cohorts},
        "tests": [{name: finite(v) if isinstance(v, float) else v for name, v in test.items()} for test in tests],
        "ranking": [asdict(rank) for rank in challenge_ranking(cohorts)],
    }


def bland_altman(prediction_ml: Sequence[float], reference_ml: Sequence[float]) -> tuple[float, float, float]:
    """Bias and limits of agreement of volumes, mL. Bland and Altman 1986."""
    return limits_of_agreement(np.subtract(prediction_ml, reference_ml))


def limits_of_agreement(differences: Array) -> tuple[float, float, float]:
    """Mean, and mean ± 1.96 SD, of differences; nan for none, nan limits for one."""
    if not differences.size:
        return NAN, NAN, NAN
    bias = float(differences.mean())
    if differences.size < 2:
        return bias, NAN, NAN
    reach = 1.96 * float(differences.std(ddof=1))
    return bias, bias - reach, bias + reach


def _test(organ: str, metric: str, differences: Sequence[float], rng: np.random.Generator) -> PairedTest:
    low, high = bootstrap_interval(differences, rng)
    return PairedTest(organ, metric, len(differences), mean(differences), low, high, _wilcoxon(differences))


def _wilcoxon(differences: Sequence[float], alternative: Literal["two-sided", "greater"] = "two-sided") -> float:
    """The p-value; 1 where every pair is equal. Zeros are ranked and then dropped (Pratt 1959)."""
    if not np.any(differences):
        return 1.0
    return float(
        stats.wilcoxon(differences, zero_method="pratt", alternative=alternative, method=_method(differences)).pvalue
    )


def _method(differences: Sequence[float]) -> Literal["exact", "approx"]:
    """Exact for few pairs without ties or zeros, else the normal approximation."""
    sizes = np.abs(differences)
    return "exact" if len(sizes) <= 50 and len(np.unique(sizes)) == len(sizes) and sizes.all() else "approx"


def _holm(tests: Sequence[PairedTest]) -> list[PairedTest]:
    order = sorted(range(len(tests)), key=lambda n: tests[n].p)
    adjusted = [0.0] * len(tests)
    highest = 0.0
    for place, n in enumerate(order):
        highest = max(highest, min(1.0, (len(tests) - place) * tests[n].p))
        adjusted[n] = highest
    return [replace(test, p_holm=p) for test, p in zip(tests, adjusted, strict=True)]


def _significance(cohorts: Sequence[Cohort], metric: str, alpha: float) -> list[int]:
    values = [cohort.penalised(metric) for cohort in cohorts]
    sign = 1.0 if metric in HIGHER_IS_BETTER else -1.0
    scores = []
    for n, mine in enumerate(values):
        beaten = 0
        for m, theirs in enumerate(values):
            shared = [key for key in mine if key in theirs and np.isfinite([mine[key], theirs[key]]).all()]
            gains = [sign * (mine[key] - theirs[key]) for key in shared]
            beaten += int(n != m and _wilcoxon(gains, "greater") < alpha)
        scores.append(beaten)
    return scores


def _ranks(values: Sequence[float]) -> list[int]:
    """1 for the smallest; equal values share the better rank."""
    return [1 + sum(other < value for other in values) for value in values]
