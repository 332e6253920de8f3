"""Where the patient is in a CT: without couch, mask holder and air."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.errors import UnsupportedImage
from hnseg.image.grid import Grid
from hnseg.image.orient import canonical
from hnseg.image.volume import Volume

_SKIN_HU = -350.0
_WORKING_MM = 3.0


def body_mask(ct: Volume) -> Volume:
    """The patient's filled outline (airways inside): a boolean volume on a grid of about 3 mm along the CT's axes.

    Soft tissue and bone by threshold, thin things (couch plates, masks) opened away, the largest part kept, each axial
    slice filled. The grid is canonical (nearest to +x, +y, +z) and covers the CT. Raises ``UnsupportedImage`` when
    nothing in the image is denser than air.
    """
    coarse = subsampled(canonical(ct), _WORKING_MM)
    dense = coarse.array_kji > _SKIN_HU
    solid = ndimage.binary_opening(dense, structure=_ball(2))
    if not solid.any():
        raise UnsupportedImage("The CT shows no body, got air everywhere; check that its values are Hounsfield units.")
    largest = _largest_component(solid)
    regrown = ndimage.binary_dilation(largest, structure=_ball(2), mask=dense)
    return coarse.with_array(_filled_slices(_closed(regrown)))


def subsampled(volume: Volume, working_mm: float) -> Volume:
    """Every n-th voxel along each axis, so that the spacing comes near ``working_mm``."""
    steps = [max(1, round(working_mm / mm)) for mm in volume.grid.spacing_mm]
    i, j, k = steps
    array = volume.array_kji[::k, ::j, ::i]
    affine = volume.grid.ijk_to_lps.copy()
    affine[:3, :3] *= steps
    return Volume(array, Grid.from_affine(array.shape, affine))


def _largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def _closed(mask: NDArray[np.bool_], radius: int = 3) -> NDArray[np.bool_]:
    """Nostrils, mouth and ear canals closed, so that the air behind them counts as inside."""
    padded = np.pad(mask, radius, mode="edge")
    inner = tuple(slice(radius, -radius) for _ in range(3))
    return np.asarray(ndimage.binary_closing(padded, structure=_ball(radius))[inner] | mask)


def _filled_slices(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.stack([ndimage.binary_fill_holes(axial) for axial in mask])


def _ball(radius: int) -> NDArray[np.bool_]:
    reach = np.arange(-radius, radius + 1)
    squared = reach[:, None, None] ** 2 + reach[:, None] ** 2 + reach**2
    return np.asarray(squared <= radius**2 + 0.5)
