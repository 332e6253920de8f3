"""`hnseg evaluate`: a prediction, or a cohort of them, scored against a reference."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hnseg.cli.cases import Case, Pairing
    from hnseg.cli.console import OnProgress
    from hnseg.evaluation.cohort import Cohort
    from hnseg.evaluation.compare import CompareOptions
    from hnseg.evaluation.scores import Scores

_DESCRIPTION = """\
Scores predicted organs against reference organs: DSC, HD95 and more, in mm and mL.

PRED and REF are each a label map with HaN-Seg's labels (.nrrd, .nii.gz, .mha), a .seg.nrrd, an RTSTRUCT, a DICOM SEG, a
folder of HaN-Seg masks (case_XX_OAR_NAME.seg.nrrd), or, both of them, a folder with many cases. Organs are matched by
name, TG-263 alias or code; cases by their number or file name.
"""
_EPILOG = """\
examples:
  hnseg evaluate organs.seg.nrrd truth.seg.nrrd --json scores.json
  hnseg evaluate predictions/ HaN-Seg/set_1/ --csv scores.csv --html report.html
  hnseg evaluate ours/ HaN-Seg/ --name ours --system nnunet=theirs/ --html comparison.html
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evaluate",
        help="score organs against a reference",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("prediction", metavar="PRED", type=Path, help="file or folder")
    add("reference", metavar="REF", type=Path, help="file or folder")
    add("--json", metavar="FILE", type=Path, help="write all scores as JSON")
    add("--csv", metavar="FILE", type=Path, help="write a row per case and organ")
    add("--html", metavar="FILE", type=Path, help="write a page with tables, plots and the worst cases")
    add("--organs", metavar="A,B", default="", help="only these organs, by name or alias")
    add("--tolerance-mm", metavar="MM", type=float, default=2.0, help="of the surface DSC (default 2)")
    add("--series", metavar="DIR", type=Path, help="the DICOM series that an RTSTRUCT was drawn on")
    add("--name", metavar="NAME", default="", help="what the first system is called (default: its folder's name)")
    add("--system", metavar="NAME=PRED", action="append", default=[], help="compare a further system; may be repeated")
    add("--include-partial", action="store_true", help="also score masks that OAR_data.csv marks 0.5 (partial)")
    add("--observers", metavar="JSON", type=Path, help="scores of one observer against another: drawn as the ceiling")
    add("--images", metavar="DIR", type=Path, help="CTs to show behind the worst cases, matched as cases are")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score, write what was asked for, print the means."""
    from hnseg.cli.console import progress, say, say_warnings
    from hnseg.evaluation.compare import CompareOptions

    options = CompareOptions(
        tolerance_mm=args.tolerance_mm, organs=tuple(name.strip() for name in args.organs.split(",") if name.strip())
    )
    work = _plan(args)
    with progress() as on_progress:
        cohorts = _evaluate(work, options, on_progress)
    say_warnings(warning for cohort in cohorts for warning in _warnings(cohort, single=work.single))
    _write(cohorts, work, args)
    say("\n\n".join(_summary(cohort, single=work.single) for cohort in cohorts))
    return 0


@dataclass(frozen=True, slots=True)
class _Work:
    """Per system, its cases; ``single`` if there is one system with one case, given as such."""

    systems: tuple[tuple[str, Pairing], ...]
    single: bool


def _plan(args: argparse.Namespace) -> _Work:
    from hnseg.cli.cases import is_cohort, pair_cases, stem

    named = [(args.name or stem(args.prediction) or "prediction", args.prediction), *map(_named, args.system)]
    options = {"series": args.series, "include_partial": args.include_partial}
    systems = tuple((name, pair_cases(path, args.reference, **options)) for name, path in named)
    return _Work(systems, single=len(systems) == 1 and not is_cohort(args.reference))


def _named(text: str) -> tuple[str, Path]:
    from hnseg.errors import ConfigError

    name, sign, path = text.partition("=")
    if not (name and sign and path):
        raise ConfigError(f"A further system is given as NAME=PRED, got {text!r}; name it.")
    return name, Path(path)


def _evaluate(work: _Work, options: CompareOptions, on_progress: OnProgress) -> tuple[Cohort, ...]:
    from hnseg.evaluation.cohort import Cohort

    total = sum(len(paired.cases) for _, paired in work.systems)
    done = 0
    cohorts = []
    for system, paired in work.systems:
        scored = []
        for case in paired.cases:
            on_progress(done / total, f"Scoring {case.name}")
            scored.append((case.name, _score(case, options)))
            done += 1
        lacking = [f"{case} has no prediction and is in no figure." for case in paired.unpredicted]
        cohorts.append(Cohort(system, tuple(scored), tuple(lacking)))
    on_progress(1.0, "Scored")
    return tuple(cohorts)


def _score(case: Case, options: CompareOptions) -> Scores:
    from hnseg.cli.structures import load_pair
    from hnseg.evaluation.compare import compare

    prediction, reference = load_pair(case.prediction, case.reference, series=case.series)
    scores = compare(prediction.segmentation, reference.segmentation, replace(options, leave_out=case.partial))
    left_out = [f"{organ} is marked partial in OAR_data.csv and was left out." for organ in case.partial]
    return replace(scores, warnings=(*prediction.warnings, *reference.warnings, *left_out, *scores.warnings))


def _warnings(cohort: Cohort, *, single: bool) -> tuple[str, ...]:
    return cohort.cases[0][1].warnings if single else cohort.warnings


def _write(cohorts: Sequence[Cohort], work: _Work, args: argparse.Namespace) -> None:
    from hnseg.evaluation.cohort import to_csv

    if args.json:
        _write_text(args.json, json.dumps(_plain(cohorts, work), indent=2, ensure_ascii=False) + "\n")
    if args.csv:
        _write_text(args.csv, to_csv(cohorts))
    if args.html:
        _write_text(args.html, _page(cohorts, work, args))


def _plain(cohorts: Sequence[Cohort], work: _Work) -> dict[str, Any]:
    from hnseg.evaluation.cohort import to_plain
    from hnseg.evaluation.statistics import comparison_to_plain
    from hnseg.version import RESEARCH_USE, __version__

    made = {"hnseg": __version__, "notice": RESEARCH_USE}
    if work.single:
        return cohorts[0].cases[0][1].to_plain() | made
    if len(cohorts) == 1:
        return to_plain(cohorts[0]) | made
    return to_plain(cohorts[0]) | comparison_to_plain(cohorts) | made


def _page(cohorts: Sequence[Cohort], work: _Work, args: argparse.Namespace) -> str:
    from hnseg.evaluation.observers import PUBLISHED_DSC, read_ceiling
    from hnseg.reporting.cohort_page import cohort_page

    ceiling = read_ceiling(args.observers) if args.observers else PUBLISHED_DSC
    cases = {case.name: case for case in work.systems[0][1].cases}
    pictures = {
        case: _pictures(cases[case], [row.organ for other, row in cohorts[0].worst() if other == case], args.images)
        for case in dict.fromkeys(case for case, _ in cohorts[0].worst())
    }
    return cohort_page(cohorts, ceiling=ceiling, picture_of=lambda case, organ: pictures[case].get(organ))


def _pictures(case: Case, organs: Sequence[str], images: Path | None) -> dict[str, bytes]:
    """Each organ's worst slices, on the CT if there is one."""
    from hnseg.cli.cases import image_of
    from hnseg.cli.structures import load_pair
    from hnseg.evaluation.compare import pair_masks
    from hnseg.image.files import read_image
    from hnseg.reporting.cohort_plots import disagreement_picture

    prediction, reference = (
        part.segmentation for part in load_pair(case.prediction, case.reference, series=case.series)
    )
    found = image_of(case.name, images or case.reference)
    ct = read_image(found, modality="CT") if found else None
    masks = pair_masks(prediction, reference, organs)
    return {organ: disagreement_picture(*pair, ct) for organ, pair in masks}


