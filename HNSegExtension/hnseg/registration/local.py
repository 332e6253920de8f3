"""Do the parts of the image want to stay where the pose puts them? Block matching by pointwise mutual information."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hnseg.registration.images import Prepared
from hnseg.registration.information import lattice, smooth, to_bins
from hnseg.registration.poses import Pose, moved

BLOCK_MM = 40.0
_REACH_MM = 8.0
_BINS = 16
_SAMPLES = 80_000
_FEWEST = 150
"""Samples in a block, fewer of which say too little."""


@dataclass(frozen=True, slots=True, eq=False)
class LocalShifts:
    """Per block: centre (n, 3; CT, LPS mm), best shift (n, 3; mm), and how much better than the average shift
    (nats).
    """

    centres: NDArray[np.float64]
    shifts: NDArray[np.float64]
    clearness: NDArray[np.float64]


def local_shifts(ct: Prepared, mr: Prepared, mr_to_ct: Pose, *, step_mm: float = 2.0) -> LocalShifts:
    """For blocks of 4 cm, the shift within ±8 mm that fits best.

    What fits is learnt from the whole image at the pose: log p(ct, mr) / p(ct) p(mr), which needs no large blocks.
    """
    ct_bins = np.rint(smooth(to_bins(ct, _BINS), ct.grid.spacing_mm, 1.0)).astype(np.int16)
    mr_bins = smooth(to_bins(mr, _BINS), mr.grid.spacing_mm, 1.0)
    samples = lattice(mr, mr_bins, _SAMPLES)
    places = moved(samples.points, mr_to_ct)
    steps = [max(1, round(step_mm / mm)) for mm in ct.grid.spacing_mm]
    counts = [int(_REACH_MM / (s * mm)) for s, mm in zip(steps, ct.grid.spacing_mm, strict=True)]
    margin = np.multiply(steps, counts)
    ijk = np.rint(ct.grid.to_ijk(places)).astype(np.intp)
    inside = np.all((ijk >= margin) & (ijk < np.asarray(ct.grid.size_ijk) - margin), axis=1)
    ijk, places, values = ijk[inside], places[inside], np.rint(samples.bins[inside]).astype(np.intp)
    blocks, block = _blocks(places)
    flat, strides = ct_bins.ravel(), np.array([1, ct_bins.shape[2], ct_bins.shape[2] * ct_bins.shape[1]])
    start = ijk @ strides
    table = _pointwise_information(flat[start], values).ravel()
    offsets = np.array(list(product(*(np.arange(-n, n + 1) * s for n, s in zip(counts, steps, strict=True)))))
    fit = np.stack([
        np.bincount(block, table[flat[start + offset @ strides] * _BINS + values], minlength=len(blocks))
        for offset in offsets
    ])  # fmt: skip
    size = np.maximum(np.bincount(block, minlength=len(blocks)), 1)
    mean_fit = fit / size
    best = mean_fit.argmax(axis=0)
    chosen = size >= _FEWEST
    shifts_mm = (offsets * ct.grid.spacing_mm) @ ct.grid.axes.T
    clearness = mean_fit.max(axis=0) - mean_fit.mean(axis=0)
    return LocalShifts(blocks[chosen], shifts_mm[best][chosen], clearness[chosen])


def steady_share(ct: Prepared, mr: Prepared, mr_to_ct: Pose, *, still_mm: float = 3.0) -> float:
    """Share of the blocks, weighted by how clearly they speak, whose best shift is at most ``still_mm``; 0 without
    any.
    """
    found = local_shifts(ct, mr, mr_to_ct)
    still = np.linalg.norm(found.shifts, axis=1) <= still_mm
    return float(found.clearness @ still / max(float(found.clearness.sum()), 1e-9))


def _blocks(places: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Centres of the blocks, and each place's block."""
    cell = np.floor(places / BLOCK_MM).astype(np.intp)
    cells, block = np.unique(cell, axis=0, return_inverse=True)
    return (cells.astype(np.float64) + 0.5) * BLOCK_MM, block.ravel().astype(np.intp)


def _pointwise_information(ct: NDArray[np.int16], mr: NDArray[np.intp]) -> NDArray[np.float64]:
    joint = np.bincount(ct.astype(np.intp) * _BINS + mr, minlength=_BINS * _BINS).reshape(_BINS, _BINS) + 0.5
    joint = joint / joint.sum()
    return np.asarray(np.log(joint / joint.sum(axis=0) / joint.sum(axis=1, keepdims=True)))
