"""CT, MR and labels on one viewing grid along the patient's axes, and the slices a reader expects of it.

Radiological convention: the patient's left is on the right of axial and coronal pictures, anterior on the left of
sagittal ones, superior on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from hnseg.image.grid import Grid
from hnseg.image.resample import resample
from hnseg.image.volume import Volume

Gray = NDArray[np.uint8]

SOFT_TISSUE_HU = (-160.0, 240.0)
_AIR_HU, _MOST_HU = -1024.0, 32_000.0
_OUTSIDE = float(np.finfo(np.float32).min)
_FINEST_MM = 1.0
_MOST_PIXELS = 400
_MARGIN_MM = 35.0


class Plane(Enum):
    """An anatomical plane: the axis (of K, J, I) that it cuts, and the letters at left, right, top and bottom."""

    AXIAL = (0, "RLAP")
    CORONAL = (1, "RLSI")
    SAGITTAL = (2, "APSI")

    @property
    def axis(self) -> int:
        """Which array axis runs through the plane."""
        return int(self.value[0])

    @property
    def letters(self) -> str:
        """Orientation at the left, right, top and bottom edge."""
        return str(self.value[1])

    def cut(self, array_kji: NDArray[Any], index: int) -> NDArray[Any]:
        """The slice as it is looked at, first row on top. The array must lie along the patient's axes."""
        plane: NDArray[Any] = np.moveaxis(array_kji, self.axis, 0)[index]
        return plane if self is Plane.AXIAL else plane[::-1]


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """CT in HU, 8-bit MR (0 where it does not reach), labels and reference on ``grid``: isotropic, along +x, +y, +z."""

    grid: Grid
    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    mr: Gray | None = None
    mr_valid: NDArray[np.bool_] | None = None
    reference: NDArray[np.uint8] | None = None

    @property
    def spacing_mm(self) -> float:
        """Edge of a voxel."""
        return self.grid.spacing_mm[0]

    def ct_slice(self, plane: Plane, index: int) -> Gray:
        """A slice of the CT in the soft-tissue window."""
        return window(plane.cut(self.hu, index), SOFT_TISSUE_HU)


def make_views(
    ct: Volume,
    labels: Volume,
    *,
    mr: Volume | None = None,
    ct_to_mr: sitk.Transform | None = None,
    reference: Volume | None = None,
) -> Views:
    """Bring everything onto the viewing grid: the box around the labels, or the whole CT where there are none."""
    grid = viewing_grid(ct.grid, labels)
    hu = resample(_float(ct), grid, fill=_AIR_HU).array_kji
    shown = None if mr is None else _show_mr(mr, grid, ct_to_mr)
    return Views(
        grid=grid,
        hu=np.rint(hu).clip(_AIR_HU, _MOST_HU).astype(np.int16),
        labels=_nearest(labels, grid),
        mr=shown[0] if shown else None,
        mr_valid=shown[1] if shown else None,
        reference=None if reference is None else _nearest(reference, grid),
    )


def viewing_grid(ct_grid: Grid, labels: Volume) -> Grid:
    """Isotropic, along the patient's axes, at most 400 voxels a side, around the labels but inside the CT's box."""
    low, high = ct_grid.bounds_lps()
    occupied = np.argwhere(labels.array_kji)[:, ::-1]
    if len(occupied):
        ends = Grid.cropped(labels.grid, occupied.min(axis=0), np.ptp(occupied, axis=0) + 1).bounds_lps()
        low, high = np.maximum(low, ends[0] - _MARGIN_MM), np.minimum(high, ends[1] + _MARGIN_MM)
    spacing = max(_FINEST_MM, min(ct_grid.spacing_mm), float((high - low).max()) / _MOST_PIXELS)
    size = np.maximum(np.floor((high - low) / spacing), 1).astype(int)
    return Grid(tuple(size.tolist()), (spacing,) * 3, tuple((low + spacing / 2).tolist()))


def window(values: NDArray[Any], limits: tuple[float, float]) -> Gray:
    """Linear to 0…255 between the limits, clipped."""
    low, high = limits
    scaled = (np.asarray(values, np.float32) - low) * (255.0 / max(high - low, 1e-6))
    return np.asarray(np.clip(scaled, 0, 255), np.uint8)


def best_index(labels_kji: NDArray[np.uint8], plane: Plane) -> int:
    """The slice with the most organs, ties broken by their area; the middle one where there are none."""
    slices = np.moveaxis(labels_kji, plane.axis, 0)
    scores = [len(np.unique(cut)) + np.count_nonzero(cut) / cut.size for cut in slices]
    return int(np.argmax(scores)) if max(scores) > 1 else len(slices) // 2


def spread_indices(labels_kji: NDArray[np.uint8], plane: Plane, count: int) -> list[int]:
    """Slices at equal distances through the labelled part, the first and last a little inside it."""
    others = tuple(axis for axis in range(3) if axis != plane.axis)
    hit = np.flatnonzero(labels_kji.any(axis=others))
    first, last = (hit[0], hit[-1]) if len(hit) else (0, labels_kji.shape[plane.axis] - 1)
    steps = first + (last - first) * (np.arange(count) + 0.5) / count
    return sorted(set(np.round(steps).astype(int).tolist()))


def _show_mr(mr: Volume, grid: Grid, ct_to_mr: sitk.Transform | None) -> tuple[Gray, NDArray[np.bool_]]:
    values = resample(_float(mr), grid, fill=_OUTSIDE, transform=ct_to_mr).array_kji
    valid = values > _OUTSIDE
    inside = values[valid]
    limits = (float(np.percentile(inside, 1)), float(np.percentile(inside, 99.5))) if inside.size else (0.0, 1.0)
    return window(np.where(valid, values, limits[0]), limits), valid


def _nearest(labels: Volume, grid: Grid) -> NDArray[np.uint8]:
    return resample(labels, grid, interpolation="nearest").array_kji.astype(np.uint8)


def _float(volume: Volume) -> Volume:
    return volume.with_array(volume.array_kji.astype(np.float32))
