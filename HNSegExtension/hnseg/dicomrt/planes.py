"""A mask as it lies in the planes of a series' slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.dicomrt.series import Series, Slice
from hnseg.image.grid import Grid
from hnseg.image.resample import resample
from hnseg.image.volume import Volume

Box = tuple[slice, slice, slice]

_PARALLEL = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class PlaneMask:
    """What a structure has in one slice: a mask on an in-plane lattice, a grid that is one voxel deep."""

    part: Slice
    mask_ji: NDArray[np.bool_]
    grid: Grid
    ml: float


def planes_of(mask: Volume, series: Series) -> tuple[list[PlaneMask], float]:
    """The structure in each slice that it meets, and how many mL of it lie in no slice.

    Where the mask's own slices lie in the series' planes, as those of a segmentation made on the series do (in a tilted
    series, too), their voxels are taken as they are, so that nothing is lost. Otherwise the mask is interpolated
    linearly in each plane and cut at one half.
    """
    box = _box(mask)
    if box is None:
        return [], 0.0
    cropped = mask.cropped(*box)
    expected = np.count_nonzero(cropped.array_kji) * mask.grid.voxel_ml
    shared = _shared_planes(cropped.grid, series)
    if shared is None:
        planes = _interpolated(cropped, series)
        return planes, max(0.0, expected - sum(plane.ml for plane in planes)) if not planes else 0.0
    planes = [
        _plane(cropped, k, series.slices[index])
        for k, index in enumerate(shared)
        if index is not None and cropped.array_kji[k].any()
    ]
    lost = sum(
        np.count_nonzero(cropped.array_kji[k]) * mask.grid.voxel_ml for k, index in enumerate(shared) if index is None
    )
    return planes, float(lost)


def _box(mask: Volume) -> tuple[tuple[int, int, int], tuple[int, int, int]] | None:
    found = cast("list[Box | None]", ndimage.find_objects(mask.array_kji.astype(np.uint8, copy=False), max_label=1))
    if found[0] is None:
        return None
    k, j, i = found[0]
    return (i.start, j.start, k.start), (i.stop - i.start, j.stop - j.start, k.stop - k.start)


def _shared_planes(grid: Grid, series: Series) -> list[int | None] | None:
    """For each k of the grid, the slice in the same plane; None altogether if the planes are others."""
    if np.abs(np.abs(grid.axes[:, 2] @ series.normal) - 1.0) > _PARALLEL**2:
        return None
    centres = grid.to_lps([(0, 0, k) for k in range(grid.size_ijk[2])])
    heights = centres @ series.normal
    shared = [series.at(height) for height in heights]
    inside = (heights > series.heights_mm[0] - 0.01) & (heights < series.heights_mm[-1] + 0.01)
    between = any(index is None for index, within in zip(shared, inside, strict=True) if within)
    every = len(series.slices) == 1 or np.isclose(grid.spacing_mm[2], series.step_mm, rtol=1e-3)
    return None if between or not every else shared


def _plane(mask: Volume, k: int, part: Slice) -> PlaneMask:
    inside = mask.array_kji[k].astype(np.bool_)
    grid = mask.grid.cropped((0, 0, k), (*mask.grid.size_ijk[:2], 1))
    return PlaneMask(part, inside, grid, np.count_nonzero(inside) * mask.grid.voxel_ml)


def _interpolated(mask: Volume, series: Series) -> list[PlaneMask]:
    # A rim of zeros, so that linear interpolation falls to 0 outside the crop instead of ending at the outer centres.
    rim = mask.grid.cropped((-1, -1, -1), tuple(n + 2 for n in mask.grid.size_ijk))
    occupancy = Volume(np.pad(mask.array_kji.astype(np.float32), 1), rim)
    corners = rim.corners_lps()
    planes = []
    for part in series.slices:
        grid = _window(part.grid, corners)
        if grid is None:
            continue
        inside = resample(occupancy, grid, interpolation="linear").array_kji[0] >= 0.5
        if inside.any():
            ml = np.count_nonzero(inside) * grid.spacing_mm[0] * grid.spacing_mm[1] * series.step_mm / 1000.0
            planes.append(PlaneMask(part, inside, grid, ml))
    return planes


def _window(grid: Grid, corners_lps: NDArray[np.float64]) -> Grid | None:
    """The part of a slice's lattice under the box with those corners; None if the slice misses the box."""
    corners = grid.to_ijk(corners_lps)
    if not corners[:, 2].min() <= 0 <= corners[:, 2].max():
        return None
    low = np.floor(corners[:, :2].min(axis=0)).astype(int)
    high = np.ceil(corners[:, :2].max(axis=0)).astype(int)
    low, high = np.maximum(low, 0), np.minimum(high, np.asarray(grid.size_ijk[:2]) - 1)
    if (high < low).any():
        return None
    return grid.cropped((*low, 0), (*(high - low + 1), 1))
