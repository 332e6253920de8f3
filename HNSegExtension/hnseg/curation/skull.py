"""The head in a CT of any length, found by what no other bones do: enclose a litre of soft tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.errors import UnsupportedImage
from hnseg.image.body import subsampled
from hnseg.image.grid import Grid
from hnseg.image.orient import canonical
from hnseg.image.volume import Volume

_WORKING_MM = 4.0
_BONE_HU = 250.0
_BRAIN_HU = (-30.0, 120.0)
_GAP_VOXELS = 2  # foramina and sutures are closed over
_NARROW_VOXELS = 3  # the canal of the spinal cord is no brain
_LEAST_ML = 300.0
_MOST_ML = 2500.0


@dataclass(frozen=True, slots=True)
class Brain:
    """Box of the soft tissue inside the skull, LPS mm."""

    low_lps: tuple[float, float, float]
    high_lps: tuple[float, float, float]
    ml: float


def find_brain(ct: Volume) -> Brain:
    """The brain's box in a CT in HU, whole body or head alone, the vertex cut off or not.

    Bone is thresholded, its gaps closed, each axial slice filled; of the enclosed regions of soft tissue that are as
    large as a brain, it is the highest. Raises ``UnsupportedImage`` where bone encloses nothing of that size.
    """
    coarse = subsampled(canonical(ct), _WORKING_MM)
    soft = _enclosed(coarse.array_kji) & _between(coarse.array_kji, _BRAIN_HU)
    parts, count = ndimage.label(ndimage.binary_opening(soft, iterations=_NARROW_VOXELS))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:] * coarse.grid.voxel_ml
    fitting = 1 + np.flatnonzero((sizes >= _LEAST_ML) & (sizes <= _MOST_ML))
    if not len(fitting):
        largest = f"{sizes.max():.0f} mL" if count else "nothing"
        raise UnsupportedImage(
            f"The CT shows no skull: bone encloses {largest}, and a brain has {_LEAST_ML:.0f} to {_MOST_ML:.0f} mL; "
            "crop it by hand or keep its own shape."
        )
    boxes = ndimage.find_objects(parts)
    highest = max(fitting, key=lambda part: boxes[part - 1][0].stop)
    return _brain(np.argwhere(parts == highest)[:, ::-1], coarse.grid)


def _brain(voxels_ijk: NDArray[np.intp], grid: Grid) -> Brain:
    places = grid.to_lps(voxels_ijk)
    (x0, y0, z0), (x1, y1, z1) = places.min(axis=0).tolist(), places.max(axis=0).tolist()
    return Brain((x0, y0, z0), (x1, y1, z1), len(voxels_ijk) * grid.voxel_ml)


def _enclosed(hu: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.bool_]:
    bone = np.pad(hu > _BONE_HU, _GAP_VOXELS)
    closed = ndimage.binary_closing(bone, iterations=_GAP_VOXELS)
    inner = tuple(slice(_GAP_VOXELS, -_GAP_VOXELS) for _ in range(3))
    return np.stack([ndimage.binary_fill_holes(axial) & ~axial for axial in closed[inner]])


def _between(hu: NDArray[np.integer] | NDArray[np.floating], limits: tuple[float, float]) -> NDArray[np.bool_]:
    return np.asarray((hu > limits[0]) & (hu < limits[1]))
