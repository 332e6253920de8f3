"""Structures → voxels: partial volume at every edge, texture inside, labels from the same distances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hnseg.image.grid import Grid
from hnseg.organs import BY_NAME, ORGANS
from hnseg.phantom.anatomy import REACH_MM, Anatomy
from hnseg.phantom.lattice import Box, Lattice
from hnseg.phantom.shapes import Array, Waves
from hnseg.phantom.structure import Structure, View

Labels = NDArray[np.uint8]

_SLAB_VOXELS = 2_500_000
# Rank of every label where masks overlap: the lower wins; the background loses to all.
_RANK = np.array([999, *(organ.priority for organ in ORGANS)], dtype=np.int16)


@dataclass(frozen=True, slots=True)
class Palette:
    """The value and the texture's standard deviation of every tissue in one modality, and the value of plain air."""

    value: Mapping[str, float]
    texture: Mapping[str, float]
    grainy: frozenset[str]
    air: float


@dataclass(frozen=True, eq=False)
class Painter:
    """Paints structures on the lattice's grid, slab by slab so that memory stays bounded."""

    lattice: Lattice
    anatomy: Anatomy
    palette: Palette | None
    seed: int
    missing: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        """The grid that is painted on."""
        return self.lattice.grid

    @cached_property
    def boxes(self) -> tuple[tuple[Structure, Box], ...]:
        """The structures that the grid meets, each with its voxels."""
        found = ((s, self.lattice.box_of(s.low - s.margin, s.high + s.margin)) for s in self.anatomy.structures)
        return tuple((s, box) for s, box in found if box is not None)

    def occupied(self, start: int, stop: int) -> Box | None:
        """The box of those slices outside of which there is only air."""
        step_k, step_j, step_i = self.lattice.steps
        near = slice(start // step_k, -(-(stop - 1) // step_k) + 1)
        _, nj, ni = self.grid.shape_kji
        within = np.asarray(self._skin_at_nodes[near].any(axis=0))
        if not within.any():
            return None
        rows, columns = (np.flatnonzero(within.any(axis=axis)) for axis in (1, 0))
        return (
            slice(start, stop),
            slice(max((int(rows[0]) - 1) * step_j, 0), min((int(rows[-1]) + 1) * step_j + 1, nj)),
            slice(max((int(columns[0]) - 1) * step_i, 0), min((int(columns[-1]) + 1) * step_i + 1, ni)),
        )

    @cached_property
    def _skin_at_nodes(self) -> NDArray[np.bool_]:
        return np.asarray(self.lattice.at_nodes(self.anatomy.skin.sdf) < REACH_MM)

    def prepare(self) -> None:
        """Work out once what all slabs share, before threads start to ask for it."""
        _ = self.boxes, self._skin_at_nodes

    def slabs(self, multiple: int = 1) -> Sequence[tuple[int, int]]:
        """Ranges of slices, in order, each of a bounded number of voxels and of ``multiple`` slices (but the last)."""
        nk, nj, ni = self.grid.shape_kji
        thick = max(1, _SLAB_VOXELS // (ni * nj * multiple)) * multiple
        return [(k, min(k + thick, nk)) for k in range(0, nk, thick)]

    def paint(self, start: int, stop: int, *, labels: bool = True) -> tuple[Array, Labels]:
        """Image (air where there is nothing; empty without a palette) and labels (0 if not wanted) of those slices."""
        shape = (stop - start, *self.grid.shape_kji[1:])
        image = np.full(shape if self.palette else (0, 0, 0), self.palette.air if self.palette else 0, dtype=np.float32)
        label = np.zeros(shape, dtype=np.uint8)
        slab = self.occupied(start, stop)
        if slab is None:
            return image, label
        points = self.lattice.points(slab)
        textures = _Textures(self, slab) if self.palette else None
        for structure, box in self.boxes:
            part = _overlap(box, slab)
            wanted = (self.palette and structure.layers) or (labels and structure.organ)
            if part is None or not wanted:
                continue
            inner = _relative(part, slab)
            view = View(self.lattice, part, (points[0][inner], points[1][inner], points[2][inner]), box)
            distance = structure.distance(view)
            here = _relative(part, (slice(start, stop), slice(0, shape[1]), slice(0, shape[2])))
            if textures is not None:
                self._blend(image[here], distance, structure, textures, inner)
            if labels and structure.organ and structure.organ not in self.missing:
                _claim(label[here], distance, BY_NAME[structure.organ].label)
        return image, label

    def _blend(self, image: Array, distance: Array, structure: Structure, textures: _Textures, inner: Box) -> None:
        assert self.palette is not None
        width = np.float32(self._edge_mm + structure.blur_mm)
        for depth, tissue in structure.layers:
            share = np.float32(0.5) - (distance + np.float32(depth)) / width
            np.clip(share, 0, 1, out=share)
            if not share.any():
                continue
            texture = textures.grain if tissue in self.palette.grainy else textures.smooth
            value = texture[inner] * np.float32(self.palette.texture[tissue])
            value += np.float32(self.palette.value[tissue])
            value -= image
            value *= share
            image += value

    @cached_property
    def _edge_mm(self) -> float:
        """Width of the partial-volume ramp: about a voxel, and never sharper than a scanner."""
        return max(0.75, float(np.cbrt(np.prod(self.grid.spacing_mm))))

    @cached_property
    def texture_waves(self) -> tuple[Waves, Waves]:
        """Two scales of the tissues' own variation."""
        rng = np.random.default_rng([self.seed, 77])
        return Waves.draw(rng, 38.0, 6), Waves.draw(rng, 15.0, 8)


class _Textures:
    """Zero-mean, unit-variance fields of one slab: fine grain (trabeculae, lobules) and a smoother mixture."""

    def __init__(self, painter: Painter, slab: Box) -> None:
        coarse, medium = (painter.lattice.spread(painter.lattice.at_nodes(w), slab) for w in painter.texture_waves)
        rng = np.random.default_rng([painter.seed, 78, slab[0].start])
        white = rng.standard_normal(coarse.shape, dtype=np.float32)
        spacing = np.asarray(painter.grid.spacing_mm[1::-1])
        sigma = 0.75 / spacing
        fine = gaussian_filter(white, (0, *sigma), truncate=2.5)
        fine /= np.float32(max(fine[:, ::7, ::7].std(), 1e-6))
        self.grain = np.float32(0.9) * fine + np.float32(0.44) * medium
        self.smooth = np.float32(0.55) * fine + np.float32(0.6) * medium + np.float32(0.58) * coarse


def _claim(labels: Labels, distance: Array, label: int) -> None:
    """Inside the outline the label is set, unless a smaller organ is there already."""
    inside = (distance < 0) & (_RANK[labels] > _RANK[label])
    labels[inside] = label


def _overlap(first: Box, second: Box) -> Box | None:
    parts = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(first, second, strict=True)]
    return (parts[0], parts[1], parts[2]) if all(p.stop > p.start for p in parts) else None


def _relative(inner: Box, outer: Box) -> Box:
    parts = [slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True)]
    return parts[0], parts[1], parts[2]


def slab_points_lps(grid: Grid, start: int, stop: int) -> Iterator[Array]:
    """x, y, z in LPS mm of those slices, as three broadcastable float32 arrays for axis-aligned grids."""
    first, step = np.asarray(grid.origin_lps), np.diag(grid.axes) * grid.spacing_mm
    for axis, (low, high) in enumerate(((0, grid.size_ijk[0]), (0, grid.size_ijk[1]), (start, stop))):
        values = (first[axis] + step[axis] * np.arange(low, high)).astype(np.float32)
        yield values.reshape([-1 if n == 2 - axis else 1 for n in range(3)])
