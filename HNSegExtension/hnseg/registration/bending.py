"""A cubic B-spline displacement over a box: evaluated, held smooth, checked, made ITK's."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, sparse

from hnseg.image.grid import Grid

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ControlLattice:
    """Control points ``spacing_mm`` apart along the LPS axes from ``low`` on. Coefficients are (points, 3), LPS mm, i
    fastest.
    """

    low: Array
    spacing_mm: float
    shape_kji: tuple[int, int, int]

    @classmethod
    def over(cls, grid: Grid, spacing_mm: float) -> ControlLattice:
        """Every place of the grid's LPS box has its full 4 × 4 × 4 control points."""
        low, high = (np.asarray(end) for end in grid.bounds_lps())
        i, j, k = (int(n) for n in np.ceil((high - low) / spacing_mm) + 4)
        return cls(low - 1.5 * spacing_mm, spacing_mm, (k, j, i))

    @property
    def points(self) -> int:
        """Number of control points."""
        return int(np.prod(self.shape_kji))

    @property
    def volume_ml(self) -> float:
        """Of all cells together."""
        return self.points * self.spacing_mm**3 / 1000

    def nodes(self) -> Array:
        """Places of the control points, (points, 3) LPS mm."""
        k, j, i = np.indices(self.shape_kji)
        return np.asarray(np.stack([i.ravel(), j.ravel(), k.ravel()], axis=1) * self.spacing_mm + self.low)

    def weights(self, points_lps: ArrayLike) -> sparse.csr_array:
        """Sparse (N, control points): times coefficients it gives the displacement at the points, inside the box."""
        at = (np.asarray(points_lps, dtype=np.float64) - self.low) / self.spacing_mm
        base = np.clip(np.floor(at).astype(np.int64), 1, np.array(self.shape_kji[::-1]) - 3)
        wi, wj, wk = (_cubic(at[:, axis] - base[:, axis]) for axis in range(3))
        _, nj, ni = self.shape_kji
        columns, values = [], []
        for c, b, a in product(range(4), repeat=3):
            columns.append(((base[:, 2] + c - 1) * nj + base[:, 1] + b - 1) * ni + base[:, 0] + a - 1)
            values.append(wk[c] * wj[b] * wi[a])
        flat = np.stack(values, axis=1).astype(np.float32).ravel()
        ends = np.arange(len(at) + 1) * 64
        return sparse.csr_array((flat, np.stack(columns, axis=1).ravel(), ends), shape=(len(at), self.points))

    def displacement(self, coefficients: Array, points_lps: ArrayLike) -> Array:
        """(N, 3) mm at any points; outside the box the border goes on."""
        at = (np.asarray(points_lps, dtype=np.float64) - self.low) / self.spacing_mm
        return np.stack([_spline(c.reshape(self.shape_kji), at.T[::-1]) for c in coefficients.T], axis=-1)

    def stiffness(self, first_order: float) -> sparse.csr_array:
        """Symmetric S: c·S·c is the mean squared second derivative (mm⁻²) plus ``first_order`` (mm⁻²) times the mean
        squared first derivative, for coefficients c in mm. The former is the bending energy of Rueckert et al. 1999.
        """
        h = self.spacing_mm
        terms = []
        for a in range(3):
            terms.append((1.0 / h**4, self._difference({a: 2})))
            terms.append((first_order / h**2, self._difference({a: 1})))
        for a, b in ((0, 1), (0, 2), (1, 2)):
            terms.append((2.0 / h**4, self._difference({a: 1, b: 1})))
        return sparse.csr_array(sum(scale * (d.T @ d) for scale, d in terms) / self.points)

    def _difference(self, orders: dict[int, int]) -> sparse.csr_array:
        """Finite differences of the given order along k (0), j (1), i (2)."""
        whole = sparse.csr_array(np.ones((1, 1)))
        for axis, n in enumerate(self.shape_kji):
            steps = {0: [1.0], 1: [-1.0, 1.0], 2: [1.0, -2.0, 1.0]}[orders.get(axis, 0)]
            rows = n - len(steps) + 1
            factor = np.asarray(sum(step * np.eye(rows, n, offset) for offset, step in enumerate(steps)))
            whole = sparse.csr_array(sparse.kron(whole, sparse.csr_array(factor)))
        return whole

    def fitted(self, displacement: Array) -> Array:
        """Coefficients of the spline through the displacements at the nodes, (points, 3)."""
        images = (d.reshape(self.shape_kji) for d in displacement.T)
        filtered = [np.asarray(ndimage.spline_filter(image, 3, mode="nearest"), dtype=np.float64) for image in images]
        return np.stack([image.ravel() for image in filtered], axis=1)

    def smallest_jacobian(self, coefficients: Array) -> float:
        """The smallest determinant of x → x + u(x), over the control points and the middles of their cells."""
        field = np.stack([_twice_as_fine(c.reshape(self.shape_kji)) for c in coefficients.T], axis=-1)
        slopes = np.moveaxis(np.asarray(np.gradient(field, self.spacing_mm / 2, axis=(2, 1, 0))), 0, -1)
        inner = (slice(2, -2),) * 3
        return float(np.linalg.det(np.eye(3) + slopes[inner]).min())

    def to_transform(self, coefficients: Array) -> sitk.BSplineTransform:
        """ITK's B-spline with the same displacement inside the box, and none outside."""
        images = []
        for component in coefficients.T:
            image = sitk.GetImageFromArray(component.reshape(self.shape_kji))
            image.SetOrigin(self.low.tolist())
            image.SetSpacing([self.spacing_mm] * 3)
            images.append(image)
        return sitk.BSplineTransform(images, 3)


def _spline(coefficients: Array, at: Array) -> Array:
    return np.asarray(ndimage.map_coordinates(coefficients, at, order=3, prefilter=False, mode="nearest"))


def _twice_as_fine(coefficients: Array) -> Array:
    """The spline's values at the control points and halfway between."""
    axes = (np.arange(2 * n - 1) / 2 for n in coefficients.shape)
    return _spline(coefficients, np.stack(np.meshgrid(*axes, indexing="ij")))


def _cubic(t: Array) -> list[Array]:
    s = 1 - t
    return [s**3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (3 * s**3 - 6 * s**2 + 4) / 6, t**3 / 6]
