"""Up to thirty masks → one segmentation that keeps overlaps, and one label map; and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from hnseg.curation.availability import MISSING, PARTIAL, Marks
from hnseg.curation.overlaps import Overlaps, overlaps_of
from hnseg.curation.remarks import Remark
from hnseg.curation.sides import check_sides
from hnseg.errors import UnknownOrgan
from hnseg.evaluation.boxes import Boxed
from hnseg.image.files import read_volume
from hnseg.image.grid import Grid
from hnseg.image.resample import resample
from hnseg.image.segmentation import Segment, Segmentation
from hnseg.image.volume import Volume
from hnseg.organs import ORGANS, find_organ

PartialMasks = Literal["exclude", "ignore", "keep"]
"""What becomes of a mask marked 0.5: left out; kept apart, its voxels neither organ nor background; as a good one."""

VOLUME_SLACK = 3.0
"""Times the published range: beyond it, a mask is worth a look."""


@dataclass(frozen=True, slots=True, eq=False)
class Stacked:
    """The masks of a case on the CT's grid.

    ``segmentation`` keeps every mask whole. ``labels`` (uint8) holds one label a voxel, of the ``annotated``
    structures; of two that claim a voxel the one that is small by nature has it. ``ignored`` are in the segmentation
    alone.
    """

    segmentation: Segmentation
    labels: Volume
    annotated: tuple[str, ...]
    ignored: tuple[str, ...]
    overlaps: Overlaps
    remarks: tuple[Remark, ...]


def stack(
    masks: Iterable[tuple[str, Volume]],
    grid: Grid,
    *,
    marks: Marks | None = None,
    partial: PartialMasks = "ignore",
    targets: Sequence[str] = (),
) -> Stacked:
    """Stack named masks (nonzero = inside), taken one at a time, onto ``grid``.

    Names are matched through the organ table; other structures stay in the segmentation, and enter the label map,
    after all organs, only if they are ``targets``. A mask on another grid is resampled by nearest neighbour and
    remarked on; an empty one is left out. ``marks`` are the availability table's: 0 leaves a mask out, 0.5 does what
    ``partial`` says.
    """
    marks, remarks, asked = marks or {}, list[Remark](), list[str]()
    boxed = _stacked(_usable(masks, grid, _left_out(marks, partial), remarks, asked), grid)
    segments = boxed.segmentation.segments
    ignored = tuple(s.name for s in segments if partial == "ignore" and marks.get(s.name) == PARTIAL)
    counted = [segment for segment in segments if segment.name not in ignored]
    labels = _with_targets(_organ_labels(boxed.segmentation, counted), boxed, counted, targets)
    annotated = tuple(s.name for s in counted if s.organ or s.name in targets)
    overlaps = overlaps_of(boxed, labels, ignored=ignored, targets=targets)
    remarks += _about_absent([name for name in asked if name not in targets], boxed, marks)
    remarks += (*check_sides(boxed), *_about_overlaps(overlaps), *_about_volumes(boxed, overlaps))
    return Stacked(boxed.segmentation, labels, annotated, ignored, overlaps, tuple(remarks))


def unstack(stacked: Segmentation | Volume) -> dict[str, Volume]:
    """Name → boolean mask: of every segment, or of every organ that a label map holds."""
    if isinstance(stacked, Segmentation):
        return {segment.name: stacked.mask(segment.name) for segment in stacked.segments}
    present = np.flatnonzero(np.bincount(stacked.array_kji.ravel(), minlength=len(ORGANS) + 1))
    return {
        organ.name: stacked.with_array(stacked.array_kji == organ.label) for organ in ORGANS if organ.label in present
    }


def read_masks(files: Iterable[tuple[str, Path]], *, threads: int = 2) -> Iterator[tuple[str, Volume]]:
    """Each file's mask under its name, in order. The next ones are read meanwhile, so that only a few are held."""
    waiting: deque[tuple[str, Future[Volume]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for name, path in files:
            waiting.append((name, pool.submit(read_volume, path)))
            if len(waiting) > threads:
                yield _next(waiting)
        while waiting:
            yield _next(waiting)


def _next(waiting: deque[tuple[str, Future[Volume]]]) -> tuple[str, Volume]:
    name, volume = waiting.popleft()
    return name, volume.result()


def _left_out(marks: Marks, partial: PartialMasks) -> Callable[[str], str]:
    """For a structure's name, why it is left out; empty if it is not."""

    def why(name: str) -> str:
        if marks.get(name) == MISSING:
            return f"{name} has a mask, but the availability table says that it is missing; it was left out."
        if marks.get(name) == PARTIAL and partial == "exclude":
            return f"{name} is marked as partial or corrupted; it was left out."
        return ""

    return why


def _usable(
    masks: Iterable[tuple[str, Volume]],
    grid: Grid,
    left_out: Callable[[str], str],
    remarks: list[Remark],
    asked: list[str],
) -> Iterator[tuple[str, Volume]]:
    """The masks that count, under the table's names and on the grid; their names go to ``asked``."""
    for given, mask in masks:
        name = _table_name(given)
        if name in asked:
            remarks.append(Remark("values", name, f"{name} has a second mask, {given}; the first was kept."))
        elif why := left_out(name):
            remarks.append(Remark("availability", name, why))
        else:
            asked.append(name)
            remarks.extend(_about_values(name, mask))
            yield name, _on_grid(name, mask, grid, remarks)


def _on_grid(name: str, mask: Volume, grid: Grid, remarks: list[Remark]) -> Volume:
    if mask.grid.is_close(grid):
        return Volume(mask.array_kji, grid)
    moved = resample(mask.with_array((mask.array_kji != 0).astype(np.uint8)), grid, interpolation="nearest")
    before = np.count_nonzero(mask.array_kji) * mask.grid.voxel_ml
    after = np.count_nonzero(moved.array_kji) * grid.voxel_ml
    text = f"{name} is not on the CT's grid; it was resampled by nearest neighbour ({before:.2f} mL to {after:.2f} mL)."
    remarks.append(Remark("off-grid", name, text))
    return moved


def _about_values(name: str, mask: Volume) -> Iterator[Remark]:
    low, high = mask.array_kji.min(), mask.array_kji.max()
    if low < 0 or high not in (0, 1):
        yield Remark(
            "values", name, f"{name} holds values from {low} to {high}; all that is not 0 was taken as inside."
        )


def _stacked(usable: Iterator[tuple[str, Volume]], grid: Grid) -> Boxed:
    """The segments that hold something; a case without masks is an empty segmentation."""
    first = next(usable, None)
    if first is None:
        return Boxed.of(Segmentation((Volume(np.zeros(grid.shape_kji, np.uint8), grid),), ()))
    everything = Boxed.of(Segmentation.from_masks(chain((first,), usable)))
    filled = tuple(s for s in everything.segmentation.segments if everything.box(s) is not None)
    return replace(everything, segmentation=replace(everything.segmentation, segments=filled))


def _organ_labels(segmentation: Segmentation, counted: Sequence[Segment]) -> Volume:
    return replace(segmentation, segments=tuple(s for s in counted if s.organ)).to_labels()


def _with_targets(labels: Volume, boxed: Boxed, counted: Sequence[Segment], targets: Sequence[str]) -> Volume:
    """The targets' voxels too, where no organ is."""
    array = labels.array_kji
    for segment in counted:
        if segment.name in targets and (box := boxed.box(segment)):
            array[box][boxed.mask(segment, box) & (array[box] == 0)] = segment.label
    return labels.with_array(array)


def _about_absent(asked: Iterable[str], boxed: Boxed, marks: Marks) -> Iterator[Remark]:
    """Masks without a voxel, and organs that the table promises."""
    filled = {segment.name for segment in boxed.segmentation.segments}
    for name in asked:
        if name not in filled:
            yield Remark("empty", name, f"{name} has a mask without a single voxel; it counts as not drawn.")
    for name, mark in marks.items():
        if mark != MISSING and name not in filled and name not in asked:
            yield Remark("availability", name, f"{name} has no mask, though the availability table lists it.")


def _about_overlaps(overlaps: Overlaps) -> Iterator[Remark]:
    for conflict in overlaps.conflicts:
        text = f"{conflict.winner} has {conflict.ml:.3g} mL that {conflict.loser} claims, too: {conflict.reason}"
        yield Remark("overlap", conflict.winner, text)


def _about_volumes(boxed: Boxed, overlaps: Overlaps) -> Iterator[Remark]:
    """Volumes far outside the published range: three times over, or under a third."""
    for segment in boxed.segmentation.segments:
        if organ := segment.organ:
            ml, (low, high) = overlaps.ml(organ.name), organ.range_ml
            if not low / VOLUME_SLACK <= ml <= high * VOLUME_SLACK:
                text = f"{organ.name} measures {ml:.3g} mL; {low:g} to {high:g} mL are usual."
                yield Remark("volume", organ.name, text)


def _table_name(name: str) -> str:
    try:
        return find_organ(name).name
    except UnknownOrgan:
        return name
