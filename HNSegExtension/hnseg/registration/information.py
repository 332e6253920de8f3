"""Mutual information of CT and MR, with its exact gradient for every sample's place.

Written here because ITK's Mattes metric spreads its bins evenly over −1000…2000 HU, which leaves soft tissue two of
them, and counts a pose that leaves the image as no worse. Cubic B-spline Parzen window on the one image, linear on the
other: Thévenaz and Unser 2000, Mattes et al. 2003.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.image.grid import Grid
from hnseg.registration.images import Prepared
from hnseg.registration.poses import Pose

Vector = NDArray[np.float64]
_PAD = 2


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Voxels of one image on a regular lattice: places (N, 3) LPS mm, float32; values as fractional bins."""

    points: NDArray[np.float32]
    bins: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Information:
    """Samples of one image (the MR, for a rigid pose) and the whole of the other (the CT), ready to be compared."""

    samples: Samples
    bins: NDArray[np.float32]
    valid: NDArray[np.bool_]
    grid: Grid
    count: int

    @classmethod
    def of(cls, whole: Prepared, sampled: Prepared, *, bins: int, samples: int, sigma_mm: float = 0.0) -> Information:
        """``sigma_mm`` smooths both images, which widens the basin around the best pose."""
        whole_bins, sampled_bins = (
            smooth(to_bins(image, bins), image.grid.spacing_mm, sigma_mm) for image in (whole, sampled)
        )
        return cls(lattice(sampled, sampled_bins, samples), whole_bins, whole.valid.array_kji, whole.grid, bins)

    def at(self, sampled_to_whole: Pose) -> float:
        """Nats per sample; samples that leave the other image's data count as knowing nothing."""
        return self._at_indices(self._indices(self.samples.points, sampled_to_whole))[0]

    def with_gradient(self, sampled_to_whole: Pose, step: Pose, centre: Vector) -> tuple[float, Vector]:
        """The value at ``sampled_to_whole @ step`` and its derivative for six small changes of ``step``: a rotation
        vector (rad) about ``centre`` that is applied after the step's own rotation, then a shift (mm), along the
        sampled image's LPS axes.
        """
        value, slope, seen = self._at_indices(self._indices(self.samples.points, sampled_to_whole @ step))
        to_sampled = self.grid.lps_to_ijk[:3, :3] @ sampled_to_whole[:3, :3]
        arms = self.samples.points[seen] - centre.astype(np.float32)
        moments = step[:3, :3] @ (slope @ arms).T.astype(np.float64) @ to_sampled
        turning = [moments[a, b] - moments[b, a] for a, b in ((1, 2), (2, 0), (0, 1))]
        return value, np.concatenate([turning, slope.sum(axis=1, dtype=np.float64) @ to_sampled])

    def at_places(self, places: NDArray[np.floating]) -> tuple[float, NDArray[np.float64], NDArray[np.intp]]:
        """Where each sample lies in the other image, (N, 3) LPS mm: the value, its derivative for the places of the
        samples that meet data (n, 3; per mm), and which samples these are.
        """
        value, slope, seen = self._at_indices(self._indices(places))
        return value, slope.T @ self.grid.lps_to_ijk[:3, :3], seen

    def _indices(self, points: NDArray[np.floating], to_whole: Pose | None = None) -> NDArray[np.float32]:
        """Of points (N, 3) LPS mm in the other image: (3, N), as whole rows are quicker than whole columns."""
        matrix = self.grid.lps_to_ijk if to_whole is None else self.grid.lps_to_ijk @ to_whole
        rotated = matrix[:3, :3].astype(points.dtype) @ points.T
        return np.asarray(rotated + matrix[:3, 3:].astype(points.dtype), dtype=np.float32)

    def _at_indices(self, ijk: NDArray[np.float32]) -> tuple[float, NDArray[np.float32], NDArray[np.intp]]:
        """Value, its derivative for the indices of the samples that meet data (3, n), and which these are."""
        seen = self._seen(ijk)
        if len(seen) < 0.05 * ijk.shape[1]:
            return 0.0, np.zeros((3, len(seen)), dtype=np.float32), seen
        whole, slope_ijk = linear(self.bins, ijk[:, seen])
        joint, terms = _joint_histogram(whole, self.samples.bins[seen], self.count)
        rows, columns = joint.sum(axis=1, keepdims=True), joint.sum(axis=0, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_ratio = np.where(joint > 0, np.log(joint / (rows * columns)), 0.0)
            pull = np.where(joint > 0, np.log(joint / rows), 0.0).ravel().astype(np.float32)
        slope = np.zeros(len(seen), dtype=np.float32)
        for cell, derivative in terms:
            slope += derivative * pull[cell]
        value = float((joint * log_ratio).sum()) * len(seen) / ijk.shape[1]
        return value, slope_ijk * (slope / np.float32(ijk.shape[1])), seen

    def _seen(self, ijk: NDArray[np.float32]) -> NDArray[np.intp]:
        """Samples that lie between voxels of data; the nearest one decides."""
        inside = np.ones(ijk.shape[1], dtype=bool)
        for row, count in zip(ijk, self.grid.size_ijk, strict=True):
            inside &= (row >= 0) & (row < count - 1)
        seen = np.flatnonzero(inside)
        i, j, k = np.rint(ijk[:, seen]).astype(np.intp)
        return np.asarray(seen[self.valid[k, j, i]])


def to_bins(image: Prepared, count: int) -> NDArray[np.float32]:
    """Values as fractional bins, 0…``count`` − 1: air in bin 0, the body half by rank and half by value.

    Rank spreads soft tissue over many bins, value keeps bone and metal apart.
    """
    values = image.values.array_kji
    body = values[image.valid.array_kji & (values > image.air_below)]
    if not body.size:
        return np.zeros(values.shape, dtype=np.float32)
    shares = np.linspace(0, 1, 65)
    knots = np.maximum.accumulate(np.quantile(body, shares))
    low, high = knots[0], max(knots[-1], knots[0] + 1e-6)
    heights = 1 + (count - 2) * (0.5 * shares + 0.5 * (knots - low) / (high - low))
    air = np.quantile(values[image.valid.array_kji], 0.02)
    bins = np.interp(values, np.concatenate([[min(air, low - 1e-6)], knots]), np.concatenate([[0], heights]))
    return np.asarray(bins, dtype=np.float32)


def smooth(array: NDArray[np.float32], spacing_mm: Sequence[float], sigma_mm: float) -> NDArray[np.float32]:
    """Gaussian; nothing is done for ``sigma_mm`` 0."""
    if not sigma_mm:
        return array
    return np.asarray(ndimage.gaussian_filter(array, [sigma_mm / mm for mm in spacing_mm[::-1]], mode="nearest"))


def lattice(image: Prepared, bins: NDArray[np.float32], samples: int) -> Samples:
    """Every n-th valid voxel, in a pattern that shifts from row to row, so that no line of voxels is left out."""
    kji = np.argwhere(image.valid.array_kji)
    every = max(1, round(len(kji) / samples))
    if every > 1:
        kji = kji[(kji @ np.array([5, 3, 1])) % every == 0]
    points = image.grid.to_lps(kji[:, ::-1])
    return Samples(points.astype(np.float32), bins[tuple(kji.T)])


def linear(array: NDArray[np.float32], ijk: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Trilinear values (n) at indices (3, n) inside the array, and their derivatives for i, j, k (3, n)."""
    base = ijk.astype(np.intp)
    fi, fj, fk = ijk - base.astype(np.float32)
    _, nj, ni = array.shape
    flat = array.ravel()
    start = (base[2] * nj + base[1]) * ni + base[0]
    c = [flat[start + (dk * nj * ni + dj * ni + di)] for dk in (0, 1) for dj in (0, 1) for di in (0, 1)]
    d00, d01, d10, d11 = (c[n + 1] - c[n] for n in (0, 2, 4, 6))
    c00, c01, c10, c11 = (c[n] + fi * d for n, d in ((0, d00), (2, d01), (4, d10), (6, d11)))
    d0, d1 = c01 - c00, c11 - c10
    c0, c1 = c00 + fj * d0, c10 + fj * d1
    e0, e1 = d00 + fj * (d01 - d00), d10 + fj * (d11 - d10)
    return c0 + fk * (c1 - c0), np.stack([e0 + fk * (e1 - e0), d0 + fk * (d1 - d0), c1 - c0])


Term = tuple[NDArray[np.intp], NDArray[np.float32]]


def _joint_histogram(
    whole: NDArray[np.float32], sampled: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float64], list[Term]]:
    """Shares (bins of the whole image × of the sampled one, sum 1), and per pair of kernel taps: the flat cell and the
    weight's derivative for the whole image's value.
    """
    width = count + 1
    rows = count + 2 * _PAD
    row_base, column_base = whole.astype(np.intp), sampled.astype(np.intp)
    row_part, column_part = whole - row_base, sampled - column_base
    total = np.zeros(rows * width)
    terms: list[Term] = []
    for row, (weight, slope) in enumerate(_cubic(row_part)):
        for column, share in enumerate((1 - column_part, column_part)):
            cell = (row_base + row + _PAD - 1) * width + column_base + column
            total += np.bincount(cell, weight * share, minlength=rows * width)
            terms.append((cell, slope * share))
    return total.reshape(rows, width) / len(whole), terms


def _cubic(t: NDArray[np.floating]) -> list[tuple[NDArray[np.floating], NDArray[np.floating]]]:
    """Weights of the four cubic B-splines at −1, 0, 1, 2 for a place t in 0…1, and their derivatives."""
    s = 1 - t
    return [
        (s * s * s / 6, -s * s / 2),
        ((3 * t * t * t - 6 * t * t + 4) / 6, (3 * t * t - 4 * t) / 2),
        ((3 * s * s * s - 6 * s * s + 4) / 6, -(3 * s * s - 4 * s) / 2),
        (t * t * t / 6, t * t / 2),
    ]
