"""Implicit shapes: signed distances in mm (negative inside) of points in the canonical patient frame.

Points are three float32 arrays (x, y, z) of one shape; every function returns an array of that shape. Distances are
first-order exact near the surface, which is where they are used (partial volume, layers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]
Vector = Sequence[float] | NDArray[Any]
"""Three numbers."""
Points = tuple[Array, Array, Array]
Sdf = Callable[[Points], Array]

_TINY = np.float32(1e-6)


def ellipsoid(points: Points, centre: Vector, radii: Vector, rotation: ArrayLike | None = None) -> Array:
    """Ellipsoid; ``rotation`` is 3×3 with the ellipsoid's axes as columns."""
    x, y, z = local(points, centre, rotation)
    a, b, c = (np.float32(1.0 / r) for r in radii)
    u, v, w = x * a, y * b, z * c
    k0 = np.sqrt(u * u + v * v + w * w)
    u, v, w = u * a, v * b, w * c
    k1 = np.sqrt(u * u + v * v + w * w)
    return np.asarray(k0 * (k0 - 1) / (k1 + _TINY) + (k1 < _TINY) * np.float32(-min(radii)), dtype=np.float32)


def rounded_box(
    points: Points, centre: Vector, half: Vector, corner_mm: float, rotation: ArrayLike | None = None
) -> Array:
    """Box of the given half sizes whose edges are rounded with ``corner_mm``."""
    q = [np.abs(v) - np.float32(h - corner_mm) for v, h in zip(local(points, centre, rotation), half, strict=True)]
    outside = np.sqrt(sum(np.square(np.maximum(v, 0)) for v in q))
    inside = np.minimum(np.maximum(np.maximum(q[0], q[1]), q[2]), 0)
    return np.asarray(outside + inside - np.float32(corner_mm), dtype=np.float32)


def tube(points: Points, path: ArrayLike, radii: ArrayLike, reach_mm: float = 8.0) -> Array:
    """Round tube along a polyline (N, 3) with a radius per node (or one for all).

    Farther than ``reach_mm`` outside, the distance is only known to be at least that.
    """
    nodes, r = _nodes(path, radii)
    best = np.full(points[0].shape, reach_mm, dtype=np.float32)
    for n in range(len(nodes) - 1):
        where = _near(points, nodes[n : n + 2], float(r[n : n + 2].max()) + reach_mm)
        if where is None:
            continue
        offset, t = _to_segment((points[0][where], points[1][where], points[2][where]), nodes[n], nodes[n + 1])
        distance = np.sqrt(offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2) - (r[n] + (r[n + 1] - r[n]) * t)
        np.minimum(best[where], distance, out=best[where])
    return best


def band(
    points: Points,
    path: ArrayLike,
    half_widths: ArrayLike,
    half_heights: ArrayLike,
    up: Vector = (0, 0, 1),
    reach_mm: float = 8.0,
) -> Array:
    """Tube of elliptical cross-section: half heights along ``up`` (made normal to the path), half widths across it."""
    nodes, widths = _nodes(path, half_widths)
    heights = _nodes(path, half_heights)[1]
    best = np.full(points[0].shape, reach_mm, dtype=np.float32)
    for n in range(len(nodes) - 1):
        both = slice(n, n + 2)
        where = _near(points, nodes[both], float(max(widths[both].max(), heights[both].max())) + reach_mm)
        if where is None:
            continue
        part = (points[0][where], points[1][where], points[2][where])
        distance = _band_piece(part, nodes[both], widths[both], heights[both], up)
        np.minimum(best[where], distance, out=best[where])
    return best


def _band_piece(points: Points, ends: Array, widths: Array, heights: Array, up: Vector) -> Array:
    offset, t = _to_segment(points, ends[0], ends[1])
    tangent = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    across = np.cross(tangent, np.asarray(up, dtype=np.float32))
    across = across / np.linalg.norm(across)
    hw = widths[0] + (widths[1] - widths[0]) * t
    hh = heights[0] + (heights[1] - heights[0]) * t
    least = np.minimum(hw, hh)
    scaled = (
        _dot(offset, across) / hw,
        _dot(offset, np.cross(across, tangent)) / hh,
        _dot(offset, tangent) / least,
    )
    k0 = np.sqrt(scaled[0] ** 2 + scaled[1] ** 2 + scaled[2] ** 2)
    k1 = np.sqrt((scaled[0] / hw) ** 2 + (scaled[1] / hh) ** 2 + (scaled[2] / least) ** 2)
    return np.asarray(np.where(k1 > _TINY, k0 * (k0 - 1) / (k1 + _TINY), -least), dtype=np.float32)


def _near(points: Points, ends: Array, reach: float) -> tuple[slice, ...] | None:
    """The index box in which points may lie within ``reach`` of a segment's box; None where there are none.

    Points of a 3D array are assumed to run smoothly, so that every fourth tells enough.
    """
    x = points[0]
    if x.ndim != 3:
        return (slice(None),) * x.ndim
    inside = np.ones(x[::4, ::4, ::4].shape, dtype=bool)
    for coordinate, low, high in zip(points, ends.min(axis=0), ends.max(axis=0), strict=True):
        c = coordinate[::4, ::4, ::4]
        slack = reach + _stride_mm(coordinate)
        inside &= (c > low - slack) & (c < high + slack)
    if not inside.any():
        return None
    spans = []
    for axis, n in enumerate(x.shape):
        hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        spans.append(slice(max(4 * int(hit[0]) - 3, 0), min(4 * int(hit[-1]) + 4, n)))
    return tuple(spans)


