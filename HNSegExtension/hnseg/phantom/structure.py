"""A structure: a shape with what it is made of, how rough it is, and which organ it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hnseg.phantom.lattice import Box, Lattice
from hnseg.phantom.shapes import (
    Array,
    Points,
    Sdf,
    Vector,
    Waves,
    band,
    cut,
    ellipsoid,
    rounded_box,
    sampled,
    tube,
    union,
)


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A signed distance with the canonical box outside of which it is positive."""

    sdf: Sdf
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def __or__(self, other: Shape) -> Shape:
        return self.joined(other, 0.0)

    def joined(self, other: Shape, blend_mm: float) -> Shape:
        """Union with a smooth crease."""
        return Shape(
            lambda p: union(self.sdf(p), other.sdf(p), blend_mm),
            np.minimum(self.low, other.low) - blend_mm / 4,
            np.maximum(self.high, other.high) + blend_mm / 4,
        )

    def without(self, other: Shape, blend_mm: float = 0.0) -> Shape:
        """Difference."""
        return replace(self, sdf=lambda p: cut(self.sdf(p), other.sdf(p), blend_mm))

    def within(self, other: Shape) -> Shape:
        """Intersection."""
        return Shape(
            lambda p: np.maximum(self.sdf(p), other.sdf(p)),
            np.maximum(self.low, other.low),
            np.minimum(self.high, other.high),
        )

    def grown(self, by_mm: float) -> Shape:
        """Outline moved outwards."""
        return Shape(lambda p: self.sdf(p) - np.float32(by_mm), self.low - by_mm, self.high + by_mm)

    def moved(self, offset: Vector) -> Shape:
        """Shifted by ``offset`` mm."""
        dx, dy, dz = (np.float32(v) for v in offset)
        return Shape(
            lambda p: self.sdf((p[0] - dx, p[1] - dy, p[2] - dz)),
            self.low + np.asarray(offset),
            self.high + np.asarray(offset),
        )

    def scaled(self, factor: float, centre: Vector | None = None) -> Shape:
        """Scaled about ``centre`` (default: the middle of the box)."""
        middle = np.asarray(centre if centre is not None else (self.low + self.high) / 2, dtype=np.float64)
        f = np.float32(factor)
        c = middle.astype(np.float32)

        def sdf(p: Points) -> Array:
            return f * self.sdf(((p[0] - c[0]) / f + c[0], (p[1] - c[1]) / f + c[1], (p[2] - c[2]) / f + c[2]))

        return Shape(sdf, middle + (self.low - middle) * factor, middle + (self.high - middle) * factor)

    def rough(self, waves: Waves, amplitude_mm: float) -> Shape:
        """Outline displaced by smooth noise of that standard deviation."""
        amp = np.float32(amplitude_mm)
        step_mm = waves.wavelength_mm / 5

        def sdf(p: Points) -> Array:
            return self.sdf(p) + amp * sampled(waves, p, step_mm)

        return Shape(sdf, self.low - 2.5 * amplitude_mm, self.high + 2.5 * amplitude_mm)

    def coarse(self, step_mm: float) -> Shape:
        """The same, evaluated only every ``step_mm`` and interpolated: for large smooth shapes."""
        return Shape(lambda p: sampled(self.sdf, p, step_mm), self.low, self.high)


def blob(centre: Vector, size: Vector, rotation: ArrayLike | None = None) -> Shape:
    """Ellipsoid of full ``size`` (mm along its axes)."""
    half = np.asarray(size, dtype=np.float64) / 2
    reach = half if rotation is None else np.sqrt((np.asarray(rotation) ** 2) @ half**2)
    middle = np.asarray(centre, dtype=np.float64)
    return Shape(lambda p: ellipsoid(p, centre, half.tolist(), rotation), middle - reach, middle + reach)


def block(centre: Vector, size: Vector, corner_mm: float, rotation: ArrayLike | None = None) -> Shape:
    """Rounded box of full ``size``."""
    half = np.asarray(size, dtype=np.float64) / 2
    reach = half if rotation is None else np.abs(np.asarray(rotation)) @ half
    middle = np.asarray(centre, dtype=np.float64)
    return Shape(lambda p: rounded_box(p, centre, half.tolist(), corner_mm, rotation), middle - reach, middle + reach)


