"""Turning a volume's axes, without resampling, so that i, j, k run closest to patient left, posterior and superior."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume


def canonical(volume: Volume) -> Volume:
    """The same voxels, as a view, with axes permuted and flipped so that i, j, k are nearest to +x, +y, +z of LPS.

    An oblique grid stays oblique; left-handed input comes out right-handed.
    """
    order, signs = _nearest_axes(volume.grid)
    return _turned(volume, order, signs)


def oriented_like(volume: Volume, grid: Grid) -> Volume:
    """The inverse of ``canonical``: a volume on ``canonical``'s version of ``grid``, turned back onto ``grid``."""
    order, signs = _nearest_axes(grid)
    back = np.argsort(order)
    turned = _turned(volume, back, signs[back])
    return Volume(turned.array_kji, grid)


def _nearest_axes(grid: Grid) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """For each of x, y, z: which index axis runs along it, and in which sense."""
    _, order = linear_sum_assignment(-np.abs(grid.axes))
    signs = np.sign(grid.axes[np.arange(3), order])
    return order, signs


def _turned(volume: Volume, order: NDArray[np.intp], signs: NDArray[np.float64]) -> Volume:
    """New axis n is old axis ``order[n]``, reversed where ``signs[n]`` is negative."""
    grid = volume.grid
    array_ijk = volume.array_kji.transpose(2, 1, 0).transpose(order)
    array_ijk = array_ijk[tuple(slice(None, None, int(s)) for s in signs)]
    affine = np.eye(4)
    affine[:3, :3] = grid.ijk_to_lps[:3, :3][:, order] * signs
    first = np.zeros(3)
    first[order] = np.where(signs < 0, np.asarray(grid.size_ijk)[order] - 1, 0)
    affine[:3, 3] = grid.to_lps(first)
    array_kji = array_ijk.transpose(2, 1, 0)
    return Volume(array_kji, Grid.from_affine(array_kji.shape, affine))
