"""Corrections after prediction: what lies outside the body, far from its place, on the wrong side, or apart is removed.

The rules are data (``PostprocessSettings`` in the model's metadata), and everything removed is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from hnseg.image.volume import Volume
from hnseg.inference.strays import misnamed, stray_parts
from hnseg.inference.voxels import Indices, centroid_lps, connected_parts, organ_voxels, points_ijk
from hnseg.models.metadata import Atlas, PostprocessSettings
from hnseg.organs import BY_NAME, ORGANS, Organ, Side

OUTSIDE, FAR = "outside the body", "far from its place among the other organs"
WRONG_SIDE, APART = "on the other side", "apart from the organ"
MISNAMED = "where {} lies, which it became"


@dataclass(frozen=True, slots=True)
class Removal:
    """Volume that was taken from an organ, and why."""

    organ: str
    ml: float
    reason: str


def postprocess(
    labels: Volume, settings: PostprocessSettings, body: Volume | None = None, atlas: Atlas | None = None
) -> tuple[Volume, tuple[Removal, ...]]:
    """New labels with the settings' corrections, and what was removed, in label order.

    ``labels``: uint8 organ labels. ``body``: boolean volume on any grid. ``atlas``: where the organs usually lie. None
    leaves out the rule that needs it. Removed voxels become background. Holes inside an organ become the organ where
    they were background.
    """
    grid = labels.grid
    removals: list[Removal] = []
    if settings.joined and atlas is not None:
        labels, removals = _renamed(labels, atlas, settings)
    kept = before = organ_voxels(labels)
    if settings.inside_body and body is not None:
        kept = _inside_body(kept, labels, body, settings.body_margin_mm)
        removals += _lost(before, kept, grid.voxel_ml, OUTSIDE)
    if settings.near_place and atlas is not None:
        placed = _near_its_place(kept, labels, atlas, settings)
        removals += _lost(kept, placed, grid.voxel_ml, FAR)
        kept = placed
    if settings.check_sides:
        sided = _on_own_side(kept, labels)
        removals += _lost(kept, sided, grid.voxel_ml, WRONG_SIDE)
        kept = sided
    if settings.largest_parts:
        whole = {label: _largest_parts(voxels, ORGANS[label - 1], labels, settings) for label, voxels in kept.items()}
        removals += _lost(kept, whole, grid.voxel_ml, APART)
        kept = whole
    corrected = _cleared(labels, before, kept)
    if settings.fill_holes:
        for label, voxels in ((label, voxels) for label, voxels in kept.items() if len(voxels)):
            _fill_holes(corrected.array_kji, label, voxels)
    return corrected, tuple(sorted(removals, key=lambda removal: BY_NAME[removal.organ].label))


def _lost(before: dict[int, Indices], after: dict[int, Indices], voxel_ml: float, reason: str) -> Iterable[Removal]:
    for label, voxels in before.items():
        count = len(voxels) - len(after[label])
        if count:
            yield Removal(ORGANS[label - 1].name, count * voxel_ml, reason)


def _inside_body(organs: dict[int, Indices], labels: Volume, body: Volume, margin_mm: float) -> dict[int, Indices]:
    points = {label: labels.grid.to_lps(points_ijk(voxels, labels.grid)) for label, voxels in organs.items()}
    inside = {label: _holds(body, where) for label, where in points.items()}
    if any(not held.all() for held in inside.values()):
        skin = _surface(body)
        limit = margin_mm + max(body.grid.spacing_mm) / 2
        for label, held in inside.items():
            held[~held] = skin.query(points[label][~held], distance_upper_bound=limit)[0] <= limit
    return {label: voxels[inside[label]] for label, voxels in organs.items()}


def _surface(body: Volume) -> KDTree:
    """The body's outermost voxel centres, LPS mm: the nearest body voxel to any point outside is among them."""
    mask = body.array_kji.astype(bool)
    k, j, i = np.nonzero(mask & ~ndimage.binary_erosion(mask))
    return KDTree(body.grid.to_lps(np.stack([i, j, k], axis=1)))


