"""Volume ↔ SimpleITK. The one place where axes are reversed for ITK."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume


def to_sitk(volume: Volume) -> sitk.Image:
    """A SimpleITK image with the volume's values and place. Booleans become uint8."""
    array = volume.array_kji
    image = sitk.GetImageFromArray(array.astype(np.uint8) if array.dtype == bool else array)
    place(image, volume.grid)
    return image


def place(image: sitk.Image, grid: Grid) -> None:
    """Set the image's origin, spacing and direction to the grid's."""
    image.SetOrigin(grid.origin_lps)
    image.SetSpacing(grid.spacing_mm)
    image.SetDirection(grid.direction)


def from_sitk(image: sitk.Image) -> Volume:
    """A volume with a copy of the image's values."""
    return Volume(sitk.GetArrayFromImage(image), grid_of(image))


def grid_of(image: sitk.Image) -> Grid:
    """The image's grid."""
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
