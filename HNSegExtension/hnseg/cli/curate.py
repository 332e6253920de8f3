"""`hnseg curate IN OUT`: from a folder of cases to a data set to train on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hnseg.version import RESEARCH_USE

if TYPE_CHECKING:
    from hnseg.curation.intensity import Window
    from hnseg.curation.settings import CurationSettings

_DESCRIPTION = f"""\
Registers each MR to its CT and checks the result, stacks the masks, measures overlaps, volumes and sides, and writes
cleaned cases, patient-level splits, an nnU-Net raw data set, a MONAI data list and a report.

IN is laid out as HaN-Seg, PDDCA, HECKTOR or OpenKBP, or holds DICOM (CT, MR, RTSTRUCT), a folder per patient. A case
that cannot be used is named with its reason and left out. Stopped at any moment, the same command goes on.
What you decide of an MR is kept in OUT and holds in later runs.

{RESEARCH_USE}
"""
_EPILOG = """\
examples:
  hnseg curate HaN-Seg/set_1 curated
  hnseg curate HaN-Seg/set_1 curated --workers 4
  hnseg curate dicom curated --scheduler tcp://cluster:8786    workers see the same folders
  hnseg curate HaN-Seg/set_1 curated --accept-mr case_07       a person looked: use its MR all the same
  hnseg curate ours ours-curated --mr-scale nyul --nyul-standard curated/manifest.json     the MRs on HaN-Seg's scale
  hnseg curate HaN-Seg/set_1 curated --ct-window soft-tissue --ct-window=-1000:1000        two CT channels to train on

results:
  OUT/report.html, OUT/report.csv, OUT/manifest.json, OUT/splits.json, OUT/datalist.json
  OUT/cases/NAME/   ct, mr, labels, segmentation, transform, overlaps, pictures, case.json
  OUT/nnunet/       a raw data set of nnU-Net v2
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "curate",
        help="clean a data set: register, stack, check, split, export",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("input", metavar="IN", type=Path, help="folder with the cases; it is only read")
    add("output", metavar="OUT", type=Path, help="new or empty folder, or one that the same command began")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", metavar="N", type=_count, default=1, help="processes on this machine (default 1)")
    where.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, as tcp://host:8786")
    add("--partial", choices=("exclude", "ignore", "keep"), default="ignore", help="masks marked 0.5 (default ignore)")
    add(
        "--registration", choices=("rigid", "deformable", "none"), default="rigid",
        help="deformable: jaw and neck are bent as well; none: CT and MR share one frame",
    )  # fmt: skip
    add("--accept-mr", metavar="CASE", action="append", default=[], help="use this case's MR whatever the check says")
    add("--reject-mr", metavar="CASE", action="append", default=[], help="leave this case's MR out")
    add("--forget-mr", metavar="CASE", action="append", default=[], help="take such a decision back: the check decides")
    add("--no-bias-correction", action="store_true", help="leave the coil's shading in the MR")
    add(
        "--mr-scale",
        choices=("scanner", "z-score", "percentiles", "match-ct", "nyul"),
        default="scanner",
        help="grey values of the MR; nyul: in the exports alone (default scanner)",
    )
    add(
        "--nyul-standard",
        metavar="MANIFEST",
        type=Path,
        help="with nyul: the scale that another curation's manifest.json kept, not one fitted here",
    )
    add(
        "--ct-window",
        metavar="W",
        type=_window,
        action="append",
        default=[],
        help="soft-tissue, brain, bone or LOW:HIGH in HU; each given one is a channel of the exports (default: HU)",
    )
    add("--shape", choices=("ct", "512", "head-neck", "head"), default="ct", help="crop (default ct: none)")
    add("--spacing", metavar="X,Y,Z", type=_spacing, help="voxel size in mm (default: the CT's)")
    add("--test-share", metavar="F", type=float, default=0.2, help="share of the patients set apart (default 0.2)")
    add("--folds", metavar="N", type=_count, default=5, help="for cross-validation (default 5)")
    add("--seed", metavar="S", type=int, default=0, help="of the splits (default 0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Curate the folder; 0 as long as one case could be."""
    from hnseg.cli.console import say_error
    from hnseg.cli.main import DONE, INTERRUPTED
    from hnseg.errors import Cancelled

    try:
        _curate(args)
    except (KeyboardInterrupt, Cancelled):
        say_error("Interrupted; finished cases stay, repeat the command to go on.")
        return INTERRUPTED
    return DONE


def _curate(args: argparse.Namespace) -> None:
    from hnseg.cli.console import progress, readable, say, say_warnings
    from hnseg.jobs.curate import CurateRequest, run_curate

    request = CurateRequest(
        input=str(args.input),
        output=str(args.output),
        settings=_settings(args),
        workers=args.workers,
        scheduler=args.scheduler,
        accept_mr=tuple(args.accept_mr),
        reject_mr=tuple(args.reject_mr),
        forget_mr=tuple(args.forget_mr),
    )
    with progress() as on_progress:
        outcome = run_curate(request, on_progress)
    say_warnings([*outcome.notes, *(f"{name} failed: {reason}" for name, reason in outcome.failed.items())])
    good, doubtful, failed = (len(part) for part in (outcome.good, outcome.doubtful, outcome.failed))
    say(f"{good} good, {doubtful} doubtful, {failed} failed. Report: {readable(outcome.report)}")


def _settings(args: argparse.Namespace) -> CurationSettings:
    from hnseg.curation.bias import N4Settings
    from hnseg.curation.cohort import read_nyul_standard
    from hnseg.curation.settings import CurationSettings
    from hnseg.curation.shape import ShapeSettings

    return CurationSettings(
        partial=args.partial,
        registration=args.registration,
        n4=None if args.no_bias_correction else N4Settings(),
        mr_scale=args.mr_scale,
        nyul=read_nyul_standard(args.nyul_standard) if args.nyul_standard else None,
        ct_windows=tuple(args.ct_window),
        shape=ShapeSettings(args.shape, args.spacing),
        test_share=args.test_share,
        folds=args.folds,
        seed=args.seed,
    )


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return value


def _window(text: str) -> Window:
    from hnseg.curation.intensity import WINDOWS, Window
    from hnseg.errors import ConfigError

    if text in WINDOWS:
        return WINDOWS[text]
    try:
        low, high = (float(part) for part in text.split(":"))
        return Window(low, high)
    except (ValueError, ConfigError):
        message = f"expected {', '.join(WINDOWS)} or a window as -160:240, low before high, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def _spacing(text: str) -> tuple[float, float, float]:
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected three numbers as 1,1,2.5, got {text!r}") from None
    return x, y, z
