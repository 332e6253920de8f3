"""Left and right, judged by where the masks lie. The patient's left is +x in LPS, whatever the voxels' order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hnseg.curation.remarks import Remark
from hnseg.evaluation.boxes import Boxed
from hnseg.organs import BY_NAME, Organ, Side

NEAR_MIDLINE_MM = 5.0
"""A head that is turned puts this much of a midline structure, or of an organ beside it, on either side."""
STRAY_SHARE = 0.2
"""Share of a one-sided organ on the other side that makes it two-sided; and that both halves of a pair must reach."""


@dataclass(frozen=True, slots=True, eq=False)
class _Spread:
    """x of an organ's voxels (LPS mm)."""

    x: NDArray[np.float64]

    @property
    def centre(self) -> float:
        return float(self.x.mean())

    def share_left_of(self, x: float) -> float:
        return float((self.x > x).mean())


def check_sides(boxed: Boxed) -> tuple[Remark, ...]:
    """Pairs that are swapped, organs on the wrong side, on both, or (where both belong) on one; none if all is well."""
    spreads = _spreads(boxed)
    swapped = _swapped_pairs(spreads)
    return (*_about_pairs(swapped, _pairs(spreads)), *_about_single(spreads, swapped))


def _spreads(boxed: Boxed) -> dict[str, _Spread]:
    found = {}
    for segment in boxed.segmentation.segments:
        box = boxed.box(segment)
        if segment.organ and box:
            at_kji = np.argwhere(boxed.mask(segment, box)) + [part.start for part in box]
            found[segment.organ.name] = _Spread(boxed.grid.to_lps(at_kji[:, ::-1])[:, 0])
    return found


def _pairs(spreads: Mapping[str, _Spread]) -> list[tuple[str, str]]:
    """Left and right organs that are both there."""
    return [
        (name, BY_NAME[name].partner or "")
        for name in spreads
        if BY_NAME[name].side is Side.LEFT and BY_NAME[name].partner in spreads
    ]


def _swapped_pairs(spreads: Mapping[str, _Spread]) -> list[tuple[str, str]]:
    return [(left, right) for left, right in _pairs(spreads) if spreads[left].centre < spreads[right].centre]


def _about_pairs(swapped: list[tuple[str, str]], pairs: list[tuple[str, str]]) -> Iterator[Remark]:
    if len(swapped) > 1 and len(swapped) == len(pairs):
        text = f"All {len(pairs)} pairs lie on the wrong sides; the image is mirrored, or left and right are exchanged."
        yield Remark("swapped", "", text)
        return
    for left, right in swapped:
        yield Remark("swapped", left, f"{left} lies to the right of {right}; their names are exchanged.")


def _about_single(spreads: Mapping[str, _Spread], swapped: list[tuple[str, str]]) -> Iterator[Remark]:
    midline = _midline(spreads)
    if midline is None:
        return
    known = {name for pair in swapped for name in pair}
    for name, spread in spreads.items():
        if name not in known:
            yield from _about(BY_NAME[name], spread, midline)


def _midline(spreads: Mapping[str, _Spread]) -> float | None:
    """The middle's x: from the pairs, whichever is called left, and from the organs that lie there."""
    middles = [(spreads[left].centre + spreads[right].centre) / 2 for left, right in _pairs(spreads)]
    middles += [spread.centre for name, spread in spreads.items() if BY_NAME[name].side is None]
    return float(np.median(middles)) if middles else None


def _about(organ: Organ, spread: _Spread, midline: float) -> Iterator[Remark]:
    left = spread.share_left_of(midline + NEAR_MIDLINE_MM)
    right = 1.0 - spread.share_left_of(midline - NEAR_MIDLINE_MM)
    if organ.side is Side.BOTH:
        if min(left, right) < STRAY_SHARE:
            yield Remark(
                "two-sided", organ.name, f"{organ.name} has two sides, but {max(left, right):.0%} lies on one."
            )
    elif organ.side is not None:
        astray = right if organ.side is Side.LEFT else left
        if astray > 1 - STRAY_SHARE:
            text = f"{organ.name} lies on the patient's other side ({astray:.0%} of it)."
            yield Remark("swapped", organ.name, text)
        elif astray > STRAY_SHARE:
            yield Remark("two-sided", organ.name, f"{organ.name} reaches over to the other side ({astray:.0%} of it).")