def pipe(path: ArrayLike, radii: ArrayLike, reach_mm: float = 8.0) -> Shape:
    """Round tube along a polyline."""
    nodes = np.asarray(path, dtype=np.float64)
    reach = np.max(radii)
    return Shape(lambda p: tube(p, nodes, radii, reach_mm), nodes.min(axis=0) - reach, nodes.max(axis=0) + reach)


def strap(
    path: ArrayLike,
    half_widths: ArrayLike,
    half_heights: ArrayLike,
    up: Vector = (0, 0, 1),
    reach_mm: float = 8.0,
) -> Shape:
    """Tube of elliptical cross-section; see ``shapes.band``."""
    nodes = np.asarray(path, dtype=np.float64)
    reach = max(np.max(half_widths), np.max(half_heights))
    return Shape(
        lambda p: band(p, nodes, half_widths, half_heights, up, reach_mm),
        nodes.min(axis=0) - reach,
        nodes.max(axis=0) + reach,
    )


@dataclass(frozen=True, eq=False)
class View:
    """The voxels of one box, as a structure sees them: canonical points, and smooth fields by way of the lattice."""

    lattice: Lattice
    box: Box
    points: Points
    whole: Box
    """The box of all the voxels of the structure, in and outside of this slab."""

    def smooth_here(self, function: Sdf) -> Array:
        """As ``smooth``, for a function that only this structure needs: evaluated within its own box."""
        return self.lattice.spread_within(function, self.whole, self.box)

    def smooth(self, function: Sdf) -> Array:
        """A smooth function of the points, evaluated at the lattice's nodes and interpolated."""
        return self.lattice.spread(self.lattice.at_nodes(function), self.box)


Layer = tuple[float, str]


@dataclass(frozen=True, eq=False)
class Structure:
    """``layers`` are painted in order, each with its outline ``depth`` mm inside (negative: outside) the shape.

    ``distance`` gives the signed distance in a view. ``organ`` is the organ that the shape is the truth of; a structure
    without layers is a label only. ``blur_mm`` softens the edge beyond the voxel size.
    """

    name: str
    layers: tuple[Layer, ...]
    distance: Callable[[View], Array]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    organ: str | None = None
    blur_mm: float = 0.0
    margin: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "margin", max([0.0, *(-depth for depth, _ in self.layers)]))


def solid(
    name: str,
    layers: str | Sequence[Layer],
    shape: Shape,
    *,
    organ: str | None = None,
    blur_mm: float = 0.0,
    under: tuple[Shape, float] | None = None,
    outside: tuple[Shape, float] | None = None,
) -> Structure:
    """A structure whose shape is evaluated at every voxel.

    ``under`` keeps it at least so many mm below the surface of a large smooth shape, ``outside`` away from one.
    """

    def distance(view: View) -> Array:
        found = shape.sdf(view.points)
        if under is not None:
            found = np.maximum(found, view.smooth(under[0].sdf) + np.float32(under[1]))
        if outside is not None:
            found = np.maximum(found, np.float32(outside[1]) - view.smooth(outside[0].sdf))
        return found

    return Structure(name, _layers(layers), distance, shape.low, shape.high, organ=organ, blur_mm=blur_mm)


def broad(name: str, layers: str | Sequence[Layer], shape: Shape) -> Structure:
    """A structure large and smooth enough to be evaluated on the lattice."""
    return Structure(name, _layers(layers), lambda view: view.smooth(shape.sdf), shape.low, shape.high)


def _layers(layers: str | Sequence[Layer]) -> tuple[Layer, ...]:
    return ((0.0, layers),) if isinstance(layers, str) else tuple(layers)


@dataclass(eq=False)
class Remembered:
    """A function that keeps its last few results by the very points that it was given (the lattice's nodes)."""

    function: Sdf
    _kept: list[tuple[Points, Array]] = field(default_factory=list)

    def __call__(self, points: Points) -> Array:
        """The function's value."""
        for known, value in self._kept:
            if known is points:
                return value
        value = self.function(points)
        self._kept = [(points, value), *self._kept[:1]]
        return value
