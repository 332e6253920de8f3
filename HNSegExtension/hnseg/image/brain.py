"""The head in a CT of any length, found by what no other bones do: surround a brain."""

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
_BONE_HU = 200.0  # a thin vault in voxels of 4 mm is no brighter
_SOFT_HU = (-40.0, 130.0)
_NARROW_VOXELS = 2  # the canal of the spinal cord is no brain
_LEAST_ML, _MOST_ML = 200.0, 2500.0
_NEAR_MM, _NEAR_SHARE = 24.0, 0.65  # of a brain's surface 76 to 91 % lie that near to bone, of half a pelvis 54 %


@dataclass(frozen=True, slots=True)
class Brain:
    """Box of the soft tissue inside the skull, LPS mm."""

    low_lps: tuple[float, float, float]
    high_lps: tuple[float, float, float]
    ml: float


def find_brain(ct: Volume) -> Brain:
    """The brain's box in a CT in HU: whole body or head alone, the vertex cut off or not, voxels of up to 5 mm.

    Soft tissue counts as surrounded where bone lies to its left, right, front and back, whatever holes the bone has. Of
    such regions that have a brain's volume, or part of it, and lie close under bone, it is the highest. Raises
    ``UnsupportedImage`` where there is none.
    """
    coarse = subsampled(canonical(ct), _WORKING_MM)
    bone = coarse.array_kji > _BONE_HU
    low, high = _SOFT_HU
    soft = _surrounded(bone) & (coarse.array_kji > low) & (coarse.array_kji < high)
    parts, count = ndimage.label(ndimage.binary_opening(soft, iterations=_NARROW_VOXELS))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:] * coarse.grid.voxel_ml
    from_bone = ndimage.distance_transform_edt(~bone, sampling=coarse.grid.spacing_mm[::-1])
    fitting = [
        part
        for part in 1 + np.flatnonzero((sizes >= _LEAST_ML) & (sizes <= _MOST_ML))
        if _share_near(parts == part, from_bone) >= _NEAR_SHARE
    ]
    if not fitting:
        largest = f"{sizes.max():.0f} mL" if count else "nothing"
        raise UnsupportedImage(
            f"The CT shows no skull: bone surrounds {largest}, and a brain has {_LEAST_ML:.0f} to {_MOST_ML:.0f} mL "
            "close under bone; crop it by hand or keep its own shape."
        )
    brains = [_brain(np.argwhere(parts == part)[:, ::-1], coarse.grid) for part in fitting]
    return max(brains, key=lambda brain: brain.high_lps[2])


def _share_near(region: NDArray[np.bool_], from_bone: NDArray[np.float64]) -> float:
    """Of the region's surface, the share close to bone."""
    surface = region & ~ndimage.binary_erosion(region)
    return float((from_bone[surface] <= _NEAR_MM).mean())


def _brain(voxels_ijk: NDArray[np.intp], grid: Grid) -> Brain:
    places = grid.to_lps(voxels_ijk)
    (x0, y0, z0), (x1, y1, z1) = places.min(axis=0).tolist(), places.max(axis=0).tolist()
    return Brain((x0, y0, z0), (x1, y1, z1), len(voxels_ijk) * grid.voxel_ml)


def _surrounded(bone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """No bone itself, but bone somewhere in each of the four directions of its axial slice."""
    inside = ~bone
    for axis in (1, 2):
        inside &= np.logical_or.accumulate(bone, axis=axis)
        inside &= np.flip(np.logical_or.accumulate(np.flip(bone, axis), axis=axis), axis)
    return inside
