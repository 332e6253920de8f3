"""Mutual information of CT and MR at one pose, with its exact gradient.

Written here because ITK's Mattes metric spreads its bins evenly over −1000…2000 HU, which leaves soft tissue two of
them, and counts a pose that leaves the image as no worse. Cubic B-spline Parzen window on the CT, linear on the MR:
Thévenaz and Unser 2000, Mattes et al. 2003.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.image.grid import Grid
from hnseg.registration.images import Prepared
from hnseg.registration.poses import Pose, moved

Vector = NDArray[np.float64]
_PAD = 2


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """MR voxels on a regular lattice: places (N, 3) LPS mm, float32; values as fractional bins."""

    points: NDArray[np.float32]
    bins: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Information:
    """The MR's samples and the CT's bins, ready to be compared at any pose."""

    samples: Samples
    ct_bins: NDArray[np.float32]
    ct_grid: Grid
    count: int

    @classmethod
    def of(cls, ct: Prepared, mr: Prepared, *, bins: int, samples: int, sigma_mm: float = 0.0) -> Information:
        """``sigma_mm`` smooths both images, which widens the basin around the best pose."""
        ct_bins = smooth(to_bins(ct, bins), ct.grid.spacing_mm, sigma_mm)
        mr_bins = smooth(to_bins(mr, bins), mr.grid.spacing_mm, sigma_mm)
        return cls(lattice(mr, mr_bins, samples), ct_bins, ct.grid, bins)

    def at(self, mr_to_ct: Pose) -> float:
        """Nats per MR sample; samples outside the CT count as knowing nothing."""
        return self._evaluate(mr_to_ct)[0]

    def with_gradient(self, mr_to_ct: Pose, step: Pose, centre: Vector) -> tuple[float, Vector]:
        """The value at ``mr_to_ct @ step`` and its derivative for six small changes of ``step``: a rotation vector
        (rad) about ``centre`` that is applied after the step's own rotation, then a shift (mm), along the MR's LPS
        axes.
        """
        value, slope, inside = self._evaluate(mr_to_ct @ step)
        in_mr = slope @ mr_to_ct[:3, :3]
        arms = (self.samples.points[inside] - centre) @ step[:3, :3].T
        return value, np.concatenate([np.cross(arms, in_mr).sum(axis=0), in_mr.sum(axis=0)])

    def _evaluate(self, mr_to_ct: Pose) -> tuple[float, NDArray[np.float64], NDArray[np.intp]]:
        """Value, its derivative for each inside sample's place in the CT (n, 3; LPS), and which samples these are."""
        ijk = self.ct_grid.to_ijk(moved(self.samples.points, mr_to_ct)).astype(np.float32)
        last = np.asarray(self.ct_grid.size_ijk, dtype=np.float32) - 1
        inside = np.flatnonzero(((ijk >= 0) & (ijk < last)).all(axis=1))
        if len(inside) < 0.05 * len(ijk):
            return 0.0, np.zeros((len(inside), 3)), inside
        ct, ct_slope_ijk = linear(self.ct_bins, ijk[inside])
        joint, terms = _joint_histogram(ct, self.samples.bins[inside], self.count)
        ct_share, mr_share = joint.sum(axis=1, keepdims=True), joint.sum(axis=0, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_ratio = np.where(joint > 0, np.log(joint / (ct_share * mr_share)), 0.0)
            pull = np.where(joint > 0, np.log(joint / ct_share), 0.0)
        share = len(inside) / len(ijk)
        slope = np.zeros(len(inside))
        flat = pull.ravel()
        for index, _, derivative in terms:
            slope += derivative * flat[index]
        to_lps = self.ct_grid.lps_to_ijk[:3, :3]
        return float((joint * log_ratio).sum()) * share, (slope / len(ijk))[:, None] * (ct_slope_ijk @ to_lps), inside


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


def lattice(mr: Prepared, bins: NDArray[np.float32], samples: int) -> Samples:
    """Every n-th valid voxel in scan order; n odd against the row lengths would be luck, so rows are shifted
    instead.
    """
    kji = np.argwhere(mr.valid.array_kji)
    every = max(1, round(len(kji) / samples))
    if every > 1:
        kji = kji[(kji @ np.array([5, 3, 1])) % every == 0]
    points = mr.grid.to_lps(kji[:, ::-1])
    return Samples(points.astype(np.float32), bins[tuple(kji.T)])


def linear(array: NDArray[np.float32], ijk: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Trilinear values at (n, 3) indices inside the array, and their derivatives for i, j, k."""
    base = ijk.astype(np.intp)
    f = ijk - base
    _, nj, ni = array.shape
    flat = array.ravel()
    start = (base[:, 2] * nj + base[:, 1]) * ni + base[:, 0]
    c = [flat[start + dk * nj * ni + dj * ni + di] for dk in (0, 1) for dj in (0, 1) for di in (0, 1)]
    fi, fj, fk = f.T
    gi, gj, gk = 1 - fi, 1 - fj, 1 - fk
    c00, c01, c10, c11 = (c[n] * gi + c[n + 1] * fi for n in (0, 2, 4, 6))
    c0, c1 = c00 * gj + c01 * fj, c10 * gj + c11 * fj
    d_i = ((c[1] - c[0]) * gj + (c[3] - c[2]) * fj) * gk + ((c[5] - c[4]) * gj + (c[7] - c[6]) * fj) * fk
    d_j = (c01 - c00) * gk + (c11 - c10) * fk
    return c0 * gk + c1 * fk, np.stack([d_i, d_j, c1 - c0], axis=1)


Term = tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]


def _joint_histogram(
    ct: NDArray[np.float32], mr: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float64], list[Term]]:
    """Shares (CT bins × MR bins, sum 1), and per kernel pair: flat cell, weight and its derivative for the CT value."""
    width = count + 1
    rows = count + 2 * _PAD
    ct_base = ct.astype(np.intp)
    mr_base = mr.astype(np.intp)
    ct_part, mr_part = ct - ct_base, mr - mr_base
    total = np.zeros(rows * width)
    terms: list[Term] = []
    for row, (weight, slope) in enumerate(_cubic(ct_part)):
        for column, mr_weight in enumerate((1 - mr_part, mr_part)):
            cell = (ct_base + row + _PAD - 1) * width + mr_base + column
            product = weight * mr_weight
            total += np.bincount(cell, product, minlength=rows * width)
            terms.append((cell, product, slope * mr_weight))
    return total.reshape(rows, width) / len(ct), terms


def _cubic(t: NDArray[np.floating]) -> list[tuple[NDArray[np.floating], NDArray[np.floating]]]:
    """Weights of the four cubic B-splines at −1, 0, 1, 2 for a place t in 0…1, and their derivatives."""
    s = 1 - t
    return [
        (s * s * s / 6, -s * s / 2),
        ((3 * t * t * t - 6 * t * t + 4) / 6, (3 * t * t - 4 * t) / 2),
        ((3 * s * s * s - 6 * s * s + 4) / 6, -(3 * s * s - 4 * s) / 2),
        (t * t * t / 6, t * t / 2),
    ]
