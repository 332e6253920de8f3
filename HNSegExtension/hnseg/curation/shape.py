"""Standard shapes: crops and spacings as grids, the way onto them and back, and the proof that no organ was cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hnseg.errors import ConfigError, GeometryMismatch, UnsupportedImage
from hnseg.evaluation.boxes import Boxed, cropped
from hnseg.image.body import body_mask
from hnseg.image.brain import find_brain
from hnseg.image.grid import Grid
from hnseg.image.orient import canonical, oriented_like
from hnseg.image.resample import Interpolation, resample
from hnseg.image.segmentation import Segment, Segmentation
from hnseg.image.volume import Volume

Index = NDArray[np.int_]

ShapeName = Literal["ct", "512", "head-neck", "head"]
"""The CT's own grid; 512 × 512 columns around the body; from the vertex to below the thyroid; the head alone."""

_SLACK = 1e-3  # voxels: what rounding in a file's header may amount to
_SCALP_MM = 30.0  # from the top of the brain to above the skin


@dataclass(frozen=True, slots=True)
class ShapeSettings:
    """``spacing_mm`` None keeps the CT's voxels. ``below_brain_mm``: how far the crops go down from the skull base."""

    shape: ShapeName = "ct"
    spacing_mm: tuple[float, float, float] | None = None
    margin_mm: float = 15.0
    head_below_brain_mm: float = 110.0
    neck_below_brain_mm: float = 210.0

    def __post_init__(self) -> None:
        if self.spacing_mm is not None and not min(self.spacing_mm) > 0:
            raise ConfigError(f"A spacing needs three values above 0 mm, got {self.spacing_mm}.")
        if not (self.margin_mm >= 0 and self.head_below_brain_mm > 0 and self.neck_below_brain_mm > 0):
            raise ConfigError("A crop's margin must not be negative, nor its lengths 0; correct them.")


@dataclass(frozen=True, slots=True)
class Kept:
    """Volume of a structure before and after, mL. On a crop they are equal; a new spacing changes them a little."""

    structure: str
    before_ml: float
    after_ml: float


def shaped_grid(ct: Volume, organs: Boxed | None, settings: ShapeSettings) -> Grid:
    """The grid that the settings ask for, with room for the structures of ``organs``.

    Axes run along the CT's own, turned (never resampled) to be nearest to +x, +y, +z, unless the CT's grid is kept.
    Raises ``UnsupportedImage`` where "head" finds no skull, or any crop no body.
    """
    if settings.shape == "ct":
        grid = ct.grid
    else:
        upright = canonical(ct)
        box = _organ_box(organs, upright.grid) if organs is not None else None
        start, stop = _CROPS[settings.shape](upright, box, settings)
        grid = upright.grid.cropped(start.tolist(), (stop - start).tolist())
    return grid if settings.spacing_mm is None else grid.respaced(settings.spacing_mm)


def onto(volume: Volume, grid: Grid, *, interpolation: Interpolation, fill: float) -> Volume:
    """The volume on the grid: voxels copied where both share a lattice (and turned if need be), else resampled.

    Also the inverse: ``onto(onto(v, crop), v.grid)`` gives back what the crop held, with ``fill`` around it.
    """
    if volume.grid == grid:
        return volume
    turned, target = canonical(volume), _canonical_grid(grid)
    start = _lattice_offset(turned.grid, target)
    if start is None:
        return resample(volume, grid, interpolation=interpolation, fill=fill)
    copied = Volume(_cut(turned.array_kji, start[::-1], target.shape_kji, fill), target)
    return Volume(np.ascontiguousarray(oriented_like(copied, grid).array_kji), grid)


def proof(before: Boxed, after: Boxed) -> tuple[Kept, ...]:
    """What each structure measures before and after. Raises ``GeometryMismatch`` where a crop took anything from one.

    On one lattice every voxel must be there again; on another, the new grid must hold the structure's whole box, and
    something must be left of it.
    """
    exact = _lattice_offset(_canonical_grid(before.grid), _canonical_grid(after.grid)) is not None
    kept = []
    for segment in before.segmentation.segments:
        old, new = (_voxels(boxed, segment) for boxed in (before, after))
        row = Kept(segment.name, old * before.grid.voxel_ml, new * after.grid.voxel_ml)
        if (exact and old != new) or (old > 0 and new == 0) or not _holds(after.grid, before, segment):
            raise GeometryMismatch(
                f"The {'crop cuts' if new else 'new shape loses'} {row.structure} ({row.before_ml:.3g} mL before, "
                f"{row.after_ml:.3g} mL after); give it a wider margin or a finer spacing."
            )
        kept.append(row)
    return tuple(kept)


def reshaped(segmentation: Segmentation, grid: Grid) -> Segmentation:
    """Every layer on the grid, by nearest neighbour where it must be resampled."""
    layers = tuple(onto(layer, grid, interpolation="nearest", fill=0) for layer in segmentation.layers)
    return Segmentation(layers, segmentation.segments)


Ends = tuple[Index, Index]
"""First voxel and the one past the last, ijk."""


