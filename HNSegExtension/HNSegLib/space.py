"""RAS ↔ LPS. Slicer's scene is RAS, the engine is LPS; this is the one file that flips."""

from __future__ import annotations

import numpy as np
import vtk
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]

_FLIP = np.diag((-1.0, -1.0, 1.0, 1.0))


def flipped_rows(ijk_to_either: ArrayLike) -> Matrix:
    """IJK→RAS from IJK→LPS and back, 4×4: the target space changes, the voxels stay."""
    return np.asarray(_FLIP @ np.asarray(ijk_to_either, dtype=np.float64))


def conjugated(between_points: ArrayLike) -> Matrix:
    """A 4×4 that maps RAS points to RAS points, from the one that maps LPS points to LPS points, and back."""
    return np.asarray(_FLIP @ np.asarray(between_points, dtype=np.float64) @ _FLIP)


def flipped_points(points: ArrayLike) -> Matrix:
    """Points (…, 3) or directions in RAS from LPS, and back."""
    return np.asarray(np.asarray(points, dtype=np.float64) * (-1.0, -1.0, 1.0))


def from_vtk(matrix: vtk.vtkMatrix4x4) -> Matrix:
    """A VTK matrix as an array, 4×4."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def to_vtk(matrix: ArrayLike) -> vtk.vtkMatrix4x4:
    """An array, 4×4, as a VTK matrix."""
    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, dtype=np.float64).ravel().tolist())
    return result
