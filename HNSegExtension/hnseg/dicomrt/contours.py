"""Masks of one slice ↔ polygons, in pixel indices (row, column); a pixel's centre is at whole numbers.

Tracing and filling are each other's inverse: a polygon passes between pixel centres, and filling asks for each centre
whether it lies inside. The polygons also keep the area: pixel count and area agree, so that a planning system that
measures polygons finds the volume that we report.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.measure import approximate_polygon, find_contours

Mask = NDArray[np.bool_]
Polygon = NDArray[np.float64]
"""Vertices (n, 2), the first one not repeated at the end."""


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """One island of a mask: its outer polygon and those of the holes in it."""

    outer: Polygon
    holes: tuple[Polygon, ...] = ()


def trace(mask_ji: Mask) -> tuple[Outline, ...]:
    """The islands of a slice (4-neighbourhood), none if it is empty. The smallest one, a single pixel, is a diamond."""
    loops = [_keep_area(loop) for loop in _loops(mask_ji)]
    outers = [loop for loop in loops if signed_area(loop) > 0]
    owned: dict[int, list[Polygon]] = {index: [] for index in range(len(outers))}
    for hole in (loop for loop in loops if signed_area(loop) < 0):
        around = [index for index, outer in enumerate(outers) if contains(outer, _inner_pixel(hole))]
        owned[min(around, key=lambda index: signed_area(outers[index]))].append(hole)
    return tuple(Outline(outer, tuple(owned[index])) for index, outer in enumerate(outers))


def fill(polygons: Iterable[Polygon], shape_ji: tuple[int, int]) -> Mask:
    """The pixels whose centres lie inside an odd number of the polygons; parts outside the slice are left out."""
    crossings = np.zeros((shape_ji[0], shape_ji[1] + 1), np.int32)
    for polygon in polygons:
        rows, columns = _crossings(polygon, 0, shape_ji[0])
        np.add.at(crossings, (rows, np.clip(columns, 0, shape_ji[1]).astype(np.intp)), 1)
    return np.asarray(np.cumsum(crossings[:, :-1], axis=1) % 2 == 1)


def simplify(polygon: Polygon, *, tolerance: float, pixel: tuple[float, float] = (1.0, 1.0)) -> Polygon:
    """Fewer vertices, no farther than ``tolerance`` from the given outline, in the unit of ``pixel`` (row, column
    size).

    Douglas and Peucker 1973. With 0, only vertices on straight runs go. A polygon never falls below three vertices.
    """
    straight = _without_straight_runs(polygon)
    if tolerance <= 0 or len(straight) <= 4:
        return straight
    closed = np.vstack([straight, straight[:1]]) * pixel
    reduced = approximate_polygon(closed, tolerance)[:-1] / pixel
    return reduced if len(reduced) >= 3 else straight


def keyhole(outline: Outline) -> Polygon:
    """One polygon for an island with holes: each hole is joined by a channel without width. DICOM PS3.3 C.8.8.6.3."""
    joined = outline.outer
    for hole in sorted(outline.holes, key=lambda polygon: float(polygon[:, 0].min())):
        here, there = _nearest_vertices(joined, hole)
        ring = np.roll(hole, -there, axis=0)
        joined = np.vstack([joined[: here + 1], ring, ring[:1], joined[here:]])
    return joined


def signed_area(polygon: Polygon) -> float:
    """Area by the shoelace formula; positive for the outer polygons and negative for the holes of ``trace``."""
    row, column = (polygon - polygon.mean(axis=0)).T
    return float(0.5 * (row * np.roll(column, -1) - column * np.roll(row, -1)).sum())


def contains(polygon: Polygon, point: Sequence[float]) -> bool:
    """Whether the point lies inside the polygon, by the even-odd rule."""
    _, columns = _crossings(polygon - np.asarray(point), 0, 1)
    return bool(np.count_nonzero(columns > 0) % 2)


def _loops(mask_ji: Mask) -> list[Polygon]:
    """Closed outlines through the middles between inner and outer pixel centres; holes run the other way round."""
    padded = np.pad(mask_ji, 1).astype(np.float64)
    return [loop[:-1] - 1.0 for loop in find_contours(padded, 0.5, fully_connected="low", positive_orientation="high")]


def _keep_area(loop: Polygon) -> Polygon:
    """The loop, grown by a fraction of a pixel so that its area is the number of pixel centres in it.

    A loop through the middles cuts half a pixel off the area, whatever its size (each convex corner takes 1/8, each
    concave one gives 1/8, and there are four more of the former). Moving all vertices out by the same step along their
    own lattice line adds it back; the step stays under 0.21 pixels, so that no centre changes sides.
    """
    direction = _outward(loop)
    linear = 0.5 * _cross(loop, direction)
    quadratic = _signed(direction)
    missing = 0.5 * np.sign(signed_area(loop))
    step = missing / linear if abs(quadratic) < 1e-12 else _smaller_root(quadratic, linear, -missing)
    return loop + step * direction


def _outward(loop: Polygon) -> Polygon:
    """For each vertex, the unit step along its lattice line that leads out of the loop."""
    before, after = np.roll(loop, 1, axis=0), np.roll(loop, -1, axis=0)
    along = after - before
    normal = np.column_stack([along[:, 1], -along[:, 0]]) * np.sign(signed_area(loop))
    on_row_line = loop[:, 0] != np.floor(loop[:, 0])  # between two rows: it slides along the row axis
    axis = np.where(on_row_line[:, np.newaxis], [[1.0, 0.0]], [[0.0, 1.0]])
    return np.asarray(-np.sign((normal * axis).sum(axis=1, keepdims=True)) * axis)


def _cross(first: Polygon, second: Polygon) -> float:
    """The part of the area that is linear in a step from ``first`` along ``second``, times two."""
    (a, b), (c, d) = (first - first.mean(axis=0)).T, second.T
    following = [np.roll(values, -1) for values in (a, b, c, d)]
    return float((a * following[3] - b * following[2] + c * following[1] - d * following[0]).sum())


def _signed(direction: Polygon) -> float:
    row, column = direction.T
    return float(0.5 * (row * np.roll(column, -1) - column * np.roll(row, -1)).sum())


def _smaller_root(a: float, b: float, c: float) -> float:
    root = np.sqrt(max(b * b - 4 * a * c, 0.0))
    return float(min(((-b + root) / (2 * a), (-b - root) / (2 * a)), key=abs))


def _inner_pixel(loop: Polygon) -> tuple[float, float]:
    """The centre of a pixel inside the loop, next to its first vertex."""
    row, column = loop[0] - 0.5 * _outward(loop)[0]
    return float(np.round(row)), float(np.round(column))


def _crossings(polygon: Polygon, row: int, end_row: int) -> tuple[NDArray[np.intp], Polygon]:
    """Where the edges cross the pixel centres' lines from ``row`` on: the line, and the first column at or beyond."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    upward = start[:, :1] <= end[:, :1]  # the same arithmetic both ways, so that a keyhole's channel cancels exactly
    low, high = np.where(upward, start, end), np.where(upward, end, start)
    first, last = (np.clip(np.ceil(ends[:, 0]), row, end_row).astype(np.intp) for ends in (low, high))
    counts = last - first
    edge = np.repeat(np.arange(len(polygon)), counts)
    rows = first[edge] + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    slope = (high[edge, 1] - low[edge, 1]) / (high[edge, 0] - low[edge, 0])
    return rows, np.ceil(low[edge, 1] + (rows - low[edge, 0]) * slope)


def _without_straight_runs(polygon: Polygon) -> Polygon:
    before, after = polygon - np.roll(polygon, 1, axis=0), np.roll(polygon, -1, axis=0) - polygon
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    kept = polygon[np.abs(turn) > 1e-9]
    return kept if len(kept) >= 3 else polygon


def _nearest_vertices(first: Polygon, second: Polygon) -> tuple[int, int]:
    distances = np.linalg.norm(first[:, np.newaxis] - second[np.newaxis], axis=2)
    here, there = np.unravel_index(int(distances.argmin()), distances.shape)
    return int(here), int(there)
