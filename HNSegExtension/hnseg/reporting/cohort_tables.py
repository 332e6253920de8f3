"""The tables of an evaluation's page, as HTML sections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import isfinite

from hnseg.evaluation.cohort import Cohort
from hnseg.evaluation.statistics import PairedTest, Rank, bland_altman, challenge_ranking, paired_tests

_METRICS = (
    ("dsc", "DSC", "{:.3f}"), ("surface_dsc", "surface DSC", "{:.3f}"), ("hd95_mm", "HD95 mm", "{:.2f}"),
    ("hd95_penalised_mm", "HD95 mm, missed = diagonal", "{:.2f}"), ("mean_surface_distance_mm", "mean mm", "{:.2f}"),
    ("added_path_length_mm", "added path mm", "{:.0f}"), ("volume_error", "volume error", "{:+.1%}"),
    ("centroid_shift_mm", "centroid mm", "{:.1f}"), ("z_restricted_dsc", "DSC within z", "{:.3f}"),
)  # fmt: skip
_TESTED = (("dsc", "DSC", "{:+.3f}"), ("hd95_mm", "HD95, mm", "{:+.2f}"))


def means_table(cohort: Cohort, ceiling: Mapping[str, float]) -> str:
    """A row per organ and one for all, with the observers' DSC, where known, before the system's."""
    observers = ["observers’ DSC"] if ceiling else []
    head = _head(["Organ"], ["cases", "missed", *observers, *(words for _, words, _ in _METRICS)])
    rows = [_means_row(cohort, organ, ceiling) for organ in (*cohort.organs, None)]
    return section(f"Means: {cohort.system}" if len(cohort.cases) > 1 else "Scores", f"{head}{''.join(rows)}")


def cases_table(cohort: Cohort) -> str:
    """A row per case, the worst first; nothing for a single one."""
    if len(cohort.cases) < 2:
        return ""
    head = _head(["Case", "worst organ"], ["organs", "missed", "mean DSC", "mean HD95 mm"])
    means = {case: scores.mean() for case, scores in cohort.cases}
    rows = []
    for case, scores in sorted(cohort.cases, key=lambda item: means[item[0]]["dsc"]):
        scored = [row for row in scores.organs if row.scored]
        worst = min(scored, key=lambda row: row.dsc, default=None)
        mean = means[case]
        numbers = [f"{mean['organs_scored']:.0f}", f"{mean['organs_missed']:.0f}"]
        numbers += [cell(mean["dsc"], "{:.3f}"), cell(mean["hd95_mm"], "{:.2f}")]
        rows.append(_row([case, f"{worst.organ}, DSC {worst.dsc:.2f}" if worst else "–"], numbers))
    return section(f"Cases: {cohort.system}", f"{head}{''.join(rows)}")


def extra_table(cohort: Cohort) -> str:
    """What the prediction has where the reference lacks the organ; nothing if there is no such thing."""
    extra = cohort.extra_ml
    if not extra:
        return ""
    rows = [_row([organ], [str(len(ml)), f"{sum(ml):.2f}"]) for organ, ml in extra.items()]
    words = "<p>Predicted, but absent from the reference: not scored.</p>"
    return section("Without a reference", _head(["Organ"], ["cases", "mL in all"]) + "".join(rows), words)


def comparison(cohorts: Sequence[Cohort]) -> str:
    """The ranking, and the first system's paired tests against each other one; nothing for a single system."""
    first, *others = cohorts
    tests = [
        _tests(f"{words}: {first.system} − {other.system}", form, paired_tests(first, other, metric))
        for other in others
        for metric, words, form in _TESTED
    ]
    return _ranking(challenge_ranking(cohorts)) + "".join(tests) if others else ""


def volumes_table(cohort: Cohort) -> str:
    """Bias and limits of agreement per organ; nothing for a single case."""
    if len(cohort.cases) < 2:
        return ""
    rows = []
    for organ in cohort.organs:
        scored = [row for _, row, _ in cohort.rows(organ) if row.scored]
        limits = bland_altman([row.prediction_ml for row in scored], [row.reference_ml for row in scored])
        rows.append(_row([organ], [str(len(scored)), *(cell(value, "{:+.2f}") for value in limits)]))
    head = _head(["Organ"], ["cases", "bias mL", "lower limit mL", "upper limit mL"])
    return section("Limits of agreement", f"{head}{''.join(rows)}")


def section(title: str, rows: str, words: str = "") -> str:
    """A section with a table."""
    return f"<section><h2>{escape(title)}</h2>{words}<table>{rows}</table></section>"


def cell(value: float, form: str) -> str:
    """A number as text, a dash for none."""
    return form.format(value) if isfinite(value) else "–"


def _means_row(cohort: Cohort, organ: str | None, ceiling: Mapping[str, float]) -> str:
    means = cohort.mean(organ)
    cells = [cell(means[name], form) for name, _, form in _METRICS]
    counts = [f"{means['organs_scored']:.0f}", f"{means['organs_missed']:.0f}"]
    observers = [cell(ceiling.get(organ or "", float("nan")), "{:.2f}")] if ceiling else []
    return _row([organ or "all"], [*counts, *observers, *cells])


def _ranking(ranks: Sequence[Rank]) -> str:
    head = _head(["System"], ["place", "wins by DSC", "wins by HD95", "mean DSC", "mean HD95 mm"])
    rows = [
        _row(
            [rank.system],
            [
                str(rank.place),
                str(rank.significance["dsc"]),
                str(rank.significance["hd95_mm"]),
                cell(rank.means["dsc"], "{:.3f}"),
                cell(rank.means["hd95_mm"], "{:.2f}"),
            ],
        )
        for rank in ranks
    ]
    words = (
        "<p>As HaN-Seg 2023 ranks: pairwise Wilcoxon signed-rank tests per metric, then both ranks together. Missed "
        "organs have DSC 0 and HD95 the image diagonal.</p>"
    )
    return section("Ranking", f"{head}{''.join(rows)}", words)


def _tests(title: str, form: str, tests: Sequence[PairedTest]) -> str:
    head = _head(["Organ"], ["cases", "difference", "95 % interval", "p (Wilcoxon)", "p (Holm)"])
    rows = []
    for test in tests:
        interval = f"{cell(test.low, form)} … {cell(test.high, form)}"
        numbers = [str(test.cases), cell(test.difference, form), interval, f"{test.p:.3g}", cell(test.p_holm, "{:.3g}")]
        rows.append(_row([test.organ], numbers))
    return section(title, f"{head}{''.join(rows)}")


def _head(texts: Iterable[str], numbers: Iterable[str]) -> str:
    return f"<thead><tr>{_cells('th', texts, numbers)}</tr></thead>"


def _row(texts: Iterable[str], numbers: Iterable[str]) -> str:
    return f"<tr>{_cells('td', texts, numbers)}</tr>"


def _cells(tag: str, texts: Iterable[str], numbers: Iterable[str]) -> str:
    left = "".join(f'<{tag} class="text">{escape(text)}</{tag}>' for text in texts)
    return left + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in numbers)
