"""The report's HTML: one page that needs no network, for a screen and for paper."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from hnseg.organs import BY_NAME
from hnseg.reporting.record import ImageRecord, OrganRecord, RunRecord, ScoreRecord
from hnseg.terminology import taught_words

Figure = tuple[str, str]
"""File name of a picture, and its caption."""

_STATUS = {"ok": "found", "check": "check", "absent": "not found", "not trained": "not trained"}
_SCRIPTS = ("slices.js", "surfaces.js", "viewer.js")
_VERDICT = {"good": "good", "doubtful": "doubt", "failed": "bad"}


def page(record: RunRecord, figures: Mapping[str, Sequence[Figure]], viewer: Mapping[str, Any]) -> str:
    """The whole document. ``figures``: by the section that shows them: slices, fusion, surfaces."""
    sections = (
        _cards(record),
        _warnings(record),
        _viewer(viewer),
        _figures("Slices", figures.get("slices", ())),
        _fusion(record, figures.get("fusion", ())),
        _figures("Surfaces", figures.get("surfaces", ())),
        _organs(record),
        _provenance(record),
    )
    return _PAGE.format(
        title="HNSeg report",
        created=escape(record.created.replace("T", " ").replace("+00:00", " UTC")),
        model=escape(f"{record.model.name} {record.model.version}"),
        notice=escape(record.notice),
        style=_asset("report.css"),
        body="\n".join(section for section in sections if section),
        data=_safe_json({name: value for name, value in viewer.items() if name != "sheets"}),
        script="\n".join(_asset(name) for name in _SCRIPTS),
    )


def _asset(name: str) -> str:
    return files("hnseg.reporting").joinpath(name).read_text(encoding="utf-8")


def _safe_json(data: Any) -> str:
    """JSON that cannot end the script element that holds it."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _cards(record: RunRecord) -> str:
    found = [organ for organ in record.organs if organ.volume_ml > 0]
    doubts = sum(organ.status == "check" for organ in record.organs)
    cards = [
        _card(f"{len(found)} of {len(record.organs)}", "organs found"),
        _card(str(doubts), "organs to check first", "doubt" if doubts else "good"),
        _card(str(len(record.warnings)), "warnings", "doubt" if record.warnings else "good"),
        _registration_card(record),
        _card(f"{sum(record.seconds.values()):.0f} s", f"on {record.device}"),
    ]
    dsc = [score.dsc for score in record.scores if score.dsc is not None]
    if dsc:
        cards.append(_card(f"{sum(dsc) / len(dsc):.3f}", "mean DSC against the reference"))
    return f'<div class="cards">{"".join(cards)}</div>'


def _registration_card(record: RunRecord) -> str:
    if record.registration is None:
        return _card("CT + MR" if "mr" in record.inputs else "CT only", "images used")
    kind = _VERDICT.get(record.registration.verdict, "doubt")
    return _card(record.registration.verdict, "MR registration", kind)


def _card(value: str, words: str, kind: str = "") -> str:
    return f'<div class="card"><b class="{kind}">{escape(value)}</b><span>{escape(words)}</span></div>'


def _warnings(record: RunRecord) -> str:
    if not record.warnings:
        return ""
    return f'<section class="warnings"><h2>Read this first</h2>{_list(record.warnings)}</section>'


