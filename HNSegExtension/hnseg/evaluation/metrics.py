"""Metrics of one organ: two masks on one grid in, one number out. Lengths in mm, volumes in mL.

Nothing here decides what an empty mask means for a table; each function says what it returns, and
``hnseg.evaluation.compare`` applies the project's rule.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.evaluation.surfaces import SurfaceDistances
from hnseg.image.grid import Grid

Mask = NDArray[np.bool_]


def dsc(prediction: Mask, reference: Mask) -> float:
    """Dice similarity coefficient, 0…1; nan if both masks are empty. Dice 1945."""
    total = np.count_nonzero(prediction) + np.count_nonzero(reference)
    return float(2.0 * np.count_nonzero(prediction & reference) / total) if total else float("nan")


def iou(prediction: Mask, reference: Mask) -> float:
    """Intersection over union, 0…1; nan if both masks are empty. Jaccard 1912."""
    union = np.count_nonzero(prediction | reference)
    return float(np.count_nonzero(prediction & reference) / union) if union else float("nan")


def hausdorff(distances: SurfaceDistances, *, percentile: float = 100.0) -> float:
    """Symmetric Hausdorff distance, mm; ``percentile=95`` gives HD95.

    The larger of the two directed percentiles, taken over surface area (Nikolov et al. 2018). inf if exactly one mask
    is empty, nan if both. Huttenlocher 1993.
    """
    directed = (
        _percentile(distances.from_reference_mm, distances.reference_areas_mm2, percentile),
        _percentile(distances.from_prediction_mm, distances.prediction_areas_mm2, percentile),
    )
    return float(np.nanmax(directed)) if not np.isnan(directed).all() else float("nan")


def hd95(distances: SurfaceDistances) -> float:
    """95th-percentile symmetric surface distance, mm; inf if exactly one mask is empty, nan if both."""
    return hausdorff(distances, percentile=95.0)


def directed_mean_distances(distances: SurfaceDistances) -> tuple[float, float]:
    """Area-weighted mean distance, mm, from the reference's and from the prediction's surface; nan for an empty one."""
    pairs = (
        (distances.from_reference_mm, distances.reference_areas_mm2),
        (distances.from_prediction_mm, distances.prediction_areas_mm2),
    )
    first, second = (float((mm * area).sum() / area.sum()) if area.size else float("nan") for mm, area in pairs)
    return first, second


def mean_surface_distance(distances: SurfaceDistances) -> float:
    """Average symmetric surface distance over the area of both surfaces, mm; inf if one mask is empty, nan if both."""
    areas = np.concatenate([distances.reference_areas_mm2, distances.prediction_areas_mm2])
    millimetres = np.concatenate([distances.from_reference_mm, distances.from_prediction_mm])
    return float((millimetres * areas).sum() / areas.sum()) if areas.size else float("nan")


def surface_dsc(distances: SurfaceDistances, *, tolerance_mm: float) -> float:
    """Share, 0…1, of both surfaces that is within the tolerance of the other; 0 if one mask is empty, nan if both.

    Nikolov et al. 2018, arXiv:1809.04430.
    """
    total = distances.reference_areas_mm2.sum() + distances.prediction_areas_mm2.sum()
    if not total:
        return float("nan")
    near = (
        distances.reference_areas_mm2[distances.from_reference_mm <= tolerance_mm].sum()
        + distances.prediction_areas_mm2[distances.from_prediction_mm <= tolerance_mm].sum()
    )
    return float(near / total)


def added_path_length(
    prediction: Mask, reference: Mask, spacing_mm: tuple[float, float, float], *, tolerance_mm: float = 0.0
) -> float:
    """Length of reference contour, mm, that an editor of the prediction would have to draw, slice by slice.

    Contour voxels (4-neighbourhood in the slice) of the reference that are farther than ``tolerance_mm``, in the
    slice, from every contour voxel of the prediction, times the mean in-plane spacing. 0 if the reference is empty.
    Vaassen et al. 2020, doi:10.1016/j.phro.2019.12.001.
    """
    wanted, drawn = _contour_voxels(reference), _contour_voxels(prediction)
    if tolerance_mm > 0:
        drawn = _dilated_in_slice(drawn, spacing_mm, tolerance_mm)
    return float(np.count_nonzero(wanted & ~drawn) * np.sqrt(spacing_mm[0] * spacing_mm[1]))


def volume_ml(mask: Mask, grid: Grid) -> float:
    """Volume in millilitres."""
    return float(np.count_nonzero(mask) * grid.voxel_ml)


def relative_volume_error(prediction: Mask, reference: Mask) -> float:
    """(prediction − reference) / reference; positive if too large, nan if the reference is empty."""
    expected = np.count_nonzero(reference)
    return float((np.count_nonzero(prediction) - expected) / expected) if expected else float("nan")


def centroid_shift_mm(prediction: Mask, reference: Mask, grid: Grid) -> tuple[float, float, float]:
    """From the reference's centroid to the prediction's, LPS mm; nan if a mask is empty."""
    if not (prediction.any() and reference.any()):
        return float("nan"), float("nan"), float("nan")
    centroids = [grid.to_lps(np.argwhere(mask).mean(axis=0)[::-1]) for mask in (prediction, reference)]
    x, y, z = centroids[0] - centroids[1]
    return float(x), float(y), float(z)


def voxel_surface_distances(
    prediction: Mask, reference: Mask, spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The other definition in use: unweighted distances between BOUNDARY VOXELS, prediction → reference and back, mm.

    Boundary voxels are those with a face neighbour outside (MONAI, SimpleITK, MedPy). Kept to compare with figures
    computed that way; HD95 of HNSeg is ``hd95``. inf where the other mask is empty.
    """
    box = _box(prediction | reference)
    edges = [mask[box] & ~ndimage.binary_erosion(mask[box]) for mask in (prediction, reference)]
    fields = [
        ndimage.distance_transform_edt(~edge, sampling=spacing_mm[::-1]) if edge.any() else np.full(edge.shape, np.inf)
        for edge in edges
    ]
    return fields[1][edges[0]], fields[0][edges[1]]


def _box(mask: Mask) -> tuple[slice, ...]:
    """The box around the mask; outside it no boundary lies and no distance is asked for."""
    found = ndimage.find_objects(mask.view(np.uint8))
    return found[0] if found else (slice(0, 1),) * mask.ndim


def _percentile(distances_mm: NDArray[np.float64], areas: NDArray[np.float64], percentile: float) -> float:
    """The distance within which ``percentile`` % of the area lies; nan without any."""
    if not areas.size:
        return float("nan")
    order = np.argsort(distances_mm)
    share = np.cumsum(areas[order]) / areas.sum()
    # Rounding may leave the last share a hair under 1.
    index = min(int(np.searchsorted(share, percentile / 100.0)), len(order) - 1)
    return float(distances_mm[order[index]])


def _contour_voxels(mask: Mask) -> Mask:
    in_slice = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], np.bool_)
    return np.asarray(mask & ~ndimage.binary_erosion(mask, in_slice))


def _dilated_in_slice(mask: Mask, spacing_mm: tuple[float, float, float], radius_mm: float) -> Mask:
    ri, rj = (int(radius_mm / spacing) for spacing in spacing_mm[:2])
    j, i = np.ogrid[-rj : rj + 1, -ri : ri + 1]
    disc = (j * spacing_mm[1]) ** 2 + (i * spacing_mm[0]) ** 2 <= radius_mm**2 * (1 + 1e-12)
    return np.asarray(ndimage.binary_dilation(mask, disc[np.newaxis]))
