"""Which segments a new result may write: a pure decision, taken before anything is touched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from hnseg.errors import UnknownOrgan
from hnseg.organs import Organ, find_organ


class MergePolicy(Enum):
    """What happens to an organ that already has a segment. The value is what is saved in scenes."""

    REPLACE = "replace"
    ONLY_EMPTY = "onlyEmpty"


class Status(Enum):
    """Slicer's segment status. We write NOT_STARTED: review has not; Slicer sets IN_PROGRESS at the first edit."""

    NOT_STARTED = "notstarted"
    IN_PROGRESS = "inprogress"
    COMPLETED = "completed"
    FLAGGED = "flagged"


@dataclass(frozen=True, slots=True)
class ExistingSegment:
    """What the decision needs to know of a segment. ``ours``: HNSeg wrote it; ``organ``: None for a stranger."""

    id: str
    name: str
    organ: Organ | None
    status: Status
    empty: bool
    ours: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """An organ whose segment stays as it is, and why (the middle of a sentence)."""

    organ: Organ
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Organs to write, each with the id of the segment that it replaces (None: a new one), and organs that are kept."""

    writes: tuple[tuple[Organ, str | None], ...]
    kept: tuple[Kept, ...]


def plan_merge(
    existing: Iterable[ExistingSegment],
    organs: Sequence[Organ],
    *,
    policy: MergePolicy = MergePolicy.REPLACE,
    protect: bool = True,
) -> Plan:
    """Decide organ by organ, in the order given.

    With ``protect`` a segment that somebody edited, approved, flagged or brought along is never written, whatever the
    policy. Where an organ has several segments (copies keep their tags), the one that is called like it is written, and
    any protected one protects the organ.
    """
    by_organ: dict[str, list[ExistingSegment]] = {}
    for segment in existing:
        if segment.organ is not None:
            by_organ.setdefault(segment.organ.name, []).append(segment)
    writes: list[tuple[Organ, str | None]] = []
    kept: list[Kept] = []
    for organ in organs:
        found = by_organ.get(organ.name, [])
        reason = next(filter(None, (_reason_to_keep(segment, policy, protect) for segment in found)), None)
        if reason:
            kept.append(Kept(organ, reason))
        else:
            named = [segment for segment in found if segment.name == organ.name]
            writes.append((organ, (named or found)[0].id if found else None))
    return Plan(tuple(writes), tuple(kept))


def organ_of(name: str) -> Organ | None:
    """The organ that a segment's name or alias means; None for any other segment."""
    try:
        return find_organ(name)
    except UnknownOrgan:
        return None


def _reason_to_keep(segment: ExistingSegment, policy: MergePolicy, protect: bool) -> str | None:
    if segment.empty:
        return None
    if protect and segment.status is not Status.NOT_STARTED:
        return _REASONS[segment.status]
    if protect and not segment.ours:
        return "was not made by HNSeg"
    if policy is MergePolicy.ONLY_EMPTY:
        return "is not empty"
    return None


_REASONS = {
    Status.IN_PROGRESS: "was edited",
    Status.COMPLETED: "is marked as completed",
    Status.FLAGGED: "is flagged",
}
