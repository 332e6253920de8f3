"""How the slices of a series lie: stacked regularly, sheared by a gantry tilt, unevenly spaced, or not to be used.

DICOM PS3.3 C.7.6.2 (Image Plane Module). ITK's own series reader stacks a sheared series as if it were upright.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hnseg.errors import DicomSeriesError
from hnseg.image.dicom_headers import SeriesInfo, SliceHeader
from hnseg.image.grid import Grid

Floats = NDArray[np.float64]

_SAME_DIRECTION = 1e-3  # difference of direction cosines
_SAME_PLACE_MM = 0.01
_JITTER = 0.1  # of the slice distance: rounded positions, not another distance
_MISSING = 1.5  # times the usual slice distance
_UPRIGHT_MM = 0.1  # sideways drift over the whole series that rounding explains
_WOBBLE_MM = 1.0  # sideways departure from a straight stack that a tilt does not explain


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Slices in the order of their normal; each lies ``offset_mm`` (n, 3) from the first: along row, column, normal.

    ``axes`` has the row direction (index i), the column direction (j) and their normal (k) as columns.
    """

    slices: tuple[SliceHeader, ...]
    axes: Floats
    offset_mm: Floats

    @property
    def step_mm(self) -> float:
        """The slice distance along the normal: the mean where the slices are even, else the usual one."""
        along = self.offset_mm[:, 2]
        return float(along[-1] / (len(along) - 1) if self.is_even else np.median(np.diff(along)))

    @property
    def is_even(self) -> bool:
        """Whether every slice is where an even distance puts it, but for jitter."""
        along = self.offset_mm[:, 2]
        even = np.linspace(0.0, along[-1], len(along))
        return bool(np.abs(along - even).max() <= _JITTER * even[1])

    @property
    def is_upright(self) -> bool:
        """Whether the slices lie straight above one another."""
        return bool(np.abs(self.offset_mm[:, :2]).max() <= _UPRIGHT_MM)

    @property
    def tilt_degrees(self) -> float:
        """How far the line through the slices' corners leans from their normal."""
        sideways = math.hypot(*self.offset_mm[-1, :2])
        return math.degrees(math.atan2(sideways, float(self.offset_mm[-1, 2])))

    @property
    def grid(self) -> Grid:
        """The smallest upright, even grid with the slices' own pixels that holds all of them."""
        first = self.slices[0]
        row_mm, column_mm = first.spacing_rows_columns_mm
        rows, columns = first.size_rows_columns
        spacing = np.array([column_mm, row_mm, self.step_mm])
        low, high = (self.offset_mm[:, :2].min(axis=0), self.offset_mm[:, :2].max(axis=0))
        if self.is_upright:
            low = high = np.zeros(2)
        wider = np.ceil((high - low) / spacing[:2] - 1e-6).astype(int)
        depth = len(self.slices) if self.is_even else math.floor(self.offset_mm[-1, 2] / self.step_mm + 1e-6) + 1
        origin = np.array(first.position_lps) + self.axes[:, :2] @ low
        return Grid(
            (columns + int(wider[0]), rows + int(wider[1]), depth),
            (float(spacing[0]), float(spacing[1]), float(spacing[2])),
            (float(origin[0]), float(origin[1]), float(origin[2])),
            tuple(self.axes.ravel()),
        )


def stack(series: SeriesInfo) -> Stack:
    """The slices of a series in order; ``DicomSeriesError`` when they are mixed, doubled, missing or out of line."""
    slices = series.slices
    _refuse_mixture(series)
    axes = _axes(slices[0].orientation, series)
    positions = np.array([header.position_lps for header in slices])
    order = np.argsort(positions @ axes[:, 2], kind="stable")
    offset = (positions[order] - positions[order[0]]) @ axes
    _refuse_doubles(offset[:, 2], series)
    _refuse_gaps(offset[:, 2], positions[order], series)
    _refuse_wobble(offset, series)
    return Stack(tuple(slices[n] for n in order), axes, offset)


def _refuse_mixture(series: SeriesInfo) -> None:
    first = series.slices[0]
    for what, differs in (
        ("image sizes", lambda header: header.size_rows_columns != first.size_rows_columns),
        ("pixel spacings", lambda header: _apart(header.spacing_rows_columns_mm, first.spacing_rows_columns_mm)),
        ("orientations", lambda header: _apart(header.orientation, first.orientation)),
        ("frames of reference", lambda header: header.frame_of_reference != first.frame_of_reference),
    ):
        others = sum(map(differs, series.slices))
        if others:
            raise DicomSeriesError(
                f"{series} mixes {what}: {others} of {len(series.slices)} slices differ from the first; "
                "export one volume as one series."
            )


def _apart(some: Sequence[float], others: Sequence[float]) -> bool:
    return bool(np.abs(np.subtract(some, others)).max() > _SAME_DIRECTION)


def _axes(orientation: Sequence[float], series: SeriesInfo) -> Floats:
    """Row, column and normal as orthonormal columns; the header's are rounded, so they are squared up."""
    row, column = np.reshape(orientation, (2, 3))
    skew = np.array([row @ row - 1, column @ column - 1, row @ column])
    if not np.abs(skew).max() <= 10 * _SAME_DIRECTION:
        raise DicomSeriesError(f"{series} has axes that are not perpendicular unit vectors; export the series again.")
    row = row / np.linalg.norm(row)
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    return np.stack([row, column, np.cross(row, column)], axis=1) + 0.0  # no "-0.0"


def _refuse_doubles(along_mm: Floats, series: SeriesInfo) -> None:
    doubled = int(np.count_nonzero(np.diff(along_mm) < _SAME_PLACE_MM))
    if doubled:
        raise DicomSeriesError(
            f"{series} has two different images at {doubled} of its positions, as several echoes or phases do; "
            "export one of them as a series."
        )


def _refuse_gaps(along_mm: Floats, positions: Floats, series: SeriesInfo) -> None:
    steps = np.diff(along_mm)
    usual = float(np.median(steps))
    gaps = np.flatnonzero(steps > _MISSING * usual)
    if gaps.size:
        where = int(gaps[0])
        x, y, z = positions[where]
        missing = int(sum(round(steps[gap] / usual) - 1 for gap in gaps))
        raise DicomSeriesError(
            f"{series} lacks about {missing} slices: after the one at ({x:.1f}, {y:.1f}, {z:.1f}) mm the next is "
            f"{steps[where]:.1f} mm away, not {usual:.1f}; export the whole series."
        )


def _refuse_wobble(offset_mm: Floats, series: SeriesInfo) -> None:
    along = offset_mm[:, 2]
    straight = np.outer(along / along[-1], offset_mm[-1, :2])
    wobble = float(np.abs(offset_mm[:, :2] - straight).max())
    if wobble > _WOBBLE_MM:
        raise DicomSeriesError(f"{series} has slices up to {wobble:.1f} mm out of line; export the series again.")
