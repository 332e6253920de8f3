"""`hnseg phantom OUT`: procedural patients with known truth, laid out as HaN-Seg."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Writes procedural head-and-neck patients: CT, T1 MR on its own far and oblique grid, 30 organ masks on the CT's grid,
and the true CT-to-MR transform. No patient's data is in them.
"""
_EPILOG = """\
layout:
  OUT/OAR_data.csv, OUT/patient_data.csv          semicolon separated, as in HaN-Seg
  OUT/case_01/case_01_IMG_CT.nrrd                 int16 HU
  OUT/case_01/case_01_IMG_MR_T1.nrrd
  OUT/case_01/case_01_OAR_<NAME>.seg.nrrd         uint8, 0 or 1
  OUT/case_01/case_01_TRUTH_CT_TO_MR.tfm          ITK: maps CT points to MR points, LPS mm

sizes (CT in voxels and mm):
  small   192 x 192 at 3.0 x 3.0 x 4.0
  medium  512 x 512 at 1.12 x 1.12 x 2.5
  full    1024 x 1024 x 202 at 0.56 x 0.56 x 2.0, as HaN-Seg's median
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "phantom",
        help="write procedural patients with known truth",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="new or empty folder, or the same cohort to be finished")
    parser.add_argument("--cases", metavar="N", type=_positive, default=1, help="how many patients (default 1)")
    parser.add_argument("--seed", metavar="S", type=_natural, default=0, help="which patients (default 0)")
    parser.add_argument("--size", choices=("small", "medium", "full"), default="medium", help="default medium")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the cohort."""
    from hnseg.cli.console import progress, readable, say
    from hnseg.phantom.cohort import write_cohort

    with progress() as on_progress:
        cases = write_cohort(args.out, cases=args.cases, seed=args.seed, size=args.size, on_progress=on_progress)
    say(f"{len(cases)} phantom case{'s' * (len(cases) > 1)} in {readable(args.out)}")
    return 0


def _positive(text: str) -> int:
    value = _natural(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return value


def _natural(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return value