def _list(sentences: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _figures(title: str, figures: Sequence[Figure]) -> str:
    return f"<section><h2>{escape(title)}</h2>{_images(figures)}</section>" if figures else ""


def _images(figures: Sequence[Figure]) -> str:
    return "".join(
        f'<figure><img src="{escape(source)}" alt="{escape(text)}"><figcaption>{escape(text)}</figcaption></figure>'
        for source, text in figures
    )


def _fusion(record: RunRecord, figures: Sequence[Figure]) -> str:
    registration = record.registration
    if registration is None and not figures:
        return ""
    words = ""
    if registration is not None:
        kind = _VERDICT.get(registration.verdict, "doubt")
        used = "The MR was used." if registration.used else "The MR was NOT used: the result comes from the CT alone."
        metrics = ", ".join(f"{escape(name)} {value:.3g}" for name, value in registration.metrics.items())
        words = (
            f'<p>Verdict: <b class="{kind}">{escape(registration.verdict)}</b>. {escape(registration.reason)} {used}'
            f" <small>{metrics}</small></p>"
        )
    return f"<section><h2>MR on CT</h2>{words}{_images(figures)}</section>"


def _organs(record: RunRecord) -> str:
    scores = {score.name: score for score in record.scores}
    columns = [
        "Volume",
        "Published range",
        "Expected DSC",
        "Confidence",
        "At its boundary",
        *(["DSC", "HD95"] if scores else []),
    ]
    head = "".join(f"<th>{name}</th>" for name in columns)
    rows = "".join(_organ_row(organ, scores) for organ in record.organs)
    return (
        '<section><h2>Organs</h2><table><thead><tr><th class="text">Organ</th><th class="text">Status</th>'
        '<th class="text">Learnt from</th>'
        f'{head}<th class="text">Notes</th></tr></thead><tbody>{rows}</tbody></table>'
        "<p><small>Expected DSC: the agreement with an expert that organs of such confidence had in cases that the "
        "model was not trained on; none for organs that no patient showed to the model.</small></p></section>"
    )


def _organ_row(organ: OrganRecord, scores: Mapping[str, ScoreRecord]) -> str:
    row = BY_NAME[organ.name]
    kind = {"ok": "", "check": "check"}.get(organ.status, "absent")
    cells = [
        f'<td class="text"><span class="swatch" style="background:rgb{row.rgb}"></span>{_link(organ)} '
        f"<small>{escape(row.english)}</small></td>",
        f'<td class="text"><span class="tag {kind}">{_STATUS[organ.status]}</span></td>',
        f'<td class="text">{_taught(organ)}</td>',
        f"<td>{organ.volume_ml:.2f} mL</td><td>{_range_bar(organ)}</td>",
        f"<td>{_number(organ.expected_dsc, 2)}</td>",
        f"<td>{_number(organ.confidence, 2)}</td><td>{_number(organ.boundary_confidence, 2)}</td>",
    ]
    if scores:
        score = scores.get(organ.name, ScoreRecord(organ.name, None, None))
        cells.append(f"<td>{_number(score.dsc, 3)}</td><td>{_number(score.hd95_mm, 1, ' mm')}</td>")
    cells.append(f'<td class="text"><small>{escape(" ".join(organ.notes))}</small></td>')
    return f'<tr class="{kind}">{"".join(cells)}</tr>'


def _taught(organ: OrganRecord) -> str:
    """What showed the organ to the model; phantoms alone stand out."""
    words = taught_words(organ.taught_by)
    return words if "patient" in organ.taught_by or not words else f'<span class="tag check">{words}</span>'


def _link(organ: OrganRecord) -> str:
    """The organ's name; one that was found leads to its place in the viewer."""
    return f'<a href="#viewer" data-label="{organ.label}">{organ.name}</a>' if organ.volume_ml > 0 else organ.name


def _range_bar(organ: OrganRecord) -> str:
    """The published range as a bar from 0 to half as much again, the organ's volume as a mark on it."""
    low, high = organ.range_ml
    full = 1.5 * high
    mark = min(organ.volume_ml / full, 1.0)
    return (
        f'<div class="range" title="{low:g} to {high:g} mL">'
        f'<i style="left:{low / full:.1%};width:{(high - low) / full:.1%}"></i><u style="left:{mark:.1%}"></u></div>'
    )


def _number(value: float | None, digits: int, unit: str = "") -> str:
    return "–" if value is None else f"{value:.{digits}f}{unit}"


def _provenance(record: RunRecord) -> str:
    model = record.model
    images = {role: _image(image) for role, image in record.inputs.items()}
    rows = {
        "Model": f"{model.name} {model.version}, {model.licence}, SHA-256 {model.sha256[:16]}…",
        "Trained on": model.training_data,
        **{role.upper(): text for role, text in images.items()},
        "Device": record.device,
        "Seconds": ", ".join(f"{name} {value:.1f}" for name, value in record.seconds.items()),
        "Versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "Options": ", ".join(f"{name} {value}" for name, value in record.options.items() if value) or "defaults",
    }
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows.items())
    return f"<section><h2>Provenance</h2><dl>{terms}</dl>{_removals(record)}</section>"


