"""Closed contours in space → a mask on a grid, whichever way the two lie to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hnseg.dicomrt.contours import Polygon, fill
from hnseg.dicomrt.rois import Contour
from hnseg.image.grid import Grid, Matrix
from hnseg.image.resample import resample
from hnseg.image.volume import Volume

Mask = NDArray[np.bool_]

_FLAT_MM = 0.05
_SAME_PLANE_MM = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Rasterised:
    """The mask, and sentences (without the structure's name) about what could not be taken literally."""

    mask_kji: Mask
    remarks: tuple[str, ...]


def rasterise(contours: Sequence[Contour], grid: Grid) -> Rasterised:
    """The voxels whose centres lie in the contours' slabs.

    Each plane of contours stands for a slab as thick as the planes are apart, so that a grid with other slices gets the
    same volume. Within a plane, a contour that lies in what the others enclose is a hole, one beside them an island,
    and partly overlapping ones are united. Contours across the grid's slices are filled in their own planes first.
    """
    if not contours:
        return Rasterised(np.zeros(grid.shape_kji, np.bool_), ())
    normal = grid.axes[:, 2]
    if all(_flatness(contour.points_lps, normal) <= _FLAT_MM for contour in contours):
        return _in_slices(contours, grid)
    own = _own_normal(contours)
    remarks: tuple[str, ...] = ()
    if any(_flatness(contour.points_lps, own) > _FLAT_MM for contour in contours):
        remarks = ("contours that are not flat or not parallel were flattened",)
    own_grid = _own_grid(contours, own, grid)
    if own_grid is None:
        return Rasterised(np.zeros(grid.shape_kji, np.bool_), ("all contours lie outside the image",))
    filled = _in_slices(contours, own_grid)
    mask = resample(Volume(filled.mask_kji.astype(np.uint8), own_grid), grid, interpolation="nearest").array_kji
    return Rasterised(mask != 0, remarks + filled.remarks)


def _in_slices(contours: Sequence[Contour], grid: Grid) -> Rasterised:
    indices = [grid.to_ijk(contour.points_lps) for contour in contours]
    heights = np.array([points[:, 2].mean() * grid.spacing_mm[2] for points in indices])
    planes = _planes(heights)
    slabs = _slabs(planes, grid)
    mask = np.zeros(grid.shape_kji, np.bool_)
    tiny = overlapping = 0
    for plane, slices in zip(planes, slabs, strict=True):
        if not len(slices):
            continue
        members = np.flatnonzero(np.abs(heights - plane) <= _SAME_PLANE_MM).tolist()
        polygons = [(indices[n][:, 1::-1], contours[n].xor) for n in members]
        area, small, partly = _combine(polygons, (grid.size_ijk[1], grid.size_ijk[0]))
        mask[slices] |= area
        tiny, overlapping = tiny + small, overlapping + partly
    remarks = []
    if tiny:
        remarks.append(f"contours without a voxel centre in them, kept as one voxel each: {tiny}")
    if overlapping:
        remarks.append(f"contours that partly overlap others in their plane, united with them: {overlapping}")
    outside = sum(not len(slices) for slices in slabs)
    if outside:
        remarks.append(f"contour planes outside the image: {outside} of {len(planes)}")
    return Rasterised(mask, tuple(remarks))


def _planes(heights: NDArray[np.float64]) -> list[float]:
    """The distinct heights, ascending."""
    planes: list[float] = []
    for height in np.sort(heights):
        if not planes or height - planes[-1] > _SAME_PLANE_MM:
            planes.append(float(height))
    return planes


def _slabs(planes: Sequence[float], grid: Grid) -> list[NDArray[np.intp]]:
    """For each plane, the grid's slices that are nearer to it than to any other and within its slab.

    A slab reaches half a step below its plane, inclusive, and half a step above, exclusive; the step is the median one,
    but not less than the grid's own.
    """
    step = max(float(np.median(np.diff(planes))) if len(planes) > 1 else 0.0, grid.spacing_mm[2])
    slices = np.arange(grid.size_ijk[2])
    offsets = slices * grid.spacing_mm[2] - np.asarray(planes)[:, np.newaxis]
    # A hair's breadth downwards, so that rounding of coordinates does not decide about a slice half way between two.
    shifted = offsets + 0.01 * grid.spacing_mm[2]
    within = (shifted >= -step / 2) & (shifted < step / 2)
    nearest = np.abs(shifted).argmin(axis=0)
    return [slices[within[n] & (nearest == n)] for n in range(len(planes))]


def _combine(polygons: Sequence[tuple[Polygon, bool]], shape_ji: tuple[int, int]) -> tuple[Mask, int, int]:
    """One plane's mask, how many contours were smaller than a voxel, and how many partly overlapped others."""
    filled = [fill([polygon], shape_ji) for polygon, _ in polygons]
    tiny = 0
    for (polygon, _), area in zip(polygons, filled, strict=True):
        if not area.any():
            tiny += _keep_as_voxel(polygon, area)
    plane = np.zeros(shape_ji, np.bool_)
    overlapping = 0
    largest_first = sorted(range(len(filled)), key=lambda n: -np.count_nonzero(filled[n]))
    for n in largest_first:
        shared = np.count_nonzero(plane & filled[n])
        whole = shared == np.count_nonzero(filled[n])
        if polygons[n][1] or whole or not shared:
            plane ^= filled[n]
        else:
            plane |= filled[n]
            overlapping += 1
    return plane, tiny, overlapping


def _keep_as_voxel(polygon: Polygon, area: Mask) -> bool:
    """Mark the voxel that holds the polygon's middle; false if that is outside the slice."""
    row, column = np.rint(polygon.mean(axis=0)).astype(np.intp)
    inside = 0 <= row < area.shape[0] and 0 <= column < area.shape[1]
    if inside:
        area[row, column] = True
    return bool(inside)


def _flatness(points_lps: Matrix, normal: Matrix) -> float:
    """How far (mm) the points spread along the normal."""
    return float(np.ptp(points_lps @ normal))


def _own_normal(contours: Sequence[Contour]) -> Matrix:
    """Unit normal of the contour with the largest area (Newell's sum of cross products)."""
    vectors = [_newell(contour.points_lps) for contour in contours]
    largest = max(vectors, key=lambda vector: float(np.linalg.norm(vector)))
    length = float(np.linalg.norm(largest))
    return largest / length if length else np.array([0.0, 0.0, 1.0])


def _newell(points_lps: Matrix) -> Matrix:
    centred = points_lps - points_lps.mean(axis=0)
    return np.asarray(np.cross(centred, np.roll(centred, -1, axis=0)).sum(axis=0))


def _own_grid(contours: Sequence[Contour], normal: Matrix, target: Grid) -> Grid | None:
    """A grid whose slices are the contours' planes, twice as fine as the target, around what it can see of them."""
    start = np.eye(3)[np.abs(normal).argmin()]
    across = np.cross(normal, start)
    across /= np.linalg.norm(across)
    axes = np.column_stack([np.cross(across, normal), across, normal])
    seen = target.corners_lps() @ axes
    heights = np.array([float((contour.points_lps @ normal).mean()) for contour in contours])
    planes = _planes(heights[(heights >= seen[:, 2].min()) & (heights <= seen[:, 2].max())])
    points = np.concatenate([contour.points_lps for contour in contours]) @ axes
    low, high = np.maximum(points.min(axis=0), seen.min(axis=0)), np.minimum(points.max(axis=0), seen.max(axis=0))
    if not planes or (high < low).any():
        return None
    fine = 0.5 * min(target.spacing_mm)
    step = max(float(np.median(np.diff(planes))) if len(planes) > 1 else 2 * fine, fine)
    spacing = np.array([fine, fine, step])
    first = np.append(low[:2] - 2 * fine, planes[0] - 2 * step)
    last = np.append(high[:2] + 2 * fine, planes[-1] + 2 * step)
    i, j, k = (np.ceil((last - first) / spacing).astype(int) + 1).tolist()
    x, y, z = (axes @ first).tolist()
    return Grid((i, j, k), (fine, fine, step), (x, y, z), tuple(axes.ravel()))
