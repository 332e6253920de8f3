"""`hnseg rtstruct`: organs to an RTSTRUCT on the original series, and back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hnseg.image.segmentation import Segmentation

_DESCRIPTION = """\
Writes organs as an RTSTRUCT that refers to the original DICOM series, or reads one into voxels on the series' grid.
The series is only read. Every export is a new object and UNAPPROVED; a person has to review it.
"""
_EPILOG = """\
examples:
  hnseg rtstruct write --series dicom_ct/ --labels organs.seg.nrrd -o RT.dcm
  hnseg rtstruct read RT.dcm --series dicom_ct/ -o organs.seg.nrrd
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "rtstruct",
        help="write and read DICOM structure sets",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    _add_write(actions.add_parser("write", help="organs to RTSTRUCT", description=_DESCRIPTION))
    _add_read(actions.add_parser("read", help="RTSTRUCT to voxels", description=_DESCRIPTION))
    parser.set_defaults(run=run)


def _add_write(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--series", metavar="DIR", type=Path, required=True, help="folder with the original DICOM series")
    add("--labels", metavar="SEG", type=Path, required=True, help="segmentation, label map or folder of masks")
    add("-o", "--out", metavar="RT.dcm", type=Path, required=True, help="the file to write")
    add("--holes", choices=("keyhole", "xor", "xor-typed"), default="keyhole", help="how holes are written")
    add("--tolerance-mm", metavar="MM", type=float, default=0.05, help="of leaving out contour points (default 0.05)")
    add("--label", metavar="TEXT", default="HNSeg", help="structure set label, at most 16 characters")
    add_origin(parser)


def add_origin(parser: argparse.ArgumentParser) -> None:
    """The options that say how the organs came about; ``origin_of`` reads them."""
    add = parser.add_argument
    add("--edited", metavar="A,B", default="", help="organs that a person has edited: SEMIAUTOMATIC")
    add("--model", metavar="NAME", default="", help="the model that made the organs (default: as the file says)")
    add("--model-version", metavar="VERSION", default="", help="and its version")


def _add_read(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("rtstruct", metavar="RT.dcm", type=Path, help="the file to read")
    add("--series", metavar="DIR", type=Path, required=True, help="folder with the DICOM series it was drawn on")
    add("-o", "--out", metavar="SEG", type=Path, required=True, help=".seg.nrrd; or .nrrd, .nii.gz, .mha for labels")


def run(args: argparse.Namespace) -> int:
    """Write or read."""
    return _write(args) if args.action == "write" else _read(args)


def _write(args: argparse.Namespace) -> int:
    from hnseg.cli.console import readable, say, say_warnings
    from hnseg.dicomrt.series import open_series
    from hnseg.dicomrt.structure_set import StructureSetOptions, write_structure_set
    from hnseg.image.segmentation import read_segmentation

    segmentation = read_segmentation(args.labels)
    options = StructureSetOptions(
        holes=args.holes, tolerance_mm=args.tolerance_mm, label=args.label, **origin_of(segmentation, args)
    )
    written = write_structure_set(args.out, open_series(args.series), segmentation, options)
    say_warnings((*written.warnings, *options.provenance.warnings))
    say(f"{len(written.contours)} structures, {sum(written.contours.values())} contours in {readable(args.out)}")
    return 0


def _read(args: argparse.Namespace) -> int:
    from hnseg.cli.console import readable, say, say_warnings
    from hnseg.dicomrt.read import read_on_series

    read = read_on_series(args.rtstruct, args.series)
    say_warnings(read.warnings)
    write_structures(read.segmentation, args.out)
    say(f"{len(read.segmentation.segments)} structures in {readable(args.out)}")
    return 0


def origin_of(segmentation: Segmentation, args: argparse.Namespace) -> dict[str, Any]:
    """``edited`` and ``provenance`` of an export."""
    from hnseg.dicomrt.provenance import Provenance

    names = [name.strip() for name in args.edited.split(",") if name.strip()]
    return {
        "edited": frozenset(segmentation.segment(name).name for name in names),
        "provenance": Provenance.of(segmentation, model=args.model, model_version=args.model_version),
    }


def write_structures(segmentation: Segmentation, path: Path) -> None:
    """A ``.seg.nrrd``, or, for the other endings, one label map with HaN-Seg's labels."""
    from hnseg.image.files import write_volume
    from hnseg.image.segmentation import write_segmentation

    if path.name.lower().endswith(".seg.nrrd"):
        write_segmentation(segmentation, path)
    else:
        write_volume(segmentation.to_labels(), path)
