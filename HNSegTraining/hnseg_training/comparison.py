"""Systems against each other: intervals, paired tests, figures, and one table for the documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

import numpy as np

from hnseg.errors import InputError
from hnseg.evaluation.cohort import Cohort
from hnseg.evaluation.scores import mean
from hnseg.evaluation.statistics import bootstrap_interval, challenge_ranking, comparison_to_plain, paired_tests
from hnseg.image.files import atomic_write
from hnseg.reporting.cohort_page import cohort_page
from hnseg_training.scores_file import REFUSED

_HEADING = (
    "| system | cases | refused | DSC | 95 % interval | surface DSC | HD95 mm, missed as the image's diagonal | missed "
    "| DSC − first's | p | place |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def compare_systems(systems: Sequence[Mapping[str, Cohort]], output: Path) -> str:
    """Write a page with figures and a JSON per title that all systems share into ``output``; returns the tables.

    ``systems``: the result of ``validate`` of each, the one in question first. Raises ``InputError`` if they share no
    title, or no case of one. Compared are the cases and structures that all systems were scored on. Metrics are the
    mean of the cases' means, intervals are bootstrapped over cases; p is Wilcoxon's signed-rank test of the cases' mean
    DSC against the first system's; places are those of the HaN-Seg challenge's rules.
    """
    shared = [title for title in systems[0] if all(title in system for system in systems)]
    if not shared:
        raise InputError("The systems were validated on different cohorts; give configurations with equal validation.")
    output.mkdir(parents=True, exist_ok=True)
    return "\n\n".join(_compare(title, [system[title] for system in systems], output) for title in shared) + "\n"


def on_shared(title: str, cohorts: Sequence[Cohort]) -> list[Cohort]:
    """The cohorts with the cases and structures that all of them were scored on; ``InputError`` if there are none."""
    scored = [{(case, row.organ) for case, row, _ in cohort.rows() if row.scored} for cohort in cohorts]
    shared = set.intersection(*scored)
    if not shared:
        raise InputError(f"The systems share no scored case of {title!r}; validate them on the same cases.")
    return [_kept(cohort, shared) for cohort in cohorts]


def _kept(cohort: Cohort, shared: Set[tuple[str, str]]) -> Cohort:
    named = {case for case, _ in shared}
    cases = [
        (case, replace(scores, organs=tuple(r for r in scores.organs if not r.scored or (case, r.organ) in shared)))
        for case, scores in cohort.cases
        if case in named
    ]
    return replace(cohort, cases=tuple(cases))


def table(title: str, cohorts: Sequence[Cohort]) -> str:
    """A Markdown table, a row per system; they have the same cases, see ``on_shared``."""
    places = {rank.system: rank.place for rank in challenge_ranking(cohorts)}
    rows = [_row(cohort, cohorts[0], places[cohort.system]) for cohort in cohorts]
    return "\n".join([f"**{title}**", "", _HEADING, *rows])


def _compare(title: str, cohorts: Sequence[Cohort], output: Path) -> str:
    cohorts = on_shared(title, cohorts)
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    with atomic_write(output / f"{name}.html") as page:
        page.write_text(cohort_page(cohorts, ceiling={}), encoding="utf-8")
    with atomic_write(output / f"{name}.json") as plain:
        plain.write_text(json.dumps(comparison_to_plain(cohorts), indent=1))
    return table(title, cohorts)


def _row(cohort: Cohort, first: Cohort, place: int) -> str:
    by_case = [scores.mean() for _, scores in cohort.cases]
    dsc, surface_dsc, hd95_mm = (
        mean(case[metric] for case in by_case) for metric in ("dsc", "surface_dsc", "hd95_penalised_mm")
    )
    low, high = bootstrap_interval([case["dsc"] for case in by_case], np.random.default_rng(0))
    against = ("", "") if cohort is first else _against(cohort, first)
    cells = (
        cohort.system,
        str(len(cohort.cases)),
        str(sum(note.startswith(REFUSED) for note in cohort.notes)),
        f"{dsc:.3f}",
        f"{low:.3f} … {high:.3f}",
        f"{surface_dsc:.3f}",
        f"{hd95_mm:.1f}",
        str(sum(row.missed for _, row, _ in cohort.rows())),
        *against,
        str(place),
    )
    return f"| {' | '.join(cells)} |"


def _against(cohort: Cohort, first: Cohort) -> tuple[str, str]:
    overall = paired_tests(cohort, first, "dsc")[0]
    return f"{overall.difference:+.3f}", f"{overall.p:.3g}"
