"""What an MR's own grid holds beyond what was measured: padding, told from air."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.image.blocks import block_means, spread
from hnseg.image.volume import Volume

WHOLLY = 0.999
"""Share of a resampled voxel that must have been measured: padding must not bleed into values."""

_JUDGED_AT_MM = 2.0
_CUBE = np.ones((3, 3, 3), dtype=bool)
_LEAST = 1e-3
"""Share of all voxels below which a constant is chance."""


def measured(mr: Volume) -> NDArray[np.bool_]:
    """All voxels of an MR but its padding.

    Whether there is any is judged as the registration does it, on block means of 2 mm, in which noise does not pass for
    a constant. Padding thinner than such a block is not found.
    """
    lowest = np.asarray(mr.array_kji == mr.array_kji.min())
    found = np.zeros((1, 1, 1), dtype=bool)
    if lowest.mean() >= _LEAST:
        found = padding(block_means(mr, _JUDGED_AT_MM).array_kji)
    if not found.any():
        return np.ones(lowest.shape, dtype=bool)
    # The blocks beside hold the padding's last voxels.
    near = ndimage.binary_dilation(found, _CUBE)
    return np.asarray(~(lowest & spread(near, mr.grid, _JUDGED_AT_MM)))


def padding(array: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Voxels that were never measured: the constant lowest value, connected to the border, beside real, noisy air.

    Where the body itself borders on the constant, that IS the air (a scanner that writes zeros outside the patient) and
    stays data.
    """
    nothing = np.zeros(array.shape, dtype=bool)
    constant = np.asarray(array == array.min())
    if constant.mean() < _LEAST or constant.all():
        return nothing
    parts, _ = ndimage.label(_solid(constant))
    at_border = np.unique(np.concatenate([np.take(parts, end, axis=a).ravel() for a in range(3) for end in (0, -1)]))
    sizes = np.bincount(parts.ravel())
    outside = np.isin(parts, [n for n in at_border if n and sizes[n] > _LEAST * array.size])
    # Air that is mostly the constant, with a few specks of noise, has the body beside it once these are closed.
    closed = ndimage.binary_erosion(ndimage.binary_dilation(outside, _CUBE), _CUBE, border_value=1)
    beside = ndimage.binary_dilation(closed, iterations=3) & ~closed
    dark = np.asarray(array[beside], dtype=np.float64) < air_threshold(array)
    if not dark.size or dark.mean() <= 0.5:
        return nothing
    return np.asarray(ndimage.binary_dilation(outside, iterations=2, mask=constant))


def _solid(constant: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What fills 5 × 5 voxels of some plane, or does so with what lies beyond the border: noise that often takes its
    lowest value is connected throughout the air, too.
    """
    found = np.zeros_like(constant)
    for axis in range(3):
        patch = np.ones([1 if a == axis else 5 for a in range(3)], dtype=bool)
        found |= ndimage.binary_dilation(ndimage.binary_erosion(constant, patch, border_value=1), patch) & constant
    return found


def air_threshold(values: NDArray[np.generic]) -> float:
    """Otsu's threshold between dark and bright (256 bins between the 1st and the 99th percentile).

    The middle of a gap where there is one. Otsu 1979.
    """
    flat = np.asarray(values, dtype=np.float32).ravel()[:: max(1, values.size // 200_000)]
    low, high = np.percentile(flat, [1, 99])
    if not high > low:
        return float(low)
    counts, edges = np.histogram(flat, bins=256, range=(float(low), float(high)))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    best = np.flatnonzero(between >= np.nanmax(between) * (1 - 1e-9))
    return float(edges[1 + best].mean())
