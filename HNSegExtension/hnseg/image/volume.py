"""An array that knows where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnseg.errors import GeometryMismatch, UnsupportedImage
from hnseg.image.grid import Grid


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A 3D scalar image: ``array_kji`` (numpy order) on ``grid`` (LPS). Raises when the shapes differ."""

    array_kji: NDArray[Any]
    grid: Grid

    def __post_init__(self) -> None:
        if self.array_kji.ndim != 3:
            raise UnsupportedImage(f"A volume is 3D, got {self.array_kji.ndim}D; pick one frame or one channel.")
        if self.array_kji.shape != self.grid.shape_kji:
            raise GeometryMismatch(
                f"The array is {self.array_kji.shape} but its grid {self.grid.shape_kji}; pass the array's own grid."
            )

    def with_array(self, array_kji: NDArray[Any]) -> Volume:
        """The same place with other values."""
        return Volume(array_kji, self.grid)

    def cropped(self, start_ijk: tuple[int, int, int], size_ijk: tuple[int, int, int]) -> Volume:
        """A view of the box that begins at ``start_ijk``; the box must lie inside."""
        stop = np.add(start_ijk, size_ijk)
        if min(start_ijk) < 0 or np.any(stop > self.grid.size_ijk):
            raise GeometryMismatch(
                f"The crop {start_ijk}+{size_ijk} leaves the grid {self.grid.size_ijk}; clip it first."
            )
        (i, j, k), (ni, nj, nk) = start_ijk, size_ijk
        return Volume(self.array_kji[k : k + nk, j : j + nj, i : i + ni], self.grid.cropped(start_ijk, size_ijk))
