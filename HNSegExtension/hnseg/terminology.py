"""What a segment is, in Slicer's words: the codes and tags that segments of the organ table carry.

Needs nothing but the standard library. Syntax: Slicer's vtkSlicerTerminologiesModuleLogic.
"""

from __future__ import annotations

from collections.abc import Collection

from hnseg.organs import Organ

CONTEXT = "Segmentation category and type - HNSeg"
"""Name of the terminology that the extension ships."""

CATEGORY = ("SCT", "123037004", "Anatomical Structure")
"""Scheme, code and meaning of the category that every organ is of."""

TERMINOLOGY_TAG = "TerminologyEntry"
STATUS_TAG = "Segmentation.Status"
ORGAN_TAG = "HNSeg.Organ"
"""The organ's name in the table: it stays when a person renames the segment."""
MODEL_TAG = "HNSeg.Model"
"""Name and version of the model that the segment comes from."""

TAUGHT_TAG = "HNSeg.TaughtBy"
"""What showed the organ to the model, in the words of ``taught_words``."""

NOT_STARTED = "notstarted"
"""Status of a segment that nobody has reviewed yet; Slicer sets ``inprogress`` at the first edit."""

_NOTHING = ("", "", "")


def terminology_entry(organ: Organ) -> str:
    """``context~category~type~modifier~region context~region~region modifier``, each code ``scheme^value^meaning``."""
    kind = ("SCT", organ.sct_code, organ.sct_meaning)
    side = ("SCT", organ.side.code, organ.side.meaning) if organ.side else _NOTHING
    return "~".join((CONTEXT, *map("^".join, (CATEGORY, kind, side)), "", *map("^".join, (_NOTHING, _NOTHING))))


def taught_words(kinds: Collection[str]) -> str:
    """What showed an organ to the model (``BundleMetadata.taught_by``), for people; empty where nobody noted it.

    "joined": patients on whom it was drawn as one with its neighbours; phantoms alone taught the border between them.
    """
    if "patient" in kinds:
        return "patients"
    if "patient union" in kinds:
        return "patients, joined"
    return "phantoms only" if kinds else ""


def segment_tags(organ: Organ) -> dict[str, str]:
    """The tags of a fresh segment of that organ."""
    return {STATUS_TAG: NOT_STARTED, TERMINOLOGY_TAG: terminology_entry(organ), ORGAN_TAG: organ.name}
