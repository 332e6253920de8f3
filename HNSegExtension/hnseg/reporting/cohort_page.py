"""The page of an evaluation: what a cohort scored, where it went wrong, and how systems compare."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files

from hnseg.evaluation.cohort import Cohort
from hnseg.reporting.cohort_plots import bland_altman_plot, box_plot
from hnseg.reporting.cohort_tables import cases_table, cell, comparison, extra_table, means_table, volumes_table
from hnseg.version import RESEARCH_USE, __version__

PictureOf = Callable[[str, str], bytes | None]
"""Case and organ → PNG of the disagreement, or None if it cannot be shown."""

_CEILING_WORDS = "A dot per case. Black bars: agreement between observers, the honest ceiling."
_MISSED_WORDS = "Missed organs have no HD95; the table says how many there are."
_VOLUME_WORDS = "First panel: every organ, in percent. Line: bias. Dashes: limits of agreement, 1.96 SD."


def cohort_page(
    cohorts: Sequence[Cohort], *, ceiling: Mapping[str, float], picture_of: PictureOf = lambda case, organ: None
) -> str:
    """The whole document, self-contained; the first cohort is the system in question, others are compared with it."""
    first = cohorts[0]
    sections = [
        _cards(first),
        _warnings(cohorts),
        _figure("DSC", box_plot(cohorts, "dsc", "DSC", ceiling=ceiling), _CEILING_WORDS),
        _figure("HD95", box_plot(cohorts, "hd95_mm", "HD95, mm"), _MISSED_WORDS),
        *(means_table(cohort, ceiling) for cohort in cohorts),
        comparison(cohorts),
        cases_table(first),
        _worst(first, picture_of),
        extra_table(first),
        _figure("Volumes: Bland–Altman", bland_altman_plot(first), _VOLUME_WORDS),
        volumes_table(first),
        _definitions(first),
    ]
    return _PAGE.format(
        style=files("hnseg.reporting").joinpath("report.css").read_text(encoding="utf-8"),
        title=escape(_title(first)),
        version=__version__,
        notice=escape(RESEARCH_USE),
        body="\n".join(section for section in sections if section),
    )


def _title(cohort: Cohort) -> str:
    many = len(cohort.cases)
    return f"{cohort.system}: {many} cases" if many > 1 else f"{cohort.system} against {cohort.cases[0][0]}"


def _cards(cohort: Cohort) -> str:
    means = cohort.mean()
    cards = (
        (cell(means["dsc"], "{:.3f}"), "mean DSC"),
        (cell(means["surface_dsc"], "{:.3f}"), f"surface DSC at {cohort.cases[0][1].tolerance_mm:g} mm"),
        (cell(means["hd95_mm"], "{:.2f} mm"), "mean HD95 of organs found"),
        (cell(means["hd95_penalised_mm"], "{:.2f} mm"), "with the image diagonal for missed ones"),
        (f"{means['organs_missed']:.0f} of {means['organs_scored']:.0f}", "organs missed"),
        (f"{means['false_positive_ml']:.1f} mL", "of organs that the reference lacks"),
    )
    items = "".join(f'<div class="card"><b>{value}</b><span>{words}</span></div>' for value, words in cards)
    return f'<div class="cards">{items}</div>'


def _warnings(cohorts: Sequence[Cohort]) -> str:
    sentences = [
        f"{cohort.system}, {warning}" if len(cohorts) > 1 else warning
        for cohort in cohorts
        for warning in cohort.warnings
    ]
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<section class="warnings"><h2>Read this first</h2><ul>{items}</ul></section>'


def _figure(title: str, svg: bytes, caption: str) -> str:
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    image = f'<img style="background:#fff" src="{source}" alt="{escape(title)}">'
    words = f"<figcaption>{escape(caption)}</figcaption>"
    return f"<section><h2>{escape(title)}</h2><figure>{image}{words}</figure></section>"


def _worst(cohort: Cohort, picture_of: PictureOf) -> str:
    parts = []
    for case, row in cohort.worst():
        picture = picture_of(case, row.organ)
        if picture is not None:
            found = "missed" if row.missed else f"DSC {row.dsc:.2f}, HD95 {cell(row.hd95_mm, '{:.1f} mm')}"
            words = f"{case}, {row.organ}: {found}"
            source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
            image = f'<img src="{source}" alt="{escape(words)}">'
            parts.append(f"<figure>{image}<figcaption>{escape(words)}</figcaption></figure>")
    words = "<p>Reference green, prediction red, both yellow; the slices in which they differ most.</p>"
    pictures = f'<div class="pair">{"".join(parts)}</div>'
    return f"<section><h2>Worst cases</h2>{words}{pictures}</section>" if parts else ""


def _definitions(cohort: Cohort) -> str:
    tolerance = cohort.cases[0][1].tolerance_mm
    return (
        "<section><h2>Definitions</h2><p>Distances run between surface elements weighted by their area (Nikolov et "
        f"al. 2018); the surface DSC's tolerance is {tolerance:g} mm. A reference that is absent is not scored. A "
        "prediction that is absent has DSC 0 and no HD95; the penalised mean takes the image diagonal for it. DSC "
        "within z compares only the slices that the reference has, for organs whose ends a protocol sets.</p></section>"
    )


_PAGE = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>HNSeg evaluation</title><style>{style}</style></head>
<body>
<header><h1>{title}</h1><p>HNSeg {version}, evaluation</p></header>
<div class="notice">{notice}</div>
<main>
{body}
</main>
</body>
</html>
"""