def _columns_512(ct: Volume, organs: Ends | None, settings: ShapeSettings) -> Ends:
    """All slices, 512 by 512 columns about the middle of the organs, else of the body; air where the CT ends."""
    low, high = organs or _body_ends(ct, -np.inf, np.inf)
    start = np.rint((low + high) / 2).astype(int) - 256
    start[2] = 0
    return start, np.array([start[0] + 512, start[1] + 512, ct.grid.size_ijk[2]])


def _head(ct: Volume, organs: Ends | None, settings: ShapeSettings) -> Ends:
    """From above the vertex to below the brain."""
    brain = find_brain(ct)
    lowest, highest = brain.low_lps[2] - settings.head_below_brain_mm, brain.high_lps[2] + _SCALP_MM
    return _with_room(ct, _body_ends(ct, lowest, highest), organs, settings)


def _head_neck(ct: Volume, organs: Ends | None, settings: ShapeSettings) -> Ends:
    """The same down to the shoulders. A CT that shows no brain ends at the skull base: then all its slices stay."""
    try:
        brain = find_brain(ct)
    except UnsupportedImage:
        lowest, highest = -np.inf, np.inf
    else:
        lowest, highest = brain.low_lps[2] - settings.neck_below_brain_mm, brain.high_lps[2] + _SCALP_MM
    return _with_room(ct, _body_ends(ct, lowest, highest), organs, settings)


def _with_room(ct: Volume, body: Ends, organs: Ends | None, settings: ShapeSettings) -> Ends:
    """Around both with the margin, as far as the CT goes."""
    ends = [body, *([organs] if organs is not None else [])]
    margin = np.ceil(settings.margin_mm / np.asarray(ct.grid.spacing_mm)).astype(int)
    start = np.min([first for first, _ in ends], axis=0) - margin
    stop = np.max([last for _, last in ends], axis=0) + margin
    return np.maximum(start, 0), np.minimum(stop, ct.grid.size_ijk)


_CROPS: dict[str, Callable[[Volume, Ends | None, ShapeSettings], Ends]] = {
    "512": _columns_512,
    "head-neck": _head_neck,
    "head": _head,
}


def _body_ends(ct: Volume, lowest_mm: float, highest_mm: float) -> Ends:
    """The body between two heights (z, LPS)."""
    body = body_mask(ct)
    points = body.grid.to_lps(np.argwhere(body.array_kji)[:, ::-1])
    between = points[(points[:, 2] >= lowest_mm) & (points[:, 2] <= highest_mm)]
    reach = np.asarray(body.grid.spacing_mm) / np.asarray(ct.grid.spacing_mm)
    at = ct.grid.to_ijk(between if len(between) else points)
    return _whole(at.min(axis=0) - reach, at.max(axis=0) + reach + 1)


def _organ_box(organs: Boxed, grid: Grid) -> Ends | None:
    """Around all of them; None where there are none."""
    corners = [
        grid.to_ijk(cropped(organs.grid, box).corners_lps())
        for segment in organs.segmentation.segments
        if (box := organs.box(segment))
    ]
    if not corners:
        return None
    points = np.concatenate(corners)
    return _whole(points.min(axis=0) + 0.5, points.max(axis=0) + 0.5)


def _whole(low: NDArray[np.float64], high: NDArray[np.float64]) -> Ends:
    """Outwards to whole voxels, so that rounding in a file's header does not decide where a crop ends."""
    return np.floor(low + _SLACK).astype(int), np.ceil(high - _SLACK).astype(int)


def _holds(grid: Grid, boxed: Boxed, segment: Segment) -> bool:
    box = boxed.box(segment)
    if box is None:
        return True
    at = grid.to_ijk(cropped(boxed.grid, box).corners_lps())
    return bool((at >= -0.5 - _SLACK).all() and (at <= np.asarray(grid.size_ijk) - 0.5 + _SLACK).all())


def _voxels(boxed: Boxed, segment: Segment) -> int:
    box = boxed.box(segment)
    return int(np.count_nonzero(boxed.mask(segment, box))) if box else 0


def _canonical_grid(grid: Grid) -> Grid:
    return canonical(Volume(np.broadcast_to(np.uint8(0), grid.shape_kji), grid)).grid


def _lattice_offset(source: Grid, target: Grid) -> Index | None:
    """The voxel of ``source`` at the target's first one, where both are pieces of one lattice; else None."""
    if not np.allclose(source.ijk_to_lps[:3, :3], target.ijk_to_lps[:3, :3], atol=_SLACK / max(target.size_ijk)):
        return None
    offset = source.to_ijk(np.asarray(target.origin_lps))
    whole: Index = np.rint(offset).astype(int)
    return whole if np.abs(offset - whole).max() < _SLACK else None


def _cut(array_kji: NDArray[Any], start_kji: Index, shape_kji: tuple[int, int, int], fill: float) -> NDArray[Any]:
    """The box that begins at ``start_kji``; ``fill`` where it leaves the array."""
    cut = np.full(shape_kji, fill, array_kji.dtype)
    first = np.clip(start_kji, 0, array_kji.shape)
    last = np.clip(start_kji + shape_kji, 0, array_kji.shape)
    source = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    target = tuple(slice(a, b) for a, b in zip(first - start_kji, last - start_kji, strict=True))
    cut[target] = array_kji[source]
    return cut
