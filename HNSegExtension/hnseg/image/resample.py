"""Resampling from one grid to another, in physical space only."""

from __future__ import annotations

from typing import Literal

import SimpleITK as sitk

from hnseg.image.grid import Grid
from hnseg.image.itk import from_sitk, place, to_sitk
from hnseg.image.volume import Volume

Interpolation = Literal["nearest", "linear", "bspline"]

_INTERPOLATORS = {"nearest": sitk.sitkNearestNeighbor, "linear": sitk.sitkLinear, "bspline": sitk.sitkBSpline}


def resample(
    volume: Volume,
    grid: Grid,
    *,
    interpolation: Interpolation = "linear",
    fill: float = 0.0,
    transform: sitk.Transform | None = None,
) -> Volume:
    """The volume's values at the voxel centres of ``grid``; ``fill`` outside.

    ``transform`` follows ITK: it maps points of ``grid`` (fixed) to points of ``volume`` (moving), LPS mm. Labels must
    be resampled with ``"nearest"``. The value type is kept. Where the grids are equal and no transform is given, the
    volume itself is returned.
    """
    if transform is None and volume.grid == grid:
        return volume
    reference = sitk.Image(grid.size_ijk, sitk.sitkUInt8)
    place(reference, grid)
    image = to_sitk(volume)
    resampled = sitk.Resample(
        image, reference, transform or sitk.Transform(3, sitk.sitkIdentity), _INTERPOLATORS[interpolation], fill,
        image.GetPixelID(),
    )  # fmt: skip
    return from_sitk(resampled)
