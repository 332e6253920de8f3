"""`hnseg segment`: CT (and MR) in, organs and reports out."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from hnseg.terminology import taught_words
from hnseg.version import RESEARCH_USE

if TYPE_CHECKING:
    from hnseg.reporting.record import OrganRecord, RunRecord

_DESCRIPTION = f"""\
Finds the 30 organs at risk of the head and neck in a planning CT, with the help of a T1 MR where there is one.

The MR may lie anywhere: it is registered to the CT, and left out, with a warning, where that fails. The result lies on
the CT's own grid. Everything asked for is written at the end and together; an interrupted run leaves nothing.

{RESEARCH_USE}
"""
_EPILOG = """\
examples:
  hnseg segment --ct ct.nrrd -o organs.seg.nrrd
  hnseg segment --ct dicom/ct --mr dicom/mr -o out/organs.seg.nrrd --report out/report --json out/run.json
  hnseg segment --ct ct.nii.gz --organs Parotid_L,Parotid_R,Brainstem -o glands.nii.gz
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "segment", help="find the organs in a CT, or a CT and an MR", description=_DESCRIPTION, epilog=_EPILOG
    )
    add = parser.add_argument
    add("--ct", metavar="PATH", required=True, help="CT in HU: image file or DICOM folder")
    add("--mr", metavar="PATH", help="T1 MR of the same patient: image file or DICOM folder")
    add(
        "-o", "--output", metavar="OUT", required=True,
        help="OUT.seg.nrrd with names, colours and terminology; or a label map: .nrrd, .nii.gz, .nii, .mha",
    )  # fmt: skip
    add("--model", metavar="NAME", help="model or its folder (default: the one that ships; see `hnseg models list`)")
    add("--organs", metavar="A,B", default="", help="only these organs, by name or alias (default: all 30)")
    add("--device", metavar="D", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add(
        "--precision", choices=("auto", "full"), default="auto",
        help="full: float32 throughout, where a shorter format would be faster (default: auto)",
    )  # fmt: skip
    add("--mirror", action="store_true", help="average over the left-right mirror image too; takes twice as long")
    add("--uncertainty", metavar="MAP.nrrd", help="write a map of 1 − winning probability, on the model's grid")
    add(
        "--transform", metavar="T.tfm", help="where the MR lies: ITK transform, CT points to MR points; no registration"
    )
    add("--json", metavar="RUN.json", help="write the run report: versions, inputs, volumes, warnings")
    add("--report", metavar="DIR", help="write an HTML report with pictures")
    add("--reference", metavar="PATH", help="true contours: DSC and HD95 go into the reports")


def run(args: argparse.Namespace) -> int:
    """Segment; returns the exit code."""
    from hnseg.jobs.request import SegmentRequest

    request = SegmentRequest(
        ct=args.ct,
        mr=args.mr,
        output=args.output,
        transform=args.transform,
        model=args.model,
        organs=tuple(name.strip() for name in args.organs.split(",") if name.strip()),
        device=args.device,
        report_json=args.json,
        report=args.report,
        reference=args.reference,
        precision=args.precision,
        mirror=args.mirror,
        uncertainty=args.uncertainty,
    )

    from hnseg.cli.console import progress, readable, say, say_warnings
    from hnseg.jobs.segment import run_segment

    with progress() as on_progress:
        outcome = run_segment(request, on_progress)
    say_warnings(outcome.record.warnings)
    say(summary(outcome.record))
    say(f"Organs: {readable(outcome.output)}")
    if request.report:
        say(f"Report: {readable(request.report)}/report.html")
    say(RESEARCH_USE)
    return 0


def summary(record: RunRecord) -> str:
    """A table of the organs, with the notes of those to be checked."""
    from hnseg.cli.console import table

    dsc = {score.name: score.dsc for score in record.scores}
    heading = ("organ", "mL", "usual", "confidence", "expected DSC", *(["DSC"] if dsc else []), "learnt from", "status")
    rows = [_row(organ, dsc) for organ in record.organs]
    notes = [f"  {organ.name}: {' '.join(organ.notes)}" for organ in record.organs if organ.status == "check"]
    scored = [value for value in dsc.values() if value is not None]
    mean = [f"Mean DSC against the reference: {sum(scored) / len(scored):.3f}"] if scored else []
    return "\n".join([table(heading, rows), *(["To be checked first:", *notes] if notes else []), *mean])


def _row(organ: OrganRecord, dsc: dict[str, float | None]) -> tuple[str, ...]:
    low, high = organ.range_ml
    score = dsc.get(organ.name)
    return (
        organ.name,
        f"{organ.volume_ml:.2f}",
        f"{low:g}–{high:g}",
        "–" if organ.confidence is None else f"{organ.confidence:.2f}",
        "–" if organ.expected_dsc is None else f"{organ.expected_dsc:.2f}",
        *(["–" if score is None else f"{score:.3f}"] if dsc else []),
        taught_words(organ.taught_by) or "–",
        organ.status,
    )
