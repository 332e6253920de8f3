"""Images made coarse by the means of whole blocks of voxels, and the way back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume


def block_means(volume: Volume, spacing_mm: float) -> Volume:
    """Means over whole blocks of voxels whose edges come nearest to ``spacing_mm``; a remainder at the far end is cut.

    An axis that is already as coarse is left alone. float32; where no axis changes, the values are not copied.
    """
    steps = block_sizes(volume.grid, spacing_mm)
    array: NDArray[np.float32] = volume.array_kji
    for axis, step in enumerate(steps[::-1]):
        array = _block_means_along(array, axis, step)
    i, j, k = steps
    first = volume.grid.to_lps([(i - 1) / 2, (j - 1) / 2, (k - 1) / 2])
    affine = volume.grid.ijk_to_lps.copy()
    affine[:3, :3] *= steps
    affine[:3, 3] = first
    return Volume(np.asarray(array, dtype=np.float32), Grid.from_affine(array.shape, affine))


def block_sizes(grid: Grid, spacing_mm: float) -> tuple[int, ...]:
    """Voxels of a block of ``block_means`` along i, j, k."""
    sizes = zip(grid.spacing_mm, grid.size_ijk, strict=True)
    return tuple(min(count, max(1, round(spacing_mm / mm))) for mm, count in sizes)


def spread(coarse_kji: NDArray[Any], grid: Grid, spacing_mm: float) -> NDArray[Any]:
    """Each block's value at its voxels on ``grid``; the remainder at the far end has that of the last block."""
    places = zip(grid.shape_kji, block_sizes(grid, spacing_mm)[::-1], coarse_kji.shape, strict=True)
    return coarse_kji[np.ix_(*(np.minimum(np.arange(n) // size, last - 1) for n, size, last in places))]


def _block_means_along(array: NDArray[np.float32], axis: int, step: int) -> NDArray[np.float32]:
    """Sums of strided views: no copy of the full array as float."""
    if step == 1:
        return array
    count = array.shape[axis] // step
    views = (array[(slice(None),) * axis + (slice(n, count * step, step),)] for n in range(step))
    total = np.zeros([count if a == axis else n for a, n in enumerate(array.shape)], dtype=np.float32)
    for view in views:
        total += view
    return total / np.float32(step)
