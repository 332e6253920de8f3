"""One named structure of a segmentation."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass, field

from hnseg.errors import UnknownOrgan, UnsupportedImage
from hnseg.organs import Organ, find_organ
from hnseg.terminology import NOT_STARTED, ORGAN_TAG, STATUS_TAG, segment_tags

_GOLDEN_RATIO = 0.618033988749895


@dataclass(frozen=True, slots=True)
class Segment:
    """The voxels that hold ``label`` in layer ``layer``; ``rgb`` in 0…255; ``tags`` as Slicer keeps them.

    Raises ``UnsupportedImage`` for a label below 1 and for tags that Slicer's syntax cannot hold.
    """

    name: str
    layer: int
    label: int
    rgb: tuple[int, int, int]
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.label < 1:
            raise UnsupportedImage(f"Segment {self.name!r} has label {self.label}; a label is 1 or more.")
        if any(":" in key or "|" in key + value for key, value in self.tags.items()):
            raise UnsupportedImage(f"A tag of segment {self.name!r} contains '|' or ':'; choose other signs.")

    @property
    def organ(self) -> Organ | None:
        """The organ that the segment is, by its own tag or its name; None for any other structure."""
        try:
            return find_organ(self.tags.get(ORGAN_TAG) or self.name)
        except UnknownOrgan:
            return None


def segment_of(organ: Organ, *, layer: int = 0) -> Segment:
    """A fresh segment with the organ's name, label, colour and codes."""
    return Segment(organ.name, layer, organ.label, organ.rgb, segment_tags(organ))


def other_segment(name: str, *, layer: int, label: int) -> Segment:
    """A fresh segment of a structure that is not in the organ table; the colour follows from the label."""
    r, g, b = colorsys.hsv_to_rgb(label * _GOLDEN_RATIO % 1.0, 0.6, 0.9)
    return Segment(name, layer, label, (round(255 * r), round(255 * g), round(255 * b)), {STATUS_TAG: NOT_STARTED})
