"""Parts of an organ that lie where it cannot be, told from where the other organs are.

The atlas (each organ's usual centre and size) is laid over the scan where most organs agree with it: the translation
that most of their parts vote for, then a rigid fit to those. A bent neck is followed by the organs that lie nearest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hnseg.image.grid import Grid
from hnseg.inference.places import nearest_others_mm, usual_places
from hnseg.inference.voxels import Indices, centroid_lps, points_ijk
from hnseg.models.metadata import Atlas, PostprocessSettings

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
Parts = Mapping[str, Sequence[Indices]]

_FEWEST = 4
"""Organs besides the judged one that must agree: three points fix a pose, a fourth confirms it."""
_LEAST_SHARE = 0.1
"""Smaller parts of an organ have no say in where the atlas lies."""
_UNTURNED_MM = 50.0
"""How far from the middle an organ would lie whose weight held the atlas unturned."""
_ROUNDS = 20


def stray_parts(parts: Parts, grid: Grid, atlas: Atlas, settings: PostprocessSettings) -> dict[str, list[Indices]]:
    """The parts that lie too far from their organ's usual place, by organ; none where too few organs agree on places.

    ``parts``: connected parts of each organ. A part is too far if its nearest voxel lies outside its usual box by
    more than ``place_slack_mm`` plus ``place_bend`` times the distance to the organs that tell the place, and more than
    ``place_slack_mm`` from any part that does not: long organs run on, and may have gaps.
    """
    known = {name: found for name, found in parts.items() if name in atlas.centres_mm and name in atlas.sizes_mm}
    laid = _Laid.over(known, grid, atlas, settings)
    strays = {}
    for name, found in known.items():
        if laid is not None and len(laid.anchors.keys() - {name}) >= _FEWEST:
            bend = settings.place_bend * nearest_others_mm(name, laid.anchors, atlas.centres_mm)
            points = [grid.to_lps(points_ijk(part, grid)) for part in found]
            near = np.array([laid.beyond(name, at).min() <= settings.place_slack_mm + bend for at in points])
            far = _apart(points, near, settings.place_slack_mm)
            strays[name] = [part for part, is_far in zip(found, far, strict=True) if is_far]
    return {name: found for name, found in strays.items() if found}


def misnamed(parts: Parts, grid: Grid, atlas: Atlas, settings: PostprocessSettings) -> dict[str, dict[str, Indices]]:
    """Voxels that belong to another organ of those they were drawn as one with (``settings.joined``), by both names.

    Masks of several organs as one teach a network the whole and not the borders. A voxel that lies nearer to another's
    usual box than to its own organ's, by half of ``place_slack_mm``, is the other's. None where too few organs agree.
    """
    known = {name: found for name, found in parts.items() if name in atlas.centres_mm and name in atlas.sizes_mm}
    laid = _Laid.over(known, grid, atlas, settings)
    if laid is None:
        return {}
    found: dict[str, dict[str, Indices]] = defaultdict(dict)
    for group in settings.joined:
        members = [name for name in group if name in laid.places and name in atlas.sizes_mm]
        for name in (name for name in members if name in known):
            voxels = np.concatenate(known[name])
            points = grid.to_lps(points_ijk(voxels, grid))
            offsets = np.array([laid.beyond(member, points) for member in members])
            is_others = offsets[members.index(name)] > offsets.min(axis=0) + settings.place_slack_mm / 2
            for n, member in enumerate(members):
                moved = voxels[is_others & (offsets.argmin(axis=0) == n)]
                if len(moved):
                    found[name][member] = moved
    return dict(found)


@dataclass(frozen=True, slots=True, eq=False)
class _Laid:
    """The atlas where it lies in the scan. ``anchors``: centres of the organs that agree; ``places``: of all."""

    atlas: Atlas
    rotation: Matrix
    anchors: dict[str, Matrix]
    places: dict[str, Matrix]

    @classmethod
    def over(cls, parts: Parts, grid: Grid, atlas: Atlas, settings: PostprocessSettings) -> _Laid | None:
        """None where no more than half of the organs agree."""
        seen = _Seen.of(parts, grid, atlas)
        agreeing, pose = _laid(seen, settings.place_slack_mm)
        anchors = seen.anchors(agreeing)
        if len(anchors) <= len(parts) / 2:
            return None
        typical = {name: pose.to_scan(np.array(at)) for name, at in atlas.centres_mm.items()}
        return cls(atlas, pose.rotation, anchors, usual_places(anchors, typical))

    def beyond(self, name: str, points: Matrix) -> Matrix:
        """How far points (n, 3), LPS mm, lie outside an organ's usual box, mm."""
        return _beyond((points - self.places[name]) @ self.rotation, np.array(self.atlas.sizes_mm[name]) / 2)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """One row for each part that has a say. ``names``: its organ; ``centres``: in the scan, LPS mm, (P, 3); ``typical``
    and ``halves``: its organ's in the atlas; ``shares``: of its organ's voxels.
    """

    names: list[str]
    centres: Matrix
    typical: Matrix
    halves: Matrix
    shares: Matrix

    @classmethod
    def of(cls, parts: Parts, grid: Grid, atlas: Atlas) -> _Seen:
        voxels = {name: sum(map(len, found)) for name, found in parts.items()}
        rows = [
            (name, part) for name, found in parts.items() for part in found if len(part) >= _LEAST_SHARE * voxels[name]
        ]
        return cls(
            [name for name, _ in rows],
            np.array([centroid_lps(part, grid) for _, part in rows]).reshape(-1, 3),
            np.array([atlas.centres_mm[name] for name, _ in rows]).reshape(-1, 3),
            np.array([atlas.sizes_mm[name] for name, _ in rows]).reshape(-1, 3) / 2,
            np.array([len(part) / voxels[name] for name, part in rows]),
        )

    def anchors(self, agreeing: Mask) -> dict[str, Matrix]:
        """The centre of each organ that agrees, of its largest part that does."""
        largest_last = np.argsort(self.shares, kind="stable")
        return {self.names[n]: self.centres[n] for n in largest_last if agreeing[n]}


