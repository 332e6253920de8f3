"""`hnseg dvh`: dose statistics of organs from an RTDOSE."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hnseg.dicomrt.dvh import OrganDose

_DESCRIPTION = """\
Dose statistics of each organ: mean, maximum, D0.03cc (the least dose in the hottest 0.03 mL), and V of the doses asked
for (the share of the organ that receives at least so much). Dose is linear between the points of the dose grid.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "dvh",
        help="dose statistics of organs",
        description=_DESCRIPTION,
        epilog="example:\n  hnseg dvh --dose RD.dcm --labels organs.seg.nrrd --at 20,30,45 --json dose.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--dose", metavar="RTDOSE", type=Path, required=True, help="DICOM dose in Gy")
    add("--labels", metavar="SEG", type=Path, required=True, help="segmentation, label map, RTSTRUCT or SEG")
    add("--series", metavar="DIR", type=Path, help="the DICOM series that an RTSTRUCT was drawn on")
    add("--at", metavar="GY,…", type=_levels, default=(20.0, 30.0, 45.0), help="doses of V (default 20,30,45)")
    add("--json", metavar="FILE", type=Path, help="write the statistics as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compute, write, print."""
    from hnseg.cli.console import say, say_warnings
    from hnseg.cli.structures import load_structures
    from hnseg.dicomrt.dose import read_dose
    from hnseg.dicomrt.dvh import FINEST_MM, dose_statistics

    dose = read_dose(args.dose)
    fine = dose.grid.respaced([min(spacing, FINEST_MM) for spacing in dose.grid.spacing_mm])
    loaded = load_structures(args.labels, series=args.series, grid=fine)
    organs = dose_statistics(loaded.segmentation, dose, levels_gy=args.at)
    say_warnings(loaded.warnings)
    say_warnings(
        f"{organ.name}: the dose grid covers {organ.covered:.0%} of it; the figures are for that part."
        for organ in organs
        if organ.covered < 1
    )
    if args.json:
        _write_json(organs, args.json)
    say(_table(organs, args.at))
    return 0


def _levels(text: str) -> tuple[float, ...]:
    try:
        levels = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected doses in Gy such as 20,30, got {text!r}") from None
    if min(levels) < 0:
        raise argparse.ArgumentTypeError(f"a dose is 0 Gy or more, got {text!r}")
    return levels


def _write_json(organs: tuple[OrganDose, ...], path: Path) -> None:
    from hnseg.image.files import atomic_write
    from hnseg.version import RESEARCH_USE, __version__

    rows = {
        organ.name: {
            "volume_ml": organ.ml,
            "covered": organ.covered,
            "Dmean_Gy": _plain(organ.mean_gy),
            "Dmax_Gy": _plain(organ.max_gy),
            "Dmin_Gy": _plain(organ.min_gy),
            "D0.03cc_Gy": _plain(organ.near_max_gy),
            "D50%_Gy": _plain(organ.median_gy),
            "D95%_Gy": _plain(organ.d95_gy),
            **{f"V{level:g}Gy": _plain(share) for level, share in organ.volume_share.items()},
        }
        for organ in organs
    }
    text = json.dumps({"organs": rows, "hnseg": __version__, "notice": RESEARCH_USE}, indent=2)
    with atomic_write(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _table(organs: tuple[OrganDose, ...], levels: tuple[float, ...]) -> str:
    from hnseg.cli.console import table

    heading = ("organ", "mL", "Dmean", "Dmax", "D0.03cc", "D95%", *(f"V{level:g}Gy" for level in levels))
    rows = [
        (
            organ.name,
            f"{organ.ml:.2f}",
            *(f"{gray:.2f}" for gray in (organ.mean_gy, organ.max_gy, organ.near_max_gy, organ.d95_gy)),
            *(f"{organ.volume_share[level]:.1%}" for level in levels),
        )
        for organ in organs
    ]
    return table(heading, rows)
