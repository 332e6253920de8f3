"""The page of a curated cohort: verdicts to sort, balance, grey values, and every case in pictures; a CSV beside it."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from hnseg.curation.cohort import CuratedCohort
from hnseg.curation.record import CaseRecord
from hnseg.image.files import atomic_write
from hnseg.organs import ORGANS
from hnseg.reporting.curation_pictures import FUSION_PICTURE, ORGANS_PICTURE
from hnseg.reporting.curation_plots import imbalance_plot, intensity_plot
from hnseg.version import RESEARCH_USE, __version__

PAGE, TABLE = "report.html", "report.csv"

_KIND = {"good": "good", "doubtful": "doubt", "failed": "bad"}
_COLUMNS = (
    "case", "verdict", "MR", "registration", "MR covers", "organs", "ignored", "overlaps mL", "size", "spacing mm",
    "split", "remarks",
)  # fmt: skip
_TEXT_COLUMNS = (0, 1, 2, 3, 11)


def write_cohort_report(folder: Path, cohort: CuratedCohort) -> Path:
    """Write ``report.html`` and ``report.csv`` beside ``cases``; returns the page. Raises ``OutputError``."""
    for name, text in ((TABLE, cohort_csv(cohort)), (PAGE, curation_page(cohort, folder))):
        with atomic_write(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / PAGE


def cohort_csv(cohort: CuratedCohort) -> str:
    """A row per case, failed ones included, then a volume (mL) per organ; empty where the case lacks it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, *(f"{organ.name} mL" for organ in ORGANS)])
    for case in cohort.cases:
        volumes = [case.volumes_ml.get(organ.name, "") for organ in ORGANS]
        writer.writerow([*_cells(case, cohort), *volumes])
    for name, reason in cohort.failed.items():
        writer.writerow([name, "failed", *[""] * 9, reason])
    return text.getvalue()


def curation_page(cohort: CuratedCohort, folder: Path) -> str:
    """The whole document; pictures are taken from the cases' folders, everything else is inside."""
    sections = [
        _cards(cohort),
        _warnings(cohort),
        _table(cohort),
        _figure("Class balance", imbalance_plot(cohort), "Red: some cases lack the organ. Green: published range."),
        _figure(
            "Grey values", intensity_plot(cohort), "One line per case. Nyúl's scale is fitted on the training cases."
        ),
        _overlaps(cohort),
        *(_case(case, folder) for case in cohort.cases),
    ]
    script = files("hnseg.reporting").joinpath("sortable.js").read_text(encoding="utf-8")
    return _PAGE.format(
        style=files("hnseg.reporting").joinpath("report.css").read_text(encoding="utf-8"),
        title=escape(f"{cohort.layout}: {len(cohort.cases)} curated case{'s' * (len(cohort.cases) != 1)}"),
        version=__version__,
        notice=escape(RESEARCH_USE),
        body="\n".join(section for section in sections if section),
        script=script,
    )


def _cards(cohort: CuratedCohort) -> str:
    doubtful = sum(case.status == "doubtful" for case in cohort.cases)
    with_mr = sum(case.mr is not None for case in cohort.cases)
    overlapping = sum(conflict.ml for case in cohort.cases for conflict in case.conflicts)
    cards = (
        (str(len(cohort.cases) - doubtful), "good cases", "good"),
        (str(doubtful), "doubtful: look at them first", "doubt" if doubtful else "good"),
        (str(len(cohort.failed)), "failed and left out", "bad" if cohort.failed else "good"),
        (f"{with_mr} of {len(cohort.cases)}", "with an MR on the CT", ""),
        (f"{overlapping:.1f} mL", "claimed by two masks", ""),
        (f"{len(cohort.splits.train)} + {len(cohort.splits.test)}", f"train + test, seed {cohort.splits.seed}", ""),
    )
    items = "".join(
        f'<div class="card"><b class="{kind}">{value}</b><span>{words}</span></div>' for value, words, kind in cards
    )
    return f'<div class="cards">{items}</div>'


def _warnings(cohort: CuratedCohort) -> str:
    sentences = [*(f"{name} failed: {reason}" for name, reason in cohort.failed.items()), *cohort.notes]
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<section class="warnings"><h2>Read this first</h2><ul>{items}</ul></section>'


def _table(cohort: CuratedCohort) -> str:
    head = "".join(f"<th{_text_class(n)}>{escape(column)}</th>" for n, column in enumerate(_COLUMNS))
    rows = [_row(_cells(case, cohort), case.status, f"#{case.name}") for case in cohort.cases]
    rows += [_row([name, "failed", *[""] * 9, reason], "failed", "") for name, reason in cohort.failed.items()]
    words = "<p>Click a heading to sort.</p>"
    table = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<section><h2>Cases</h2>{words}<div style="overflow-x:auto">{table}</div></section>'


