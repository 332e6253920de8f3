"""An organ's codes as Slicer stores them in a segment's ``TerminologyEntry`` tag."""

from __future__ import annotations

from hnseg.organs import Organ

CONTEXT = "Segmentation category and type - HNSeg"
"""Name of the terminology file that the extension ships."""

_CATEGORY = "SCT^123037004^Anatomical Structure"
_NOTHING = "^^"


def terminology_entry(organ: Organ) -> str:
    """``context~category~type~modifier~region context~region~region modifier``, each code ``scheme^value^meaning``."""
    kind = f"SCT^{organ.sct_code}^{organ.sct_meaning}"
    side = f"SCT^{organ.side.code}^{organ.side.meaning}" if organ.side else _NOTHING
    return "~".join((CONTEXT, _CATEGORY, kind, side, "", _NOTHING, _NOTHING))