@dataclass(frozen=True, slots=True, eq=False)
class _Pose:
    """How the atlas lies in the scan: turned about ``pivot`` (atlas), which comes to ``at`` (LPS mm)."""

    rotation: Matrix
    pivot: Matrix
    at: Matrix

    def to_scan(self, points: Matrix) -> Matrix:
        return np.asarray((points - self.pivot) @ self.rotation.T + self.at)

    def to_atlas(self, points: Matrix) -> Matrix:
        return np.asarray((points - self.at) @ self.rotation + self.pivot)


def _laid(seen: _Seen, slack_mm: float) -> tuple[Mask, _Pose]:
    """Which parts agree on where the atlas lies, and how it does."""
    agreeing = _elected(seen, 2 * slack_mm)  # the head may be turned
    for _ in range(_ROUNDS):
        pose = _fitted(seen, agreeing, slack_mm)
        before, agreeing = agreeing, _beyond(pose.to_atlas(seen.centres) - seen.typical, seen.halves) <= slack_mm
        if (before == agreeing).all():
            break
    return agreeing, pose


def _elected(seen: _Seen, tolerance_mm: float) -> Mask:
    """The parts that agree with the translation of the one with which most do; each organ has one vote to share."""
    shifts = seen.centres - seen.typical
    if not len(shifts):
        return np.zeros(0, bool)
    agree = _beyond(shifts[None] - shifts[:, None], seen.halves[None]) <= tolerance_mm
    return np.asarray(agree[int((agree @ seen.shares).argmax())])


def _fitted(seen: _Seen, agreeing: Mask, slack_mm: float) -> _Pose:
    """Rigid fit of the agreeing parts (Kabsch 1976), held straight by a weight of its own where they say little.

    A long organ's centre says little as well, since it may be cut or run on.
    """
    if not agreeing.any():
        return _Pose(np.eye(3), np.zeros(3), np.zeros(3))
    weight = np.where(agreeing, seen.shares / (1 + (seen.halves.max(axis=1) / slack_mm) ** 2), 0)
    pivot, at = (np.average(points, axis=0, weights=weight) for points in (seen.typical, seen.centres))
    spread = (seen.centres - at).T @ (weight[:, None] * (seen.typical - pivot)) + _UNTURNED_MM**2 * np.eye(3)
    u, _, v = np.linalg.svd(spread)
    handed = np.diag([1.0, 1.0, np.linalg.det(u @ v)])
    return _Pose(u @ handed @ v, pivot, at)


def _beyond(offsets: Matrix, halves: Matrix) -> Matrix:
    """How far points lie outside a box about 0, mm."""
    return np.asarray(np.linalg.norm(np.maximum(np.abs(offsets) - halves, 0), axis=-1))


def _apart(points: Sequence[Matrix], near: Mask, slack_mm: float) -> Mask:
    """The parts that are neither near nor linked to a near one by gaps of at most ``slack_mm`` between their boxes."""
    low, high = (np.array([end(part, axis=0) for part in points]) for end in (np.min, np.max))
    while True:
        gaps = np.maximum(low[:, None] - high[near][None], low[near][None] - high[:, None]).clip(min=0)
        linked = near | (np.linalg.norm(gaps, axis=-1) <= slack_mm).any(axis=1)
        if (linked == near).all():
            return ~near
        near = linked