def _write_text(path: Path, text: str) -> None:
    from hnseg.image.files import atomic_write

    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _summary(cohort: Cohort, *, single: bool) -> str:
    from hnseg.cli.console import table
    from hnseg.reporting.cohort_tables import cell

    names = ("dsc", "surface_dsc", "hd95_mm", "mean_surface_distance_mm", "volume_error")
    forms = ("{:.3f}", "{:.3f}", "{:.2f}", "{:.2f}", "{:+.0%}")
    heading = ("organ", "cases", "DSC", "surface DSC", "HD95 mm", "mean mm", "volume", "missed")
    rows = []
    for organ in (*cohort.organs, None):
        means = cohort.mean(organ)
        cells = [cell(means[name], form) for name, form in zip(names, forms, strict=True)]
        rows.append((organ or "mean", f"{means['organs_scored']:.0f}", *cells, f"{means['organs_missed']:.0f}"))
    overall = cohort.mean()
    title = "" if single else f"{cohort.system}: {len(cohort.cases)} cases\n"
    extra = ", ".join(f"{organ} {sum(ml):.1f} mL" for organ, ml in cohort.extra_ml.items())
    return (
        f"{title}{table(heading, rows)}\n"
        f"HD95 with the image diagonal for missed organs: {cell(overall['hd95_penalised_mm'], '{:.2f} mm')}"
        + (f"\nPredicted without a reference, not scored: {extra}" if extra else "")
    )
