"""The surface of a mask as weighted points, and the distances between two of them.

The definition is that of Nikolov et al. 2018 (arXiv:1809.04430, DeepMind's ``surface-distance``): a surface element
sits at every corner where eight voxels meet and are not all alike, and weighs as much as the marching-cubes surface
(Lorensen and Cline 1987) inside that cell has area. Distances run from element to nearest element, so that a
percentile or a mean is one over mm² of surface, not over voxels, and anisotropic spacing does not tilt it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]

_CORNERS = tuple((k, j, i) for k in (0, 1) for j in (0, 1) for i in (0, 1))


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceDistances:
    """Distances (mm) from each element of one surface to the other surface, and the elements' areas (mm²).

    A mask without a voxel has no elements; the other one's distances are then infinite.
    """

    from_reference_mm: Array
    from_prediction_mm: Array
    reference_areas_mm2: Array
    prediction_areas_mm2: Array


def surface_distances(
    prediction_kji: Mask, reference_kji: Mask, spacing_mm: tuple[float, float, float]
) -> SurfaceDistances:
    """Distances between the surfaces of two masks on one grid.

    ``spacing_mm`` belongs to the i, j and k axes, as in ``Grid.spacing_mm``. Distances do not depend on where the grid
    lies or how it is turned, so that an oblique grid needs nothing more. A mask that touches the border is closed
    there.
    """
    spacing_kji = spacing_mm[::-1]
    reference, reference_areas = _elements(reference_kji, spacing_kji)
    prediction, prediction_areas = _elements(prediction_kji, spacing_kji)
    return SurfaceDistances(
        from_reference_mm=_nearest(reference, prediction, spacing_kji),
        from_prediction_mm=_nearest(prediction, reference, spacing_kji),
        reference_areas_mm2=reference_areas,
        prediction_areas_mm2=prediction_areas,
    )


def _elements(mask_kji: Mask, spacing_kji: tuple[float, ...]) -> tuple[NDArray[np.intp], Array]:
    """Corner indices (n, 3), kji, of the surface's elements, and their areas."""
    codes = _neighbour_codes(mask_kji)
    corners = np.argwhere((codes != 0) & (codes != 255))
    return corners, element_areas(spacing_kji)[codes[tuple(corners.T)]]


def _neighbour_codes(mask_kji: Mask) -> NDArray[np.uint8]:
    """For each corner of the lattice, one bit per adjoining voxel; one longer than the mask along each axis."""
    padded = np.pad(mask_kji.view(np.uint8), 1)
    shape = tuple(n + 1 for n in mask_kji.shape)
    codes = np.zeros(shape, np.uint8)
    for bit, start in enumerate(_CORNERS):
        box = tuple(slice(first, first + n) for first, n in zip(start, shape, strict=True))
        codes |= padded[box] << np.uint8(bit)
    return codes


def _nearest(points: NDArray[np.intp], others: NDArray[np.intp], spacing_kji: tuple[float, ...]) -> Array:
    """Distance (mm) from each point to the nearest of the others; inf where there are none."""
    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    # Sliding-midpoint trees without compaction build several times faster and answer as fast for surfaces.
    tree = cKDTree(others * np.asarray(spacing_kji), balanced_tree=False, compact_nodes=False)
    distances: Array = np.zeros(len(points))
    apart = ~_is_in(points, others)  # a good prediction's surface coincides in many places: nothing to search there
    _, nearest = tree.query(points[apart] * np.asarray(spacing_kji), workers=-1)
    # From whole index steps, so that a distance of exactly the tolerance is not lost to rounding.
    distances[apart] = np.linalg.norm((points[apart] - others[nearest]) * np.asarray(spacing_kji), axis=1)
    return distances


def _is_in(points: NDArray[np.intp], others: NDArray[np.intp]) -> Mask:
    extent = np.maximum(points.max(axis=0), others.max(axis=0)) + 1
    taken = np.zeros(extent, np.bool_)
    taken[tuple(others.T)] = True
    return np.asarray(taken[tuple(points.T)])


@lru_cache(maxsize=16)
def element_areas(spacing_kji: tuple[float, ...]) -> Array:
    """Area (mm²) of the marching-cubes surface for each of the 256 neighbour codes.

    A code with more than four voxels inside has the area of its complement: a surface is the same from either side.
    """
    triangles, codes = _triangles()
    corners = triangles * np.asarray(spacing_kji)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.zeros(256)
    np.add.at(areas, codes, 0.5 * np.linalg.norm(normals, axis=1))
    areas.setflags(write=False)
    return areas


@lru_cache(maxsize=1)
def _triangles() -> tuple[Array, NDArray[np.intp]]:
    """All triangles (n, 3 vertices, kji) in a unit cell, and the neighbour code of each."""
    from skimage.measure import marching_cubes  # slow to import, and only surfaces need it

    triangles: list[NDArray[Any]] = []
    codes: list[int] = []
    for code in range(1, 255):
        outside = code if code.bit_count() <= 4 else 255 - code
        cell = ((outside >> np.arange(8)) & 1).reshape(2, 2, 2)
        vertices, faces, _, _ = marching_cubes(cell.astype(np.float64), 0.5, method="lorensen", allow_degenerate=True)
        triangles.append(vertices[faces])
        codes += [code] * len(faces)
    return np.concatenate(triangles).astype(np.float64), np.asarray(codes)
