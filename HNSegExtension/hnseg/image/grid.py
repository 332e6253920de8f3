"""Where voxels lie in the patient. LPS millimetres are the only truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hnseg.errors import GeometryMismatch

Matrix = NDArray[np.float64]

_ORTHONORMALITY_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Grid:
    """A regular 3D lattice of voxel centres in LPS space, held in ITK's parts so that file round trips are exact.

    ``direction`` is row-major 3×3 with the unit i, j, k axes as COLUMNS; ``origin_lps`` is the centre of voxel
    (0, 0, 0). Oblique and left-handed axes are allowed; zero-sized, sheared and singular ones raise
    ``GeometryMismatch``.
    """

    size_ijk: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin_lps: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        size = tuple(int(n) for n in self.size_ijk)
        spacing, origin, direction = (
            tuple(float(v) for v in np.ravel(part)) for part in (self.spacing_mm, self.origin_lps, self.direction)
        )
        if len(size) != 3 or min(size) < 1:
            raise GeometryMismatch(f"A grid needs three sizes of at least 1, got {size}; check the image's header.")
        if (len(spacing), len(origin), len(direction)) != (3, 3, 9) or not np.isfinite(
            spacing + origin + direction
        ).all():
            raise GeometryMismatch("A grid needs a finite 3D origin, spacing and direction; check the image's header.")
        if min(spacing) <= 0:
            raise GeometryMismatch(f"A grid needs positive spacing, got {spacing} mm; check the image's header.")
        axes = np.reshape(direction, (3, 3))
        if np.abs(axes.T @ axes - np.eye(3)).max() > _ORTHONORMALITY_TOLERANCE:
            raise GeometryMismatch("A grid needs orthogonal unit axes, got sheared ones; resample the image first.")
        for name, value in zip(
            ("size_ijk", "spacing_mm", "origin_lps", "direction"), (size, spacing, origin, direction), strict=True
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def from_affine(cls, shape_kji: Sequence[int], ijk_to_lps: ArrayLike) -> Grid:
        """From a numpy shape and the 4×4 affine that takes (i, j, k, 1) to LPS mm."""
        affine = np.asarray(ijk_to_lps, dtype=np.float64)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if not (np.isfinite(affine).all() and spacing.min() > 0):
            raise GeometryMismatch("A grid needs a finite, regular 4×4 affine; check the image's header.")
        k, j, i = (int(n) for n in shape_kji)
        return cls((i, j, k), tuple(spacing), tuple(affine[:3, 3]), tuple((affine[:3, :3] / spacing).ravel()))

    @property
    def shape_kji(self) -> tuple[int, int, int]:
        """The numpy shape of an array on this grid."""
        i, j, k = self.size_ijk
        return k, j, i

    @cached_property
    def axes(self) -> Matrix:
        """3×3 with the unit i, j, k axes as columns."""
        return _frozen(np.reshape(self.direction, (3, 3)))

    @cached_property
    def ijk_to_lps(self) -> Matrix:
        """4×4 affine from voxel index (i, j, k) to LPS mm."""
        affine = np.eye(4)
        affine[:3, :3] = self.axes * self.spacing_mm
        affine[:3, 3] = self.origin_lps
        return _frozen(affine)

    @cached_property
    def lps_to_ijk(self) -> Matrix:
        """Inverse of ``ijk_to_lps``."""
        return _frozen(np.linalg.inv(self.ijk_to_lps))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape_kji))

    def to_lps(self, points_ijk: ArrayLike) -> Matrix:
        """Indices (…, 3), fractional allowed, to LPS mm (…, 3)."""
        return np.asarray(np.asarray(points_ijk) @ self.ijk_to_lps[:3, :3].T + self.ijk_to_lps[:3, 3])

    def to_ijk(self, points_lps: ArrayLike) -> Matrix:
        """LPS mm (…, 3) to fractional indices (…, 3)."""
        return np.asarray(np.asarray(points_lps) @ self.lps_to_ijk[:3, :3].T + self.lps_to_ijk[:3, 3])

    def corners_lps(self) -> Matrix:
        """The eight outer corners (voxel edges, not centres), (8, 3) LPS mm."""
        ends = [(-0.5, n - 0.5) for n in self.size_ijk]
        return self.to_lps(np.array(list(product(*ends))))

    def bounds_lps(self) -> tuple[Matrix, Matrix]:
        """Lower and upper corner of the axis-aligned LPS box around the grid, voxel edges included."""
        corners = self.corners_lps()
        return corners.min(axis=0), corners.max(axis=0)

    @property
    def centre_lps(self) -> Matrix:
        """Middle of the grid, LPS mm."""
        return self.to_lps((np.asarray(self.size_ijk) - 1) / 2.0)

    @property
    def diagonal_mm(self) -> float:
        """Length of the grid's space diagonal."""
        return float(np.linalg.norm(np.asarray(self.size_ijk) * np.asarray(self.spacing_mm)))

    def cropped(self, start_ijk: Sequence[int], size_ijk: Sequence[int]) -> Grid:
        """The sub-grid (or, with a negative start, the padded grid) that begins at voxel ``start_ijk``."""
        return replace(self, size_ijk=_triple(size_ijk), origin_lps=tuple(self.to_lps(np.asarray(start_ijk))))

    def respaced(self, spacing_mm: Sequence[float]) -> Grid:
        """The same box and axes with another spacing: outer edge of voxel 0 kept, far end covered."""
        new, old = np.asarray(spacing_mm, dtype=np.float64), np.asarray(self.spacing_mm)
        size = np.maximum(np.ceil(np.asarray(self.size_ijk) * old / new - 1e-6), 1).astype(int)
        first_centre = self.to_lps(-0.5 + 0.5 * new / old)
        return Grid(_triple(size.tolist()), tuple(new), tuple(first_centre), self.direction)

    def is_close(self, other: Grid, *, tolerance_mm: float = 1e-3) -> bool:
        """Same shape, and no corner is farther than ``tolerance_mm`` from its counterpart."""
        if self.size_ijk != other.size_ijk:
            return False
        return bool(np.abs(self.corners_lps() - other.corners_lps()).max() <= tolerance_mm)


def _triple(values: Sequence[int]) -> tuple[int, int, int]:
    i, j, k = values
    return int(i), int(j), int(k)


def _frozen(matrix: NDArray[Any]) -> Matrix:
    frozen = np.array(matrix, dtype=np.float64)
    frozen.setflags(write=False)
    return frozen
