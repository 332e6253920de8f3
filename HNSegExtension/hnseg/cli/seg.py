"""`hnseg seg`: organs to a DICOM Segmentation on the original series, and back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hnseg.cli.rtstruct import add_origin, origin_of, write_structures

_DESCRIPTION = """\
Writes organs as a DICOM SEG that refers to the original series, or reads one. The series is only read; every export is
a new object, and a person has to review it.
"""
_EPILOG = """\
examples:
  hnseg seg write --series dicom_ct/ --labels organs.seg.nrrd -o SEG.dcm
  hnseg seg read SEG.dcm --series dicom_ct/ -o organs.seg.nrrd
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "seg",
        help="write and read DICOM segmentations",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    _add_write(actions.add_parser("write", help="organs to DICOM SEG", description=_DESCRIPTION))
    _add_read(actions.add_parser("read", help="DICOM SEG to organs", description=_DESCRIPTION))
    parser.set_defaults(run=run)


def _add_write(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--series", metavar="DIR", type=Path, required=True, help="folder with the original DICOM series")
    add("--labels", metavar="SEG", type=Path, required=True, help="segmentation, label map or folder of masks")
    add("-o", "--out", metavar="SEG.dcm", type=Path, required=True, help="the file to write")
    add_origin(parser)


def _add_read(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("seg", metavar="SEG.dcm", type=Path, help="the file to read")
    add("--series", metavar="DIR", type=Path, help="bring it onto this DICOM series' grid (default: its own)")
    add("-o", "--out", metavar="SEG", type=Path, required=True, help=".seg.nrrd; or .nrrd, .nii.gz, .mha for labels")


def run(args: argparse.Namespace) -> int:
    """Write or read."""
    return _write(args) if args.action == "write" else _read(args)


def _write(args: argparse.Namespace) -> int:
    from hnseg.cli.console import readable, say, say_warnings
    from hnseg.dicomrt.segmentation_object import SegmentationObjectOptions, write_segmentation_object
    from hnseg.dicomrt.series import open_series
    from hnseg.image.segmentation import read_segmentation

    segmentation = read_segmentation(args.labels)
    options = SegmentationObjectOptions(**origin_of(segmentation, args))
    warnings = write_segmentation_object(args.out, open_series(args.series), segmentation, options)
    say_warnings((*warnings, *options.provenance.warnings))
    say(f"DICOM SEG in {readable(args.out)}")
    return 0


def _read(args: argparse.Namespace) -> int:
    from hnseg.cli.console import readable, say
    from hnseg.dicomrt.segmentation_object import read_segmentation_object
    from hnseg.dicomrt.series import open_series

    grid = open_series(args.series).grid if args.series else None
    segmentation = read_segmentation_object(args.seg, grid=grid)
    write_structures(segmentation, args.out)
    say(f"{len(segmentation.segments)} structures in {readable(args.out)}")
    return 0
