"""Where masks claim the same voxels, and who gets them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hnseg.evaluation.boxes import Box, Boxed
from hnseg.image.segmentation import Segment
from hnseg.organs import BY_NAME, ORGANS


@dataclass(frozen=True, slots=True)
class Conflict:
    """Voxels that two organs claim; the winner keeps them in the label map."""

    winner: str
    loser: str
    voxels: int
    ml: float
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """Voxels that each two organs share, (30, 30) in label order; an organ's own number on the diagonal."""

    voxels: NDArray[np.int64]
    voxel_ml: float

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        """Every pair that overlaps, largest first. Of two organs the one that is small by nature wins."""
        pairs = [
            (ORGANS[a].name, ORGANS[b].name, int(self.voxels[a, b])) for a, b in np.argwhere(np.triu(self.voxels, 1))
        ]
        return tuple(self._conflict(*pair) for pair in sorted(pairs, key=lambda pair: (-pair[2], pair)))

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

    def _conflict(self, first: str, second: str, voxels: int) -> Conflict:
        winner, loser = sorted((BY_NAME[first], BY_NAME[second]), key=lambda organ: organ.priority)
        reason = (
            f"{winner.name} is the smaller by nature ({winner.typical_ml:g} mL against {loser.typical_ml:g} mL) and "
            "would lose more."
        )
        return Conflict(winner.name, loser.name, voxels, voxels * self.voxel_ml, reason)


def overlaps_of(boxed: Boxed) -> Overlaps:
    """Count them; only organs of the table count."""
    organs = [(organ.label - 1, segment) for segment in boxed.segmentation.segments if (organ := segment.organ)]
    voxels = np.zeros((len(ORGANS), len(ORGANS)), np.int64)
    for at, segment in organs:
        box = boxed.box(segment)
        voxels[at, at] = np.count_nonzero(boxed.mask(segment, box)) if box else 0
    for (a, first), (b, second) in combinations(organs, 2):
        voxels[a, b] = voxels[b, a] = _shared(boxed, first, second)
    return Overlaps(voxels, boxed.grid.voxel_ml)


def _shared(boxed: Boxed, first: Segment, second: Segment) -> int:
    if first.layer == second.layer:
        return 0
    box = _common(boxed.box(first), boxed.box(second))
    return int(np.count_nonzero(boxed.mask(first, box) & boxed.mask(second, box))) if box else 0


def _common(first: Box | None, second: Box | None) -> Box | None:
    if first is None or second is None:
        return None
    a, b, c = (slice(max(x.start, y.start), min(x.stop, y.stop)) for x, y in zip(first, second, strict=True))
    return (a, b, c) if min(part.stop - part.start for part in (a, b, c)) > 0 else None
