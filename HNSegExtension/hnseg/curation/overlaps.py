"""Where masks claim the same voxels, and who gets them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hnseg.evaluation.boxes import Box, Boxed, Mask
from hnseg.image.segmentation import Segment
from hnseg.image.volume import Volume
from hnseg.organs import BY_NAME, ORGANS

_NOWHERE = (slice(0), slice(0), slice(0))


@dataclass(frozen=True, slots=True)
class Conflict:
    """Voxels that two structures claim and the label map, on the CT's grid, gives to the winner."""

    winner: str
    loser: str
    voxels: int
    ml: float
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """Voxels that each two organs share, (30, 30) in label order; an organ's own number on the diagonal.

    ``conflicts`` are of all structures, largest first. A voxel that neither of a pair got is no conflict of that pair.
    """

    voxels: NDArray[np.int64]
    voxel_ml: float
    conflicts: tuple[Conflict, ...]

    def ml(self, organ: str) -> float:
        """The whole mask's volume, whoever else claims it."""
        at = BY_NAME[organ].label - 1
        return float(self.voxels[at, at]) * self.voxel_ml

    def to_csv(self) -> str:
        """The matrix with organ names along both sides, in voxels."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["voxels", *(organ.name for organ in ORGANS)])
        for organ, row in zip(ORGANS, self.voxels.tolist(), strict=True):
            writer.writerow([organ.name, *row])
        return text.getvalue()


def overlaps_of(boxed: Boxed, labels: Volume, *, ignored: Sequence[str] = (), targets: Sequence[str] = ()) -> Overlaps:
    """Count them, and ask the label map who got the voxels. ``ignored`` and ``targets`` say why."""
    segments = boxed.segmentation.segments
    voxels = np.zeros((len(ORGANS), len(ORGANS)), np.int64)
    for segment in segments:
        if (organ := segment.organ) and (box := boxed.box(segment)):
            at = organ.label - 1
            voxels[at, at] = np.count_nonzero(boxed.mask(segment, box))
    conflicts = list[Conflict]()
    for first, second in combinations(segments, 2):
        box, shared = _shared(boxed, first, second)
        if not shared.any():
            continue
        if first.organ and second.organ:
            a, b = first.organ.label - 1, second.organ.label - 1
            voxels[a, b] = voxels[b, a] = np.count_nonzero(shared)
        for winner, loser in ((first, second), (second, first)):
            if got := int(np.count_nonzero(labels.array_kji[box][shared] == winner.label)):
                reason = _reason(winner, loser, ignored=ignored, targets=targets)
                conflicts.append(Conflict(winner.name, loser.name, got, got * boxed.grid.voxel_ml, reason))
    conflicts.sort(key=lambda one: (-one.voxels, one.winner, one.loser))
    return Overlaps(voxels, boxed.grid.voxel_ml, tuple(conflicts))


def _reason(winner: Segment, loser: Segment, *, ignored: Sequence[str], targets: Sequence[str]) -> str:
    if loser.name in ignored:
        return f"{loser.name} is marked as partial or corrupted and stays out of the label map."
    if winner.organ and loser.organ:
        return (
            f"{winner.name} is the smaller by nature ({winner.organ.typical_ml:g} mL against "
            f"{loser.organ.typical_ml:g} mL) and would lose more."
        )
    if loser.name not in targets:
        return f"{loser.name} is no organ of the table and stays in the segmentation alone."
    if winner.organ:
        return f"{loser.name} is a target, and a target gets only what no organ claims."
    return f"{winner.name} comes before {loser.name} among the targets."


def _shared(boxed: Boxed, first: Segment, second: Segment) -> tuple[Box, Mask]:
    """A box, and the voxels in it that are in both."""
    box = _common(boxed.box(first), boxed.box(second)) if first.layer != second.layer else None
    if box is None:
        return _NOWHERE, np.zeros((0, 0, 0), np.bool_)
    return box, boxed.mask(first, box) & boxed.mask(second, box)


def _common(first: Box | None, second: Box | None) -> Box | None:
    if first is None or second is None:
        return None
    a, b, c = (slice(max(x.start, y.start), min(x.stop, y.stop)) for x, y in zip(first, second, strict=True))
    return (a, b, c) if min(part.stop - part.start for part in (a, b, c)) > 0 else None
