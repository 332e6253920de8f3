"""How structures are called and marked in DICOM, from the organ table and a segment's tags."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Literal

from pydicom import Dataset

from hnseg.image.segmentation import Segment
from hnseg.terminology import CATEGORY, CONTEXT, NOT_STARTED, STATUS_TAG, TAUGHT_TAG

GenerationAlgorithm = Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]

GENERATION_TAG = "HNSeg.Generation"
"""The segment tag that says how the contour came about, where that is known."""


def structure_names(segments: Sequence[Segment]) -> list[str]:
    """HaN-Seg's names, which are TG-263's where that has one; other segments keep theirs. At most 64 characters.

    No name comes twice, as planning systems would merge or refuse them: a copy of an organ keeps its own name, numbered
    where that is taken.
    """
    names: list[str] = []
    for segment in segments:
        own = _allowed(segment.name)
        wanted = [segment.organ.name if segment.organ else own, own, *(f"{own[:60]}_{n}" for n in range(2, 1000))]
        names.append(next(name for name in wanted if name not in names))
    return names


def _allowed(name: str) -> str:
    return name.replace("\\", "_")[:64]


def generation_algorithm(segment: Segment, edited: Set[str] = frozenset()) -> GenerationAlgorithm:
    """AUTOMATIC as long as nobody has touched it, SEMIAUTOMATIC once somebody has, or as its own tag says.

    Slicer sets a segment's status at the first edit; any status but "not started" counts, as a reviewed segment may
    have been edited.
    """
    tag = segment.tags.get(GENERATION_TAG, "").upper()
    if segment.name in edited or segment.tags.get(STATUS_TAG, NOT_STARTED) != NOT_STARTED:
        return "MANUAL" if tag == "MANUAL" else "SEMIAUTOMATIC"
    return "MANUAL" if tag == "MANUAL" else "SEMIAUTOMATIC" if tag == "SEMIAUTOMATIC" else "AUTOMATIC"


def learnt_from(segment: Segment) -> tuple[str, ...]:
    """What showed the organ to the model, as a clause; empty where the segment does not say."""
    taught = segment.tags.get(TAUGHT_TAG)
    return (f"the model learnt it from {taught}",) if taught else ()


def terminology_entry(type_code: Dataset) -> str:
    """A coded type, with its modifier, as the tag that Slicer keeps (see ``hnseg.terminology``)."""
    modifiers = type_code.get("SegmentedPropertyTypeModifierCodeSequence") or ()
    modifier = _triple(modifiers[0]) if modifiers else "^^"
    return "~".join((CONTEXT, "^".join(CATEGORY), _triple(type_code), modifier, "", "^^", "^^"))


def _triple(code: Dataset) -> str:
    parts = (str(code.get(name, "")) for name in ("CodingSchemeDesignator", "CodeValue", "CodeMeaning"))
    return "^".join(part.translate(str.maketrans("", "", "^~|")) for part in parts)
