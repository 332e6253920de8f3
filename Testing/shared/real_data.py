"""The real images that lie beside some checkouts, and are no part of this project."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest


def real_data() -> Path:
    """``../shared/data`` beside the checkout; the test is skipped, saying so, where it is absent."""
    for parent in Path(__file__).resolve().parents:
        folder = parent / "shared" / "data"
        if folder.is_dir():
            return folder
    return pytest.skip("SKIPPED: the real data (../shared/data) is not here")


def unpack(archive: Path, folder: Path, *parts: str) -> Path:
    """What lies in folders of those names, or all; returns the one folder that the archive holds."""
    with tarfile.open(archive) as packed:
        wanted = [member for member in packed if not parts or set(member.name.split("/")) & set(parts)]
        packed.extractall(folder, members=wanted, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())
