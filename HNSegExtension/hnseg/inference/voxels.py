"""Organs as lists of voxels: a label volume is mostly background, so what follows costs little at any image size."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume

Indices = NDArray[np.int64]

_HALF_NEIGHBOURHOOD = [offset for offset in product((-1, 0, 1), repeat=3) if offset > (0, 0, 0)]


def organ_voxels(labels: Volume) -> dict[int, Indices]:
    """The voxels of each label but 0, as ascending indices into the flattened (k, j, i) array."""
    flat = labels.array_kji.reshape(-1)
    voxels = np.flatnonzero(flat)
    values = flat[voxels]
    order = np.argsort(values, kind="stable")
    found, starts = np.unique(values[order], return_index=True)
    parts = np.split(voxels[order], starts)[1:]
    return {int(label): part for label, part in zip(found, parts, strict=True)}


def points_ijk(voxels: Indices, grid: Grid) -> Indices:
    """Indices (i, j, k) of flat voxels, (n, 3)."""
    k, j, i = np.unravel_index(voxels, grid.shape_kji)
    return np.stack([i, j, k], axis=1)


def centroid_lps(voxels: Indices, grid: Grid) -> NDArray[np.float64]:
    """Mean position, LPS mm; the list must not be empty."""
    return grid.to_lps(points_ijk(voxels, grid).mean(axis=0))


def connected_parts(voxels: Indices, grid: Grid) -> list[Indices]:
    """Parts that touch by face, edge or corner, the largest first; equally large ones by their first voxel."""
    if not len(voxels):
        return []
    count, member = connected_components(_touching(voxels, grid), directed=False)
    order = np.argsort(member, kind="stable")
    parts = np.split(voxels[order], np.cumsum(np.bincount(member, minlength=count))[:-1])
    return sorted(parts, key=lambda part: (-len(part), part[0]))


def _touching(voxels: Indices, grid: Grid) -> coo_array:
    """Which voxels are neighbours, as a sparse matrix over positions in the list."""
    k, j, i = np.unravel_index(voxels, grid.shape_kji)
    # One empty voxel around every row and slice, so that a step never wraps into the next one.
    width, height = grid.size_ijk[0] + 2, grid.size_ijk[1] + 2
    padded = (k * height + j + 1) * width + i + 1
    ends = []
    for dk, dj, di in _HALF_NEIGHBOURHOOD:
        wanted = padded + ((dk * height + dj) * width + di)
        at = np.minimum(np.searchsorted(padded, wanted), len(padded) - 1)
        here = np.flatnonzero(padded[at] == wanted)
        ends.append(np.stack([here, at[here]]))
    a, b = np.concatenate(ends, axis=1)
    return coo_array((np.ones(len(a), np.int8), (a, b)), shape=(len(voxels), len(voxels)))
