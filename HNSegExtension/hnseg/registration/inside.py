"""The body more than 1 cm under the skin: what a wrong patient's outline cannot fake."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.image.volume import Volume
from hnseg.registration.images import Prepared
from hnseg.registration.information import linear, smooth, to_bins
from hnseg.registration.poses import Pose, moved

DEPTH_MM = 10.0
_BINS = 20
_NEAR_MM = 6.0


def inside_body(ct: Prepared, depth_mm: float = DEPTH_MM) -> Volume:
    """Where the CT shows body at least ``depth_mm`` from the outside air; airways count as inside. Images of 4 mm."""
    solid = ndimage.binary_opening(ct.values.array_kji > ct.air_below, iterations=2)
    parts, count = ndimage.label(solid)
    if count:
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        solid = parts == sizes.argmax()
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in solid])
    # The body goes on beyond the first and last slice, so these are no skin.
    padded = np.pad(filled, 1, mode="edge")
    depth = ndimage.distance_transform_edt(padded, sampling=ct.grid.spacing_mm[::-1])[1:-1, 1:-1, 1:-1]
    return ct.values.with_array(np.asarray(depth > depth_mm))


def lies_in(mask: Volume, points: NDArray[np.floating]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For points (N, 3): in the mask's field of view, and in the mask."""
    ijk = np.rint(mask.grid.to_ijk(points)).astype(np.intp)
    seen = np.all((ijk >= 0) & (ijk < np.asarray(mask.grid.size_ijk)), axis=1)
    within = np.zeros(len(ijk), dtype=bool)
    i, j, k = ijk[seen].T
    within[seen] = mask.array_kji[k, j, i]
    return seen, within


def shown_by_both(ct: Prepared, mr: Prepared, ct_to_mr: Pose) -> Volume:
    """The CT's body and a little air around it, where the MR has data at the pose."""
    voxels = max(1, round(_NEAR_MM / max(ct.grid.spacing_mm)))
    body = ndimage.binary_opening(ct.values.array_kji > ct.air_below, iterations=voxels)
    near = ndimage.binary_dilation(body, iterations=voxels)
    kji = np.argwhere(near)
    near[tuple(kji.T)] = lies_in(mr.valid, moved(ct.grid.to_lps(kji[:, ::-1]), ct_to_mr))[1]
    return ct.values.with_array(np.asarray(near))


def edge_agreement(ct: Prepared, mr: Prepared, mr_to_ct: Pose, inside: Volume) -> float:
    """Mean cos² of the angle between the two gradients at the MR's strongest edges inside the body; 1/3 by chance.

    Weighted by both gradients' strength; 0 where there is nothing to compare. After Haber and Modersitzki 2006.
    """
    mr_bins = smooth(to_bins(mr, _BINS), mr.grid.spacing_mm, 2.0)
    ct_bins = smooth(to_bins(ct, _BINS), ct.grid.spacing_mm, 2.0)
    kji = np.argwhere(mr.valid.array_kji)
    places = moved(mr.grid.to_lps(kji[:, ::-1]), mr_to_ct)
    ijk = ct.grid.to_ijk(places)
    chosen = lies_in(inside, places)[1] & np.all((ijk >= 0) & (ijk < np.asarray(ct.grid.size_ijk) - 1), axis=1)
    if chosen.sum() < 100:
        return 0.0
    mr_slope = _slopes(mr_bins, mr)[tuple(kji[chosen].T)] @ mr_to_ct[:3, :3].T
    ct_slope = linear(ct_bins, ijk[chosen].T.astype(np.float32))[1].T @ ct.grid.lps_to_ijk[:3, :3]
    mr_size, ct_size = np.linalg.norm(mr_slope, axis=1), np.linalg.norm(ct_slope, axis=1)
    strong = mr_size > np.quantile(mr_size, 0.7)
    weight = (mr_size * ct_size)[strong]
    squared_cosine = np.sum(mr_slope * ct_slope, axis=1)[strong] ** 2 / np.maximum(weight, 1e-9) ** 2
    return float(np.sum(weight * squared_cosine) / max(float(weight.sum()), 1e-9))


def _slopes(bins: NDArray[np.float32], image: Prepared) -> NDArray[np.float64]:
    """Gradient per mm along LPS, (nk, nj, ni, 3)."""
    by_axis = [np.gradient(bins, mm, axis=2 - n) for n, mm in enumerate(image.grid.spacing_mm)]
    return np.asarray(np.stack(by_axis, axis=-1) @ image.grid.axes.T)
