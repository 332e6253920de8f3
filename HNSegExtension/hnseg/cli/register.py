"""`hnseg register`: where the MR lies in the CT, and whether to believe it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hnseg.version import RESEARCH_USE

if TYPE_CHECKING:
    from hnseg.image.volume import Volume
    from hnseg.registration import Registration

_DESCRIPTION = f"""\
Finds the rigid pose of an MR in a CT of the same patient, wherever the headers put them, and checks it.

The transform follows ITK: it maps points of the CT to points of the MR, in LPS mm, so that `resample` with the CT as
reference brings the MR onto the CT. A pose that the check refuses is not written, and the exit code is 1. With
--deformable, jaw and neck are then bent to where the CT has them; where that explains nothing, the pose stays rigid.

{RESEARCH_USE}
"""
_EPILOG = """\
examples:
  hnseg register --fixed ct.nrrd --moving mr.nrrd -o ct_to_mr.tfm
  hnseg register --fixed dicom/ct --moving dicom/mr -o ct_to_mr.tfm --json registration.json
  hnseg register --fixed ct.nrrd --moving mr.nrrd -o ct_to_mr.h5 --deformable

verdicts: good; doubtful (written: look at it before use); failed (not written, unless --force)
"""

TRANSFORM_SUFFIXES = (".tfm", ".txt", ".h5", ".hdf5")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "register",
        help="find where the MR lies in the CT",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--fixed", metavar="CT", required=True, help="CT: image file or DICOM folder")
    add("--moving", metavar="MR", required=True, help="MR: image file or DICOM folder")
    add("-o", "--output", metavar="T.tfm", required=True, type=Path, help="the transform: .tfm, .txt or .h5")
    add(
        "--deformable",
        action="store_true",
        help="bend jaw and neck after the rigid pose (B-spline); CT in HU",
    )
    add("--json", metavar="F", type=Path, help="write verdict, reason, measures and seconds as JSON")
    add("--force", action="store_true", help="write the transform even if the check refuses it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Register, judge, write; ``RegistrationFailed`` when the check refuses the pose."""
    from hnseg.cli.console import progress, readable, say, say_warnings
    from hnseg.errors import OutputError, RegistrationFailed
    from hnseg.image.files import read_image, write_transform
    from hnseg.jobs.staging import staged
    from hnseg.registration import DeformableRegistration, register_deformable, register_rigid

    if args.output.suffix not in TRANSFORM_SUFFIXES:  # said now rather than after the work
        raise OutputError(f"Cannot write {args.output.name}: a transform's name ends in .tfm, .txt or .h5; use one.")
    outputs = [args.output, *([args.json] if args.json else [])]
    with staged(*outputs) as staging:
        notes: list[str] = []
        ct = read_image(args.fixed, modality="CT", on_note=notes.append)
        mr = read_image(args.moving, modality="MR", on_note=notes.append)
        say_warnings([*notes, *_warnings(ct, mr)])
        with progress() as on_progress:
            register = register_deformable if args.deformable else register_rigid
            found = register(ct, mr, on_progress=on_progress)
        written = args.force or found.verdict != "failed"
        if written:
            write_transform(found.transform, staging.place_for(args.output))
        if args.json:
            _write_json(staging.place_for(args.json), args, found, written=written)
        staging.commit()
    if found.verdict == "failed":
        outcome = "was written as --force asks" if written else "was not written; check that both show the same patient"
        raise RegistrationFailed(f"The registration failed: {found.reason} The transform {outcome}.")
    say(f"Registration {found.verdict}: {found.reason}")
    if isinstance(found, DeformableRegistration):
        say(f"Deformable part {'used' if found.bending.used else 'left out'}: {found.bending.reason}")
    say(f"Transform: {readable(args.output)}")
    return 0


def _warnings(ct: Volume, mr: Volume) -> tuple[str, ...]:
    """As ``check_pair`` has it, but a CT that is not in HU is only warned of: registration needs its contrast alone."""
    from hnseg.errors import WrongModality
    from hnseg.image.checks import check_ct, check_mr, check_pair, looks_like_ct

    if looks_like_ct(ct) or looks_like_ct(mr):
        return check_pair(ct, mr)
    try:
        return (*check_ct(ct), *check_mr(mr))
    except WrongModality as error:
        return (str(error), *check_mr(mr))


def _write_json(path: Path, args: argparse.Namespace, found: Registration, *, written: bool) -> None:
    import json

    from hnseg.image.files import atomic_write
    from hnseg.plain import to_plain
    from hnseg.registration import DeformableRegistration
    from hnseg.registration.poses import from_transform
    from hnseg.version import __version__

    bent = found if isinstance(found, DeformableRegistration) else None
    record = {
        "verdict": found.verdict,
        "reason": found.reason,
        "seconds": round(found.seconds, 3),
        "metrics": to_plain(found.metrics),
        "fixed": str(args.fixed),
        "moving": str(args.moving),
        "transform": str(args.output) if written else None,
        "ct_to_mr": from_transform(bent.rigid if bent else found.transform).tolist(),
        "bending": to_plain(bent.bending) if bent else None,
        "version": __version__,
        "note": RESEARCH_USE,
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
