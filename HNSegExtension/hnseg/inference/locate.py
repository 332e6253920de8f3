"""Where the head and neck lie in a long scan, so that the rest of the body need not be looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from hnseg.image.body import body_mask
from hnseg.image.grid import Grid
from hnseg.image.orient import canonical
from hnseg.image.volume import Volume
from hnseg.inference.predictor import Prediction
from hnseg.inference.voxels import organ_voxels, points_ijk
from hnseg.models.metadata import BundleMetadata
from hnseg.organs import ORGANS
from hnseg.preprocessing import NetworkInput, preprocess

LONG_MM = 500.0
"""A scan that is no longer than this is looked at from end to end."""

_BEYOND_MM = 100.0
"""Kept above the highest organ's usual centre and below the lowest one's."""
_TOLERANCE_MM = 30.0
"""How far the votes for one place may lie apart."""
_LEAST_VOTES = 1.2
"""More than a single organ can give."""

Predict = Callable[[NetworkInput, Grid], Prediction]
"""A quick prediction: windows that do not overlap."""


def head_and_neck(ct: Volume, metadata: BundleMetadata, predict: Predict) -> Volume:
    """The part of a long CT, canonical, that can hold the model's organs; ``ct`` itself where it is short or in doubt.

    The network looks down the middle of the body, one window wide. Every organ has one vote, shared among the places
    (z of the atlas's origin) that its voxels speak for; false organs in the trunk disagree, those of the head do not.
    """
    whole = canonical(ct)
    if whole.grid.size_ijk[2] * whole.grid.spacing_mm[2] <= LONG_MM or not metadata.organ_centres_mm:
        return ct
    given = preprocess(_middle(whole, metadata), settings=metadata.preprocess)
    origin_z = _elected(_votes(predict(given, given.grid).labels, metadata.organ_centres_mm))
    return ct if origin_z is None else _around(whole, origin_z, metadata.organ_centres_mm)


def _middle(whole: Volume, metadata: BundleMetadata) -> Volume:
    """A column through the body's median point, as wide as the network's patch."""
    body = body_mask(whole)
    points = np.argwhere(body.array_kji)[:, ::-1]
    i, j, _ = whole.grid.to_ijk(body.grid.to_lps(np.median(points, axis=0)))
    wide = np.asarray(metadata.patch_kji[:0:-1]) * metadata.preprocess.spacing_mm[:2] / whole.grid.spacing_mm[:2]
    size = np.minimum(np.ceil(wide).astype(int), whole.grid.size_ijk[:2])
    start = np.clip(np.rint([i, j] - size / 2).astype(int), 0, whole.grid.size_ijk[:2] - size)
    return whole.cropped((int(start[0]), int(start[1]), 0), (int(size[0]), int(size[1]), whole.grid.size_ijk[2]))


def _votes(
    labels: Volume, centres_mm: Mapping[str, tuple[float, float, float]]
) -> list[tuple[NDArray[np.float64], float]]:
    """For each organ: where its voxels place the atlas's origin (z, LPS mm), and the weight of each."""
    votes = []
    for label, voxels in organ_voxels(labels).items():
        name = ORGANS[label - 1].name
        if name in centres_mm:
            z = labels.grid.to_lps(points_ijk(voxels, labels.grid))[:, 2] - centres_mm[name][2]
            votes.append((z, 1.0 / len(z)))
    return votes


def _elected(votes: list[tuple[NDArray[np.float64], float]]) -> float | None:
    """Middle of the place that has most votes; None where too few organs agree."""
    if not votes:
        return None
    z = np.concatenate([place for place, _ in votes])
    weight = np.concatenate([np.full(len(place), share) for place, share in votes])
    order = np.argsort(z)
    z, reached = z[order], np.concatenate([[0.0], np.cumsum(weight[order])])
    first, last = np.searchsorted(z, z - _TOLERANCE_MM), np.searchsorted(z, z + _TOLERANCE_MM, side="right")
    support = reached[last] - reached[first]
    best = int(support.argmax())
    return float(np.median(z[first[best] : last[best]])) if support[best] >= _LEAST_VOTES else None


def _around(whole: Volume, origin_z: float, centres_mm: Mapping[str, tuple[float, float, float]]) -> Volume:
    """The slices in reach of the organs. An oblique grid's slices span several z: all that touch the range are kept."""
    heights = [z for _, _, z in centres_mm.values()]
    low, high = origin_z + min(heights) - _BEYOND_MM, origin_z + max(heights) + _BEYOND_MM
    i, j, k = whole.grid.size_ijk
    ends = np.array([[x, y] for x in (0, i - 1) for y in (0, j - 1)])
    z = np.stack([whole.grid.to_lps(np.column_stack([ends, np.full(4, n)]))[:, 2] for n in range(k)])
    kept = np.flatnonzero((z.max(axis=1) >= low) & (z.min(axis=1) <= high))
    return whole.cropped((0, 0, int(kept[0])), (i, j, len(kept))) if len(kept) else whole