def _image(image: ImageRecord) -> str:
    size, spacing = (" × ".join(f"{n:.4g}" for n in triple) for triple in (image.size_ijk, image.spacing_mm))
    return f"{image.path} ({size} at {spacing} mm)"


def _removals(record: RunRecord) -> str:
    if not record.removals:
        return ""
    sentences = (f"{entry.organ}: {entry.volume_ml:.2f} mL, {entry.reason}" for entry in record.removals)
    return f"<h3>Changed by post-processing</h3>{_list(sentences)}"


def _viewer(viewer: Mapping[str, Any]) -> str:
    sheets: Mapping[str, str] = viewer.get("sheets", {})
    if not sheets:
        return ""
    pictures = "".join(f'<img id="sheet-{name}" src="{source}" alt="" hidden>' for name, source in sheets.items())
    windows = "".join(f"<option>{escape(name)}</option>" for name in viewer["windows_hu"])
    parts = {"@SHEETS@": pictures, "@WINDOWS@": windows, "@BLEND@": _BLEND if "mr" in sheets else ""}
    return re.sub("@[A-Z]+@", lambda mark: parts[mark[0]], _VIEWER)


_BLEND = """<label>CT ↔ MR <input id="blend" type="range" min="0" max="100" value="0"></label>
<label>in squares <input id="squares" type="checkbox"></label>"""

_VIEWER = """<section id="viewer"><h2>Look around <small id="place"></small></h2><div class="bench">
<div class="pane"><canvas id="axial" tabindex="0"></canvas>
<b class="l">R</b><b class="r">L</b><b class="t">A</b><b class="b">P</b></div>
<div class="pane"><canvas id="solid" tabindex="0"></canvas>
<p>This browser draws no WebGL; the pictures below, under Surfaces, show the same.</p></div>
<div class="pane"><canvas id="coronal" tabindex="0"></canvas>
<b class="l">R</b><b class="r">L</b><b class="t">S</b><b class="b">I</b></div>
<div class="pane"><canvas id="sagittal" tabindex="0"></canvas>
<b class="l">A</b><b class="r">P</b><b class="t">S</b><b class="b">I</b></div>
<aside><label>Window <select id="window">@WINDOWS@</select></label>
<label>Organs <input id="strength" type="range" min="0" max="100" value="70"></label>@BLEND@
<label>Skin <input id="skin" type="range" min="0" max="100" value="60"></label>
<div><button id="all">all</button> <button id="none">none</button> <button id="doubts">to check</button></div>
<ol id="organs"></ol></aside></div>@SHEETS@
<p class="hint">Slices: click or drag to look elsewhere, then wheel or arrow keys for the next one. Surfaces: drag to
turn, then wheel to zoom. Organs: click a colour to show or hide, a name to go there; a dot marks those to check.</p>
<noscript>The viewer needs JavaScript; the pictures below do not.</noscript></section>"""

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head><body>
<header><h1>Organs at risk, head and neck</h1><p>HNSeg report · {created} · model {model}</p></header>
<div class="notice">{notice}</div><main>
{body}
<footer>Pictures follow the radiological convention: the patient's left is on the right. Coordinates: LPS mm.</footer>
</main><script type="application/json" id="viewer-data">{data}</script><script>{script}</script></body></html>
"""
