"""Images made ready for registration: coarse by block means, MR without padding and shading, grey values in classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.errors import UnsupportedImage
from hnseg.image.blocks import block_means
from hnseg.image.grid import Grid
from hnseg.image.padding import air_threshold, padding
from hnseg.image.resample import resample
from hnseg.image.volume import Volume
from hnseg.registration.poses import Pose, to_transform

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Values (float32), where they are data (bool), and the threshold between air and body."""

    values: Volume
    valid: Volume
    air_below: float

    @property
    def grid(self) -> Grid:
        """The grid of both volumes."""
        return self.values.grid

    def coarser(self, spacing_mm: float) -> Prepared:
        """Block means at about ``spacing_mm``; a block is data where most of it is."""
        valid = block_means(self.valid.with_array(self.valid.array_kji.astype(np.float32)), spacing_mm)
        return Prepared(block_means(self.values, spacing_mm), valid.with_array(valid.array_kji > 0.5), self.air_below)


def prepare_ct(ct: Volume, spacing_mm: float) -> Prepared:
    """CT at about ``spacing_mm``, clipped to −1000…2000: what lies beyond (padding, metal) says nothing about
    anatomy.
    """
    coarse = block_means(ct, spacing_mm)
    values = np.clip(coarse.array_kji, -1000, 2000)
    return Prepared(
        coarse.with_array(values), coarse.with_array(np.ones(values.shape, dtype=bool)), air_threshold(values)
    )


def prepare_mr(mr: Volume, spacing_mm: float) -> Prepared:
    """MR at about ``spacing_mm``: padding marked as no data, slow shading divided out, the top per mille clipped.

    Raises ``UnsupportedImage`` where all values are equal.
    """
    coarse = block_means(mr, spacing_mm)
    # A block is lowest only if all its voxels are; those beside it hold some padding.
    valid = ~ndimage.binary_dilation(padding(coarse.array_kji))
    values = coarse.array_kji
    low, high = np.percentile(values[valid], [0.1, 99.9]) if valid.any() else (0.0, 0.0)
    if not high > low:
        raise UnsupportedImage(f"The MR holds one value only ({high:g}); choose the series with the anatomy.")
    clipped = np.clip(values - low, 0, high - low).astype(np.float32)
    flat = _without_shading(clipped, valid, coarse.grid.spacing_mm, air_threshold(clipped[valid]))
    return Prepared(coarse.with_array(flat), coarse.with_array(valid), air_threshold(flat[valid]))


def _without_shading(values: Array, valid: NDArray[np.bool_], spacing_mm: Sequence[float], air: float) -> Array:
    """Divided by the mean brightness of the body within 50 mm, which turns coil shading into a flat field."""
    sigma = [50.0 / mm for mm in spacing_mm[::-1]]
    stride = tuple(slice(None, None, max(1, round(s / 6))) for s in sigma)
    body = ((values > air) & valid).astype(np.float32)[stride]
    coarse_sigma = [s / st.step for s, st in zip(sigma, stride, strict=True)]
    weight = ndimage.gaussian_filter(body, coarse_sigma, mode="constant")
    sums = ndimage.gaussian_filter(body * values[stride], coarse_sigma, mode="constant")
    overall = sums.sum() / max(float(weight.sum()), 1e-6)
    # The pull towards the overall mean keeps the field finite where no body is near.
    field = (sums + 0.02 * overall) / (weight + 0.02)
    zoom = np.meshgrid(*(np.arange(n) / s.step for n, s in zip(values.shape, stride, strict=True)), indexing="ij")
    full = ndimage.map_coordinates(field, np.stack(zoom).astype(np.float32), order=1, mode="nearest")
    return np.asarray(values * (overall / full), dtype=np.float32)


def grey_classes(image: Prepared, quantiles: Sequence[float]) -> NDArray[np.float64]:
    """Edges of classes: air below the first, the body split at the quantiles of its own values. Ascending."""
    body = image.values.array_kji[image.valid.array_kji & (image.values.array_kji > image.air_below)]
    inner = np.quantile(body, quantiles) if body.size else np.zeros(0)
    return np.concatenate([[image.air_below], inner])


def on_grid(image: Prepared, grid: Grid, grid_to_image: Pose | None = None) -> Prepared:
    """The image at the voxel centres of ``grid`` (linear); no data where the image has none or ends."""
    transform = None if grid_to_image is None else to_transform(grid_to_image)
    share = image.valid.with_array(image.valid.array_kji.astype(np.float32))
    values = resample(image.values, grid, fill=0.0, transform=transform)
    return Prepared(values, Volume(resample(share, grid, transform=transform).array_kji > 0.5, grid), image.air_below)
