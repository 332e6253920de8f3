"""The organs of a segmentation as a person reviews them: volume, confidence, status."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import slicer

from hnseg.organs import Organ
from hnseg.terminology import TAUGHT_TAG
from HNSegLib.merging import Status
from HNSegLib.segments import CONFIDENCE_TAG, EXPECTED_TAG, NOTES_TAG, existing_segments, set_status, tag_of, volumes_ml

STATUS_WORDS = {
    Status.NOT_STARTED: "to do",
    Status.IN_PROGRESS: "edited",
    Status.COMPLETED: "completed",
    Status.FLAGGED: "flagged",
}


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """One segment. ``confidence`` is None where no model gave one, ``organ`` where the table does not know it.

    ``expected_dsc``: the agreement with an expert that organs of such confidence had; None where that is not known.
    ``taught_by``: what showed the organ to the model, in words; empty where nobody noted it.
    """

    segment_id: str
    name: str
    organ: Organ | None
    volume_ml: float
    confidence: float | None
    status: Status
    notes: str
    expected_dsc: float | None = None
    taught_by: str = ""
    rgb: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Colour, 0…1."""

    @property
    def is_usual(self) -> bool:
        """Whether the volume lies in the published range; True where there is none."""
        return self.organ is None or self.organ.range_ml[0] <= self.volume_ml <= self.organ.range_ml[1]


def review_rows(segmentation_node: slicer.vtkMRMLSegmentationNode) -> tuple[ReviewRow, ...]:
    """The node's segments in their order."""
    segmentation = segmentation_node.GetSegmentation()
    millilitres = volumes_ml(segmentation_node)
    return tuple(
        ReviewRow(
            segment_id=one.id,
            name=one.name,
            organ=one.organ,
            volume_ml=millilitres[one.id],
            confidence=_number(tag_of(segmentation.GetSegment(one.id), CONFIDENCE_TAG)),
            status=one.status,
            notes=tag_of(segmentation.GetSegment(one.id), NOTES_TAG),
            expected_dsc=_number(tag_of(segmentation.GetSegment(one.id), EXPECTED_TAG)),
            taught_by=tag_of(segmentation.GetSegment(one.id), TAUGHT_TAG),
            rgb=segmentation.GetSegment(one.id).GetColor(),
        )
        for one in existing_segments(segmentation_node)
    )


def mark(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_ids: Iterable[str], status: Status) -> None:
    """Set the review status of some segments."""
    for segment_id in segment_ids:
        set_status(segmentation_node.GetSegmentation().GetSegment(segment_id), status)


def progress(rows: Iterable[ReviewRow]) -> str:
    """One sentence: how far the review is."""
    rows = tuple(rows)
    if not rows:
        return "There is nothing to review yet."
    done = sum(row.status is Status.COMPLETED for row in rows)
    flagged = sum(row.status is Status.FLAGGED for row in rows)
    odd = sum(not row.is_usual for row in rows)
    parts = [f"{done} of {len(rows)} completed"]
    if flagged:
        parts.append(f"{flagged} flagged")
    if odd:
        parts.append(f"{odd} of unusual volume")
    return ", ".join(parts) + "."


def next_to_review(rows: Iterable[ReviewRow], *, after: str) -> str:
    """Id of the next segment without a mark, below ``after`` or else from the top; empty when all have one."""
    rows = tuple(rows)
    ids = [row.segment_id for row in rows]
    start = ids.index(after) + 1 if after in ids else 0
    waiting = (row for row in (*rows[start:], *rows[:start]) if row.status in _UNMARKED)
    return next((row.segment_id for row in waiting), "")


def centre_ras(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> tuple[float, ...] | None:
    """The middle of a segment in the world, RAS mm; None for an empty one."""
    centre = segmentation_node.GetSegmentCenterRAS(segment_id)
    return tuple(centre) if centre is not None else None


_UNMARKED = (Status.NOT_STARTED, Status.IN_PROGRESS)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