def _holds(mask: Volume, points_lps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the mask's nearest voxel is set at each point; beyond its grid nothing is."""
    nearest = np.rint(mask.grid.to_ijk(points_lps)).astype(np.int64)
    inside = ((nearest >= 0) & (nearest < mask.grid.size_ijk)).all(axis=1)
    i, j, k = nearest[inside].T
    held = np.zeros(len(nearest), bool)
    held[inside] = mask.array_kji[k, j, i]
    return held


def _near_its_place(
    organs: dict[int, Indices], labels: Volume, atlas: Atlas, settings: PostprocessSettings
) -> dict[int, Indices]:
    strays = stray_parts(_parts(organs, labels), labels.grid, atlas, settings)
    gone = {BY_NAME[name].label: np.concatenate(found) for name, found in strays.items()}
    return {
        label: np.setdiff1d(voxels, gone[label], assume_unique=True) if label in gone else voxels
        for label, voxels in organs.items()
    }


def _parts(organs: dict[int, Indices], labels: Volume) -> dict[str, list[Indices]]:
    parts = {ORGANS[label - 1].name: connected_parts(voxels, labels.grid) for label, voxels in organs.items()}
    return {name: list(found) for name, found in parts.items() if found}


def _renamed(labels: Volume, atlas: Atlas, settings: PostprocessSettings) -> tuple[Volume, list[Removal]]:
    """Voxels of organs that training data drew as one, each under the name of the one that lies there."""
    array = np.array(labels.array_kji, order="C")
    moves = []
    for name, others in misnamed(_parts(organ_voxels(labels), labels), labels.grid, atlas, settings).items():
        for other, voxels in others.items():
            array.reshape(-1)[voxels] = BY_NAME[other].label
            moves.append(Removal(name, len(voxels) * labels.grid.voxel_ml, MISNAMED.format(other)))
    return labels.with_array(array), moves


def _on_own_side(organs: dict[int, Indices], labels: Volume) -> dict[int, Indices]:
    """Cut what of a paired organ lies beyond its partner's middle.

    The patient's midline is not known, and a head may lie off the image's centre; the partner is the one landmark that
    both have. An organ whose own middle lies beyond its partner's is left alone: then the two are swapped or one is
    wrong, which `review` says, and no cut would mend.
    """
    middle = {label: _middle_x(voxels, labels) for label, voxels in organs.items() if _partner(label)}
    return {label: _cut(label, voxels, labels, middle) for label, voxels in organs.items()}


def _middle_x(voxels: Indices, labels: Volume) -> float:
    """LPS x of the centroid of the largest part; nan for an organ without voxels."""
    parts = connected_parts(voxels, labels.grid)
    return float(centroid_lps(parts[0], labels.grid)[0]) if parts else float("nan")


def _partner(label: int) -> int | None:
    name = ORGANS[label - 1].partner
    return BY_NAME[name].label if name else None


def _cut(label: int, voxels: Indices, labels: Volume, middle: dict[int, float]) -> Indices:
    limit = middle.get(_partner(label) or 0, float("nan"))
    towards = leftward(ORGANS[label - 1])
    if not towards * (middle.get(label, float("nan")) - limit) > 0:
        return voxels
    x = labels.grid.to_lps(points_ijk(voxels, labels.grid))[:, 0]
    return voxels[towards * (x - limit) > 0]


def leftward(organ: Organ) -> int:
    """1 for an organ of the patient's left, where LPS x grows, −1 for one of the right, 0 for others."""
    return {Side.LEFT: 1, Side.RIGHT: -1}.get(organ.side, 0) if organ.side else 0


def _largest_parts(voxels: Indices, organ: Organ, labels: Volume, settings: PostprocessSettings) -> Indices:
    parts = connected_parts(voxels, labels.grid)
    count = settings.parts.get(organ.name, organ.components)
    kept = [part for n, part in enumerate(parts) if n < count or len(part) >= settings.spare_part * len(parts[0])]
    return np.sort(np.concatenate(kept)) if kept else voxels


def _cleared(labels: Volume, before: dict[int, Indices], kept: dict[int, Indices]) -> Volume:
    """A copy in which the voxels that were not kept are background."""
    array = np.array(labels.array_kji, order="C")
    for label, voxels in before.items():
        array.reshape(-1)[np.setdiff1d(voxels, kept[label], assume_unique=True)] = 0
    return labels.with_array(array)


def _fill_holes(array_kji: NDArray[np.uint8], label: int, voxels: Indices) -> None:
    """Give the organ every background region that it encloses, in place. Works in the organ's box."""
    where = np.unravel_index(voxels, array_kji.shape)
    box = tuple(slice(max(int(n.min()) - 1, 0), int(n.max()) + 2) for n in where)
    region = array_kji[box]
    outside, count = ndimage.label(region != label)
    if count > 1:
        rim = np.concatenate([np.unique(outside.take(end, axis)) for axis in range(3) for end in (0, -1)])
        enclosed = np.isin(outside, np.setdiff1d(np.arange(1, count + 1), rim))
        region[enclosed & (region == 0)] = label
