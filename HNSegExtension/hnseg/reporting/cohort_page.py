"""The page of an evaluation: what a cohort scored, where it went wrong, and how systems compare."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from math import isfinite

from hnseg.evaluation.cohort import Cohort
from hnseg.evaluation.statistics import PairedTest, Rank, bland_altman, challenge_ranking, paired_tests
from hnseg.reporting.cohort_plots import bland_altman_plot, box_plot
from hnseg.version import RESEARCH_USE, __version__

PictureOf = Callable[[str, str], bytes | None]
"""Case and organ → PNG of the disagreement, or None if it cannot be shown."""

_TABLE = (
    ("dsc", "DSC", "{:.3f}"), ("surface_dsc", "surface DSC", "{:.3f}"), ("hd95_mm", "HD95 mm", "{:.2f}"),
    ("hd95_penalised_mm", "HD95 mm, missed = diagonal", "{:.2f}"), ("mean_surface_distance_mm", "mean mm", "{:.2f}"),
    ("added_path_length_mm", "added path mm", "{:.0f}"), ("volume_error", "volume error", "{:+.1%}"),
    ("centroid_shift_mm", "centroid mm", "{:.1f}"), ("z_restricted_dsc", "DSC within z", "{:.3f}"),
)  # fmt: skip
_TESTED = (("dsc", "DSC"), ("hd95_mm", "HD95, mm"))


def cohort_page(
    cohorts: Sequence[Cohort], *, ceiling: Mapping[str, float], picture_of: PictureOf = lambda case, organ: None
) -> str:
    """The whole document, self-contained; the first cohort is the system in question, others are compared with it."""
    first = cohorts[0]
    sections = [
        _cards(first),
        _warnings(cohorts),
        _figure("DSC", box_plot(cohorts, "dsc", "DSC", ceiling=ceiling), _CEILING_WORDS),
        _figure("HD95", box_plot(cohorts, "hd95_mm", "HD95, mm"), "Missed organs have no HD95; see the table."),
        *(_table(cohort) for cohort in cohorts),
        _comparison(cohorts) if len(cohorts) > 1 else "",
        _worst(first, picture_of),
        _figure("Volumes: Bland–Altman", bland_altman_plot(first), "Line: bias. Dashes: limits of agreement, 1.96 SD."),
        _volumes(first),
        _definitions(first),
    ]
    return _PAGE.format(
        style=files("hnseg.reporting").joinpath("report.css").read_text(encoding="utf-8"),
        title=escape(f"{first.system}: {len(first.cases)} cases"),
        version=__version__,
        notice=escape(RESEARCH_USE),
        body="\n".join(section for section in sections if section),
    )


_CEILING_WORDS = "A dot per case. Black bars: agreement between observers, the honest ceiling."


def _cards(cohort: Cohort) -> str:
    means = cohort.mean()
    cards = (
        (f"{means['dsc']:.3f}", "mean DSC"),
        (f"{means['hd95_mm']:.2f} mm", "mean HD95 of organs found"),
        (f"{means['hd95_penalised_mm']:.2f} mm", "with the image diagonal for missed ones"),
        (f"{means['organs_missed']:.0f} of {means['organs_scored']:.0f}", "organs missed"),
        (f"{means['false_positive_ml']:.1f} mL", "outside the references"),
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


def _table(cohort: Cohort) -> str:
    head = _head(["Organ"], ["cases", "missed", *(words for _, words, _ in _TABLE)])
    rows = [_table_row(cohort, organ) for organ in cohort.organs]
    return _section(f"Means: {cohort.system}", f"{head}{''.join(rows)}{_table_row(cohort, None)}")


def _table_row(cohort: Cohort, organ: str | None) -> str:
    means = cohort.mean(organ)
    cells = [_cell(means[name], form) for name, _, form in _TABLE]
    counts = [f"{means['organs_scored']:.0f}", f"{means['organs_missed']:.0f}"]
    return _row([organ or "all"], [*counts, *cells])


def _comparison(cohorts: Sequence[Cohort]) -> str:
    first, *others = cohorts
    tests = [
        _tests(first, other, words, paired_tests(first, other, metric)) for other in others for metric, words in _TESTED
    ]
    return _ranking(challenge_ranking(cohorts)) + "".join(tests)


def _ranking(ranks: Sequence[Rank]) -> str:
    head = _head(["System"], ["place", "wins by DSC", "wins by HD95", "mean DSC", "mean HD95 mm"])
    rows = [
        _row(
            [rank.system],
            [
                str(rank.place),
                str(rank.significance["dsc"]),
                str(rank.significance["hd95_mm"]),
                _cell(rank.means["dsc"], "{:.3f}"),
                _cell(rank.means["hd95_mm"], "{:.2f}"),
            ],
        )
        for rank in ranks
    ]
    words = "<p>As HaN-Seg 2023 ranks: pairwise Wilcoxon signed-rank tests per metric, then both ranks together.</p>"
    return _section("Ranking", f"{head}{''.join(rows)}", words)


def _tests(first: Cohort, other: Cohort, words: str, tests: Sequence[PairedTest]) -> str:
    head = _head(["Organ"], ["cases", "difference", "95 % interval", "p (Wilcoxon)", "p (Holm)"])
    rows = [
        _row(
            [test.organ],
            [
                str(test.cases),
                f"{test.difference:+.3f}",
                f"{_cell(test.low, '{:+.3f}')} … {_cell(test.high, '{:+.3f}')}",
                f"{test.p:.3g}",
                _cell(test.p_holm, "{:.3g}"),
            ],
        )
        for test in tests
    ]
    return _section(f"{words}: {first.system} − {other.system}", f"{head}{''.join(rows)}")


def _worst(cohort: Cohort, picture_of: PictureOf) -> str:
    parts = []
    for case, row in cohort.worst():
        picture = picture_of(case, row.organ)
        if picture is not None:
            words = f"{case}, {row.organ}: DSC {row.dsc:.2f}, HD95 {_cell(row.hd95_mm, '{:.1f} mm')}"
            source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
            image = f'<img src="{source}" alt="{escape(words)}" style="max-width:980px">'
            parts.append(f"<figure>{image}<figcaption>{escape(words)}</figcaption></figure>")
    words = "<p>Reference green, prediction red, both yellow; the slices in which they differ most.</p>"
    return f"<section><h2>Worst cases</h2>{words}{''.join(parts)}</section>" if parts else ""


def _volumes(cohort: Cohort) -> str:
    head = _head(["Organ"], ["bias mL", "lower limit mL", "upper limit mL"])
    rows = []
    for organ in cohort.organs:
        scored = [row for _, row, _ in cohort.rows(organ) if row.scored]
        limits = bland_altman([row.prediction_ml for row in scored], [row.reference_ml for row in scored])
        rows.append(_row([organ], [_cell(value, "{:+.2f}") for value in limits]))
    return _section("Limits of agreement", f"{head}{''.join(rows)}")


def _definitions(cohort: Cohort) -> str:
    tolerance = cohort.cases[0][1].tolerance_mm
    return (
        "<section><h2>Definitions</h2><p>Distances run between surface elements weighted by their area (Nikolov et "
        f"al. 2018); the surface DSC's tolerance is {tolerance:g} mm. A reference that is absent is not scored. A "
        "prediction that is absent has DSC 0 and no HD95; the penalised mean takes the image diagonal for it. DSC "
        "within z compares only the slices that the reference has, for organs whose ends a protocol sets.</p></section>"
    )


def _section(title: str, rows: str, words: str = "") -> str:
    return f"<section><h2>{escape(title)}</h2>{words}<table>{rows}</table></section>"


def _head(texts: Iterable[str], numbers: Iterable[str]) -> str:
    return f"<thead><tr>{_cells('th', texts, numbers)}</tr></thead>"


def _row(texts: Iterable[str], numbers: Iterable[str]) -> str:
    return f"<tr>{_cells('td', texts, numbers)}</tr>"


def _cells(tag: str, texts: Iterable[str], numbers: Iterable[str]) -> str:
    left = "".join(f'<{tag} class="text">{escape(text)}</{tag}>' for text in texts)
    return left + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in numbers)


def _cell(value: float, form: str) -> str:
    return form.format(value) if isfinite(value) else "–"


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