def _stride_mm(coordinate: Array) -> float:
    """How far a coordinate can go within the four steps that are not looked at."""
    ends = coordinate[[0, -1]][:, [0, -1]][:, :, [0, -1]].astype(np.float64)
    return float(sum(np.abs(np.diff(ends, axis=a)).max() / max(n - 1, 1) for a, n in enumerate(coordinate.shape)) * 4.5)


def union(first: Array, second: Array, blend_mm: float = 0.0) -> Array:
    """Union; within ``blend_mm`` the crease is filled smoothly."""
    if not blend_mm:
        return np.minimum(first, second)
    h = np.maximum(blend_mm - np.abs(first - second), 0) / np.float32(blend_mm)
    return np.asarray(np.minimum(first, second) - h * h * np.float32(blend_mm / 4), dtype=np.float32)


def cut(first: Array, second: Array, blend_mm: float = 0.0) -> Array:
    """The first without the second."""
    return -union(-first, second, blend_mm)


def local(points: Points, centre: Vector, rotation: ArrayLike | None = None) -> Points:
    """Coordinates about ``centre`` along the columns of ``rotation``."""
    x, y, z = (p - np.float32(c) for p, c in zip(points, centre, strict=True))
    if rotation is None:
        return x, y, z
    m = np.asarray(rotation, dtype=np.float32)
    u, v, w = (x * m[0, n] + y * m[1, n] + z * m[2, n] for n in range(3))
    return u, v, w


def smooth_path(path: ArrayLike, pieces: int = 3) -> NDArray[np.float32]:
    """A Catmull-Rom curve through the nodes, as a finer polyline. Any number of columns."""
    p = np.asarray(path, dtype=np.float64)
    padded = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    out = []
    for n in range(1, len(padded) - 2):
        a, b, c, d = padded[n - 1 : n + 3]
        for t in np.arange(pieces) / pieces:
            out.append(
                0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
            )
    return np.asarray([*out, p[-1]], dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Waves:
    """Smooth isotropic noise: a sum of plane waves of random direction and phase; mean 0, standard deviation 1."""

    vectors: NDArray[np.float32]
    phases: NDArray[np.float32]
    wavelength_mm: float

    @classmethod
    def draw(
        cls, rng: np.random.Generator, wavelength_mm: float, count: int = 10, stretch: Vector = (1, 1, 1)
    ) -> Waves:
        """Wavelengths within ±30 % of the given one; ``stretch`` elongates the pattern along the axes."""
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = wavelength_mm * rng.uniform(0.7, 1.3, size=(count, 1))
        vectors = 2 * np.pi * directions / lengths / np.asarray(stretch)
        return cls(vectors.astype(np.float32), rng.uniform(0, 2 * np.pi, count).astype(np.float32), wavelength_mm)

    def __call__(self, points: Points) -> Array:
        """The noise at the points."""
        x, y, z = points
        total = np.zeros(x.shape, dtype=np.float32)
        for (a, b, c), phase in zip(self.vectors, self.phases, strict=True):
            total += np.sin(a * x + b * y + c * z + phase)
        return total * np.float32(np.sqrt(2.0 / len(self.phases)))


def sampled(function: Sdf, points: Points, step_mm: float) -> Array:
    """A function that is smooth over ``step_mm``, evaluated about that far apart and interpolated linearly."""
    if points[0].ndim != 3:
        return function(points)
    steps = [max(1, int(step_mm / mm)) for mm in _steps_mm(points)]
    if max(steps) == 1:
        return function(points)
    nodes = [np.unique(np.append(np.arange(0, n, s), n - 1)) for n, s in zip(points[0].shape, steps, strict=True)]
    picked = np.ix_(*nodes)
    x, y, z = (p[picked] for p in points)
    out = function((x, y, z))
    for axis, (where, n) in enumerate(zip(nodes, points[0].shape, strict=True)):
        if len(where) == n:
            continue
        low = np.clip(np.searchsorted(where, np.arange(n), side="right") - 1, 0, len(where) - 2)
        weight = ((np.arange(n) - where[low]) / (where[low + 1] - where[low])).astype(np.float32)
        weight = weight.reshape([-1 if a == axis else 1 for a in range(3)])
        first = np.take(out, low, axis=axis)
        high = np.take(out, low + 1, axis=axis)
        high -= first
        high *= weight
        first += high
        out = first
    return out


def _steps_mm(points: Points) -> list[float]:
    """About how far apart neighbours are along each array axis."""
    steps = []
    for axis, n in enumerate(points[0].shape):
        last: list[int | slice] = [0, 0, 0]
        last[axis] = n - 1
        d = [float(p[tuple(last)]) - float(p[0, 0, 0]) for p in points]
        steps.append(max(float(np.linalg.norm(d)) / max(n - 1, 1), 1e-3))
    return steps


def step(value: NDArray[Any], low: float, high: float) -> Array:
    """0 below ``low``, 1 above ``high``, a cubic between (``low`` may exceed ``high``)."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def _to_segment(points: Points, a: Array, b: Array) -> tuple[Points, Array]:
    """Offset from the nearest point of the segment, and that point's place 0…1 on it."""
    e = b - a
    d = [p - v for p, v in zip(points, a, strict=True)]
    t = np.clip((d[0] * e[0] + d[1] * e[1] + d[2] * e[2]) / np.float32(e @ e), 0, 1)
    return (d[0] - t * e[0], d[1] - t * e[1], d[2] - t * e[2]), t


def _dot(v: Points, axis: NDArray[np.float32]) -> Array:
    x, y, z = axis.astype(np.float32)
    return np.asarray(v[0] * x + v[1] * y + v[2] * z, dtype=np.float32)


def _nodes(path: ArrayLike, radii: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    nodes = np.asarray(path, dtype=np.float32)
    return nodes, np.broadcast_to(np.asarray(radii, dtype=np.float32), (len(nodes),))
