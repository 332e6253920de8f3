"""`hnseg demo OUT`: a phantom patient that the model never saw, segmented, scored against its truth, and reported."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hnseg.cli.console import OnProgress

_DESCRIPTION = """\
Makes a procedural head-and-neck patient (no patient's data), finds its 30 organs from CT and MR, compares them with the
known truth and draws a report. The model that ships was trained on such phantoms, on other ones: this shows that the
whole chain works, not how well it does on patients.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo", help="a phantom patient, segmented and reported", description=_DESCRIPTION
    )
    add = parser.add_argument
    add("out", metavar="OUT", type=Path, help="folder for everything; a phantom that is there already is used again")
    add("--seed", metavar="S", type=int, default=2026, help="which patient (default 2026)")
    add("--size", choices=("small", "medium", "full"), default="medium", help="see `hnseg phantom` (default medium)")
    add("--model", metavar="NAME", help="model or its folder (default: the one that ships)")
    add("--device", metavar="D", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")


def run(args: argparse.Namespace) -> int:
    """Make, segment, report; returns the exit code."""
    from hnseg.cli.console import progress, readable, say, say_warnings
    from hnseg.cli.segment import summary
    from hnseg.jobs.segment import run_segment
    from hnseg.phantom.cohort import write_cohort
    from hnseg.version import RESEARCH_USE

    with progress() as on_progress:
        making, segmenting = (_part(on_progress, *span) for span in ((0.0, 0.2), (0.2, 1.0)))
        (case,) = write_cohort(args.out / "phantom", seed=args.seed, size=args.size, on_progress=making)
        outcome = run_segment(_request(args, case), segmenting)
    say_warnings(outcome.record.warnings)
    say(summary(outcome.record))
    say(f"\nLook at {readable(args.out / 'report' / 'report.html')} in a browser,")
    say(f"and open {readable(outcome.output)} in 3D Slicer, on {readable(case / f'{case.name}_IMG_CT.nrrd')}.")
    say(RESEARCH_USE)
    return 0


def _part(on_progress: OnProgress, start: float, stop: float) -> OnProgress:
    """A step's own progress as its part of the whole."""
    return lambda fraction, text: on_progress(start + fraction * (stop - start), text)


def _request(args: argparse.Namespace, case: Path) -> Any:
    from hnseg.jobs.request import SegmentRequest

    return SegmentRequest(
        ct=str(case / f"{case.name}_IMG_CT.nrrd"),
        mr=str(case / f"{case.name}_IMG_MR_T1.nrrd"),
        output=str(args.out / "organs.seg.nrrd"),
        model=args.model,
        device=args.device,
        report_json=str(args.out / "run.json"),
        report=str(args.out / "report"),
        reference=str(case),
    )