def _cells(case: CaseRecord, cohort: CuratedCohort) -> list[str]:
    alignment, size = case.alignment, case.grid.size_ijk
    words = "" if alignment is None else alignment.verdict + (f", {alignment.overruled}" if alignment.overruled else "")
    return [
        case.name,
        case.status,
        "yes" if case.mr else "no",
        words,
        f"{case.mr.coverage:.0%}" if case.mr else "",
        str(len(case.annotated)),
        str(len(case.ignored)),
        f"{sum(conflict.ml for conflict in case.conflicts):.2f}",
        "×".join(map(str, size)),
        "×".join(f"{mm:.3g}" for mm in case.grid.spacing_mm),
        _split_of(case.name, cohort),
        str(len(case.remarks)),
    ]


def _split_of(name: str, cohort: CuratedCohort) -> str:
    if name in cohort.splits.test:
        return "test"
    folds = [n for n, fold in enumerate(cohort.splits.folds) if name in fold.validation]
    return f"fold {folds[0]}" if folds else "train"


def _row(cells: Iterable[str], status: str, link: str) -> str:
    name, _, *others = (escape(cell) for cell in cells)
    shown = f'<a href="{escape(link)}">{name}</a>' if link else name
    verdict = f'<b class="{_KIND[status]}">{status}</b>'
    return (
        "<tr>"
        + "".join(f"<td{_text_class(n)}>{cell}</td>" for n, cell in enumerate([shown, verdict, *others]))
        + "</tr>"
    )


def _text_class(column: int) -> str:
    return ' class="text"' if column in _TEXT_COLUMNS else ""


def _figure(title: str, picture: bytes, caption: str) -> str:
    source = f"data:image/svg+xml;base64,{base64.b64encode(picture).decode()}"
    image = f'<img style="background:#fff" src="{source}" alt="{escape(title)}">'
    words = f"<figcaption>{escape(caption)}</figcaption>"
    return f"<section><h2>{escape(title)}</h2><figure>{image}{words}</figure></section>"


def _overlaps(cohort: CuratedCohort) -> str:
    totals: dict[tuple[str, str, str], list[float]] = {}
    for conflict in (conflict for case in cohort.cases for conflict in case.conflicts):
        totals.setdefault((conflict.winner, conflict.loser, conflict.reason), []).append(conflict.ml)
    if not totals:
        return ""
    rows = "".join(
        f'<tr><td class="text">{escape(winner)}</td><td class="text">{escape(loser)}</td><td>{len(amounts)}</td>'
        f'<td>{sum(amounts) / len(amounts):.3f}</td><td class="text">{escape(reason)}</td></tr>'
        for (winner, loser, reason), amounts in sorted(totals.items(), key=lambda item: -sum(item[1]))
    )
    texts, numbers = ('<th class="text">Kept by</th><th class="text">Claimed by</th>', "<th>cases</th><th>mean mL</th>")
    head = f'<thead><tr>{texts}{numbers}<th class="text">Why</th></tr></thead>'
    table = f'<table class="sortable">{head}<tbody>{rows}</tbody></table>'
    return f"<section><h2>Overlapping masks</h2>{table}</section>"


def _case(case: CaseRecord, folder: Path) -> str:
    place = f"cases/{case.name}"
    shown = [
        (ORGANS_PICTURE, "Slices with the most organs."),
        (FUSION_PICTURE, "CT and MR in turn, squares of 25 mm; edges should run through."),
    ]
    figures = "".join(
        f'<figure><img loading="lazy" src="{quote(place)}/{name}" alt="{escape(case.name)}">'
        f"<figcaption>{words}</figcaption></figure>"
        for name, words in shown
        if (folder / place / name).exists()
    )
    remarks = "".join(f"<li>{escape(remark.text)}</li>" for remark in case.remarks)
    reason = f"<p>Registration: {escape(case.alignment.reason)}</p>" if case.alignment else ""
    heading = f'<h2>{escape(case.name)} <small class="{_KIND[case.status]}">{case.status}</small></h2>'
    return f'<section id="{escape(case.name)}">{heading}{reason}{figures}<ul>{remarks}</ul></section>'


_PAGE = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>HNSeg curation</title><style>{style}</style></head>
<body>
<header><h1>{title}</h1><p>HNSeg {version}, curation</p></header>
<div class="notice">{notice}</div>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""
