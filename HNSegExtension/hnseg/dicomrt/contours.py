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

Mask = NDArray[np.bool_]
Polygon = NDArray[np.float64]
"""Vertices (n, 2), the first one not repeated at the end."""

_HAIR = 0.002


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """One island of a mask: its outer polygon and those of the holes in it."""

    outer: Polygon
    holes: tuple[Polygon, ...] = ()


def trace(mask_ji: Mask) -> tuple[Outline, ...]:
    """The islands of a slice (4-neighbourhood), none if it is empty. The smallest one, a single pixel, is a diamond."""
    loops = _loops(mask_ji)
    outers = [loop for loop in loops if signed_area(loop) > 0]
    owned: dict[int, list[Polygon]] = {index: [] for index in range(len(outers))}
    for hole in (loop for loop in loops if signed_area(loop) < 0):
        around = [index for index, outer in enumerate(outers) if contains(outer, _inner_pixel(hole))]
        owned[min(around, key=lambda index: signed_area(outers[index]))].append(_finished(hole))
    return tuple(Outline(_finished(outer), tuple(owned[index])) for index, outer in enumerate(outers))


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
    from skimage.measure import approximate_polygon  # filling does without, and curation reads contours only

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
    from skimage.measure import find_contours

    padded = np.pad(mask_ji, 1).astype(np.float64)
    return [loop[:-1] - 1.0 for loop in find_contours(padded, 0.5, fully_connected="low", positive_orientation="high")]


def _finished(loop: Polygon) -> Polygon:
    """The loop with its full area, and moved by a hair towards the mask.

    A loop through the middles cuts half a pixel off the area, whatever its size: each convex corner takes 1/8, each
    concave one gives 1/8, and there are four more of the former. Four corners are therefore drawn in full. The hair
    lets readers that round vertices to pixels (rt-utils) land on the mask's side.
    """
    outward = _outward(loop)
    towards_mask = -outward if signed_area(loop) > 0 else outward
    corners = _convex_corners(loop, outward)
    drawn = corners[np.linspace(0, len(corners), 4, endpoint=False).astype(int)]
    following = (drawn + 1) % len(loop)
    on_row_line = _on_row_line(loop)
    middle = np.where(on_row_line[drawn, np.newaxis] == [True, False], loop[drawn], loop[following])
    hair = towards_mask[drawn] + towards_mask[following]
    return np.insert(loop + _HAIR * towards_mask, drawn + 1, middle + _HAIR * hair, axis=0)


def _convex_corners(loop: Polygon, outward: Polygon) -> NDArray[np.intp]:
    """Vertices after which the loop cuts a corner that its inside has there."""
    along = np.roll(loop, -1, axis=0) - loop
    diagonal = np.abs(along).min(axis=1) > 0.25
    # On a convex corner the next vertex lies behind this one's outward step, on a concave one ahead of it.
    return np.flatnonzero(diagonal & ((along * outward).sum(axis=1) < 0))


def _outward(loop: Polygon) -> Polygon:
    """For each vertex, the unit step along its lattice line that leads out of the loop."""
    along = np.roll(loop, -1, axis=0) - np.roll(loop, 1, axis=0)
    normal = np.column_stack([along[:, 1], -along[:, 0]]) * np.sign(signed_area(loop))
    axis = np.where(_on_row_line(loop)[:, np.newaxis], [[1.0, 0.0]], [[0.0, 1.0]])
    return np.asarray(np.sign((normal * axis).sum(axis=1, keepdims=True)) * axis)


def _on_row_line(loop: Polygon) -> Mask:
    """Whether each vertex lies between two rows, and so can slide along the row axis; else along the column axis."""
    return np.asarray(loop[:, 0] != np.floor(loop[:, 0]))


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
