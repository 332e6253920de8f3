"""Whether a NIfTI file is whole. ITK fills what a truncated one lacks with leftovers of memory and says nothing."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from hnseg.errors import UnreadableFile

_CHUNK = 1 << 22


def refuse_truncated_nifti(path: Path) -> None:
    """Raise ``UnreadableFile`` when voxels that the header announces are missing, or the gzip stream is broken.

    Reads the whole file once, so that gzip's checksum speaks too. NIfTI-1 and NIfTI-2, either byte order.
    """
    try:
        with _opened(path) as stream:
            header = stream.read(540)
            announced = _announced_bytes(header)
            held = len(header)
            while chunk := stream.read(_CHUNK):
                held += len(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UnreadableFile(
            f"{path.name} is cut short or corrupt: its gzip stream breaks off; fetch the file again."
        ) from None
    if announced is None:
        raise UnreadableFile(f"{path.name} is not a NIfTI file; give an image in the format that its name says.")
    if held < announced:
        raise UnreadableFile(f"{path.name} is cut short: {held} of {announced} bytes are there; fetch the file again.")


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb")) if packed else path.open("rb")


def _announced_bytes(header: bytes) -> int | None:
    """Bytes up to the last voxel, None where this is no single-file NIfTI header. NIfTI-1 and -2 specifications."""
    for order in "<>":
        if header[:4] == struct.pack(f"{order}i", 348) and len(header) >= 348:
            dim = struct.unpack_from(f"{order}8h", header, 40)
            (bits,) = struct.unpack_from(f"{order}h", header, 72)
            (offset,) = struct.unpack_from(f"{order}f", header, 108)
        elif header[:4] == struct.pack(f"{order}i", 540) and len(header) >= 540:
            dim = struct.unpack_from(f"{order}8q", header, 16)
            (bits,) = struct.unpack_from(f"{order}h", header, 14)
            (offset,) = struct.unpack_from(f"{order}q", header, 168)
        else:
            continue
        if not 1 <= dim[0] <= 7:
            return None
        return int(offset) + int(math.prod(dim[1 : dim[0] + 1])) * int(bits) // 8
    return None
