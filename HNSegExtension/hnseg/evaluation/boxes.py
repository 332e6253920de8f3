"""A segmentation with each segment's bounding box, so that an organ costs what it measures, not what the image does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segment, Segmentation

Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]
"""In k, j, i order, as an array is cut."""


@dataclass(frozen=True, slots=True)
class Boxed:
    """The layers' arrays are not copied."""

    segmentation: Segmentation
    boxes: tuple[tuple[Box | None, ...], ...]

    @classmethod
    def of(cls, segmentation: Segmentation) -> Boxed:
        """Find the boxes: one pass over each layer."""
        layers = (layer.array_kji for layer in segmentation.layers)
        return cls(segmentation, tuple(tuple(cast("list[Box | None]", ndimage.find_objects(a))) for a in layers))

    @property
    def grid(self) -> Grid:
        """The grid of all layers."""
        return self.segmentation.grid

    def box(self, segment: Segment | None) -> Box | None:
        """The segment's box; None if there is no such segment or it is empty."""
        if segment is None or segment.label > len(self.boxes[segment.layer]):
            return None
        return self.boxes[segment.layer][segment.label - 1]

    def mask(self, segment: Segment | None, box: Box) -> Mask:
        """The segment within a box; all false if there is no such segment."""
        if segment is None:
            return np.zeros([part.stop - part.start for part in box], np.bool_)
        return np.asarray(self.segmentation.layers[segment.layer].array_kji[box] == segment.label)


def union(first: Box | None, second: Box | None) -> Box | None:
    """The box around both."""
    if first is None or second is None:
        return first or second
    a, b, c = (slice(min(x.start, y.start), max(x.stop, y.stop)) for x, y in zip(first, second, strict=True))
    return a, b, c


def cropped(grid: Grid, box: Box) -> Grid:
    """The grid of an array that was cut with the box."""
    k, j, i = box
    return grid.cropped((i.start, j.start, k.start), (i.stop - i.start, j.stop - j.start, k.stop - k.start))
