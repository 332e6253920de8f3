"""Heads of a few thousand voxels in HaN-Seg's layout, and what is left of a folder: for tests of several folders."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hnseg.image.files import write_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume

GRID = Grid((20, 22, 18), (8.0, 8.0, 9.0), (-80.0, -120.0, 300.0))


def head(air: float, tissue: float, bone: float) -> Volume:
    """An egg of tissue with a skull, on ``GRID``."""
    k, j, i = np.indices(GRID.shape_kji)
    x, y, z = np.moveaxis(GRID.to_lps(np.stack([i, j, k], axis=-1)) - (2.0, -30.0, 385.0), -1, 0)
    radius = np.sqrt((x / 60) ** 2 + (y / 70) ** 2 + (z / 75) ** 2)
    values = np.where(radius < 1, tissue, air) + np.random.default_rng(1).normal(0, 8, radius.shape)
    values[(radius > 0.8) & (radius < 0.95) & (z > -10)] = bone
    return Volume(np.round(values).astype(np.int16), GRID)


def ct() -> Volume:
    """The head in HU."""
    return head(-1000, 40, 900)


def mr() -> Volume:
    """The head in T1."""
    return head(15, 420, 60)


def block(first_i: int = 9) -> NDArray[np.uint8]:
    """A mask of some voxels in the head, from column ``first_i`` to 11."""
    mask = np.zeros(GRID.shape_kji, np.uint8)
    mask[8:11, 9:12, first_i:12] = 1
    return mask


def write_case(folder: Path, name: str, image: Volume, masks: Mapping[str, NDArray[np.uint8]]) -> None:
    """Its CT and organs."""
    place = folder / name
    place.mkdir(parents=True)
    write_volume(image, place / f"{name}_IMG_CT.nrrd")
    for organ, mask in masks.items():
        write_volume(Volume(mask, GRID), place / f"{name}_OAR_{organ}.seg.nrrd")


def write_two_heads(folder: Path) -> Path:
    """Two cases with a brainstem each; the first has an MR. Returns the folder."""
    for name in ("case_01", "case_02"):
        write_case(folder, name, ct(), {"Brainstem": block()})
    write_volume(mr(), folder / "case_01" / "case_01_IMG_MR_T1.nrrd")
    return folder


def bytes_of(folder: Path) -> dict[str, str]:
    """Every file's digest by its place, hidden ones and folders too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }
