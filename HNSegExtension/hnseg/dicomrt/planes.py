"""A mask as it lies in the planes of a series' slices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.dicomrt.series import Series
from hnseg.image.grid import Grid
from hnseg.image.resample import resample
from hnseg.image.volume import Volume

Box = tuple[slice, slice, slice]

_PARALLEL = 1e-8  # 1 − cosine: 0.008°


@dataclass(frozen=True, slots=True, eq=False)
class PlaneMask:
    """What a structure has in slice ``index``: a mask on a lattice in the slice's plane, a grid one voxel deep."""

    index: int
    mask_ji: NDArray[np.bool_]
    grid: Grid
    ml: float


def planes_of(mask: Volume, series: Series) -> tuple[list[PlaneMask], float]:
    """The structure in each slice that it meets, and how many mL of it lie beyond the series' ends.

    Where the mask's own slices lie in the series' planes, as those of a segmentation made on the series do (of a tilted
    series, too), their voxels are taken as they are, so that nothing is lost. Otherwise the mask is interpolated
    linearly in each plane and cut at one half.
    """
    box = _box(mask)
    if box is None:
        return [], 0.0
    inside = mask.cropped(*box)
    shared = _shared_planes(inside.grid, series)
    if shared is None:
        return _interpolated(inside, series), _beyond_ends(inside, series)
    planes = [
        _plane(inside, k, index, series)
        for k, index in enumerate(shared)
        if index is not None and inside.array_kji[k].any()
    ]
    lost = sum(np.count_nonzero(inside.array_kji[k]) for k, index in enumerate(shared) if index is None)
    return planes, float(lost * mask.grid.voxel_ml)


def _box(mask: Volume) -> tuple[tuple[int, int, int], tuple[int, int, int]] | None:
    found = cast("list[Box]", ndimage.find_objects((mask.array_kji != 0).view(np.uint8)))
    if not found:
        return None
    k, j, i = found[0]
    return (i.start, j.start, k.start), (i.stop - i.start, j.stop - j.start, k.stop - k.start)


def _shared_planes(grid: Grid, series: Series) -> list[int | None] | None:
    """For each k of the grid, the slice in the same plane, None beyond the ends; None if the planes are others."""
    if 1.0 - abs(float(grid.axes[:, 2] @ series.normal)) > _PARALLEL:
        return None
    heights = grid.to_lps([(0, 0, k) for k in range(grid.size_ijk[2])]) @ series.normal
    shared = [series.at(height) for height in heights]
    half = 0.5 * series.stack.step_mm
    within = (heights > series.heights_mm[0] - half) & (heights < series.heights_mm[-1] + half)
    if any(index is None for index, inside in zip(shared, within, strict=True) if inside):
        return None
    every_slice = np.isclose(grid.spacing_mm[2], series.stack.step_mm, rtol=0.01)
    return shared if every_slice and series.stack.is_even else None


def _plane(mask: Volume, k: int, index: int, series: Series) -> PlaneMask:
    inside = np.asarray(mask.array_kji[k] != 0)
    grid = mask.grid.cropped((0, 0, k), (*mask.grid.size_ijk[:2], 1))
    origin = np.asarray(grid.origin_lps)
    off = float(series.heights_mm[index] - origin @ series.normal)
    x, y, z = origin + off * series.normal
    ml = float(np.count_nonzero(inside) * mask.grid.voxel_ml)
    return PlaneMask(index, inside, replace(grid, origin_lps=(float(x), float(y), float(z))), ml)


def _interpolated(mask: Volume, series: Series) -> list[PlaneMask]:
    """The mask cut by each slice, at the level between 0 and 1 that keeps its volume.

    A level of one half would shrink what is small and convex, as interpolation rounds corners off.
    """
    # A rim of zeros, so that linear interpolation falls to 0 outside the crop instead of ending at the outer centres.
    i, j, k = mask.grid.size_ijk
    rim = mask.grid.cropped((-1, -1, -1), (i + 2, j + 2, k + 2))
    occupancy = Volume(np.pad((mask.array_kji != 0).astype(np.float32), 1), rim)
    windows = [(n, _window(series.plane(n), rim.corners_lps())) for n in range(len(series.slices))]
    cuts = [(n, grid, resample(occupancy, grid).array_kji[0]) for n, grid in windows if grid is not None]
    if not cuts:
        return []
    inside_ml = np.count_nonzero(mask.array_kji) * mask.grid.voxel_ml - _beyond_ends(mask, series)
    level = _level_of_volume(np.concatenate([cut.ravel() for *_, cut in cuts]), inside_ml / cuts[0][1].voxel_ml)
    planes = [(n, np.asarray(cut >= level), grid) for n, grid, cut in cuts]
    return [PlaneMask(n, cut, grid, np.count_nonzero(cut) * grid.voxel_ml) for n, cut, grid in planes if cut.any()]


def _level_of_volume(occupancy: NDArray[np.float32], pixels: float) -> float:
    """The occupancy that so many pixels reach, within 0.25…0.75: beyond, the planes miss the mask, not cut it."""
    reached = np.sort(occupancy)[::-1]
    level = reached[min(max(round(pixels), 1), len(reached)) - 1]
    return float(np.clip(level, 0.25, 0.75))


def _beyond_ends(mask: Volume, series: Series) -> float:
    """The mL of the mask that lie below the first or above the last slice's slab."""
    heights = mask.grid.to_lps(np.argwhere(mask.array_kji)[:, ::-1]) @ series.normal
    half = 0.5 * series.stack.step_mm
    beyond = (heights < series.heights_mm[0] - half) | (heights > series.heights_mm[-1] + half)
    return float(np.count_nonzero(beyond) * mask.grid.voxel_ml)


def _window(grid: Grid, corners_lps: NDArray[np.float64]) -> Grid | None:
    """The part of a slice's lattice under the box with those corners; None if the slice misses the box."""
    corners = grid.to_ijk(corners_lps)
    if not corners[:, 2].min() <= 0 <= corners[:, 2].max():
        return None
    low = np.maximum(np.floor(corners[:, :2].min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(corners[:, :2].max(axis=0)).astype(int), np.asarray(grid.size_ijk[:2]) - 1)
    if (high < low).any():
        return None
    (i, j), (ni, nj) = low.tolist(), (high - low + 1).tolist()
    return grid.cropped((i, j, 0), (ni, nj, 1))
