"""Dose statistics of structures: the dose-volume histogram and the figures that protocols ask for.

dicompyler-core, the library of the field for this, does not run with pydicom 3; docs/dicom-export.md compares figures.
Nomenclature: AAPM TG-263 (Dmean, D0.03cc, V30Gy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.image.grid import Grid
from hnseg.image.resample import resample
from hnseg.image.segmentation import Segmentation
from hnseg.image.volume import Volume

NEAR_MAXIMUM_ML = 0.03
FINEST_MM = 1.0
"""Voxels larger than that are split."""
_OUTSIDE_GY = -1.0

Doses = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OrganDose:
    """Dose statistics in Gy of the part of a structure that the dose grid covers; nan if it covers none.

    ``near_max_gy`` is D0.03cc: the least dose in the 0.03 mL that receive most (the minimum dose of a smaller
    structure). ``volume_share`` gives V of each asked dose: the share, 0…1, that receives at least so much.
    """

    name: str
    ml: float
    covered: float
    mean_gy: float
    max_gy: float
    min_gy: float
    near_max_gy: float
    median_gy: float
    d95_gy: float
    volume_share: dict[float, float]


def dose_statistics(
    segmentation: Segmentation, dose_gy: Volume, *, levels_gy: Sequence[float] = ()
) -> tuple[OrganDose, ...]:
    """Statistics of each non-empty segment. Dose is linear between the dose grid's points.

    Voxels larger than 1 mm are split, so that a steep dose inside a thick slice counts as it falls, and not at its
    centre only.
    """
    boxes = [ndimage.find_objects(layer.array_kji) for layer in segmentation.layers]
    organs = []
    for segment in segmentation.segments:
        box = boxes[segment.layer][segment.label - 1] if segment.label <= len(boxes[segment.layer]) else None
        if box is not None:
            inside = segmentation.layers[segment.layer].array_kji[box] == segment.label
            organs.append(organ_dose(segment.name, Volume(inside, _cut(segmentation.grid, box)), dose_gy, levels_gy))
    return tuple(organs)


def organ_dose(name: str, mask: Volume, dose_gy: Volume, levels_gy: Sequence[float] = ()) -> OrganDose:
    """Statistics of one structure; its mask must hold a voxel."""
    ml = float(np.count_nonzero(mask.array_kji) * mask.grid.voxel_ml)
    sampled = doses_in(mask, dose_gy)
    doses = sampled[sampled >= 0]
    if not len(doses):
        nan = float("nan")
        return OrganDose(name, ml, 0.0, nan, nan, nan, nan, nan, nan, dict.fromkeys(levels_gy, nan))
    return OrganDose(
        name=name,
        ml=ml,
        covered=len(doses) / len(sampled),
        mean_gy=float(doses.mean()),
        max_gy=float(doses.max()),
        min_gy=float(doses.min()),
        near_max_gy=dose_at_volume(doses, ml / len(sampled), NEAR_MAXIMUM_ML),
        median_gy=float(np.median(doses)),
        d95_gy=float(np.quantile(doses, 0.05)),
        volume_share={level: float(np.mean(doses >= level)) for level in levels_gy},
    )


def doses_in(mask: Volume, dose_gy: Volume) -> Doses:
    """The dose (Gy) at the middle of each part of each voxel inside; −1 beyond the dose grid."""
    parts = [max(1, int(np.ceil(spacing / FINEST_MM - 1e-6))) for spacing in mask.grid.spacing_mm]
    fine_grid = mask.grid.respaced([spacing / n for spacing, n in zip(mask.grid.spacing_mm, parts, strict=True)])
    fine = mask.array_kji != 0
    for axis, n in enumerate(reversed(parts)):
        fine = np.repeat(fine, n, axis=axis)
    sampled = resample(dose_gy, fine_grid, interpolation="linear", fill=_OUTSIDE_GY).array_kji
    return np.asarray(sampled[fine], dtype=np.float64)


def dose_at_volume(doses_gy: Doses, point_ml: float, volume_ml: float) -> float:
    """The dose that the hottest ``volume_ml`` receive at least; the minimum if the structure is smaller."""
    hottest = np.sort(doses_gy)[::-1]
    return float(np.interp(volume_ml, point_ml * np.arange(1, len(hottest) + 1), hottest))


def _cut(grid: Grid, box: tuple[slice, ...]) -> Grid:
    k, j, i = box
    return grid.cropped((i.start, j.start, k.start), (i.stop - i.start, j.stop - j.start, k.stop - k.start))
