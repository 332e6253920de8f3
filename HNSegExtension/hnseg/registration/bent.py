"""What a transform does to the CT's body beyond a rotation and a shift."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from hnseg.image.grid import Grid
from hnseg.registration.images import Prepared
from hnseg.registration.information import Information, Samples
from hnseg.registration.inside import shown_by_both
from hnseg.registration.poses import Pose, moved, nearest_pose
from hnseg.registration.skull import skull

SPACING_MM = 4.0
"""At which fields are looked at: an eighth of what lies between our control points."""
MOVED_MM = 1.0
"""What goes beyond the pose by less is not asked whether it fits better for it."""
_FEWEST_MOVED = 500
_BINS, _SAMPLES, _SIGMA_MM = 32, 60_000, 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Bent:
    """``pose``: the rigid part, which the skull follows. ``largest_mm``: the farthest that a place of the body ends
    from where the pose would have put it. ``smallest_jacobian``: least determinant over the body, 1 where nothing is
    squeezed, below 0 where the transform folds or mirrors. ``gain``: of the information that CT and MR have of each
    other where it goes ``MOVED_MM`` beyond the pose, relative to the pose's; 0 where that is next to nowhere.
    """

    pose: Pose
    largest_mm: float
    smallest_jacobian: float
    gain: float

    @classmethod
    def of(cls, transform: sitk.Transform, ct: Prepared, mr: Prepared, pose: Pose | None = None) -> Bent:
        """Of any transform, CT points → MR points; images at about 2 mm. Without a ``pose``, the one nearest to it over
        skull and brain, or over the body where the CT shows no brain.
        """
        coarse = ct.coarser(SPACING_MM)
        body = _body(coarse)
        places, reached = _places(coarse.grid), _reached(transform, coarse.grid)
        if pose is None:
            stiff = skull(coarse)
            stiff = stiff if stiff.any() else body
            pose = nearest_pose(places[stiff], reached[stiff])
        off = np.linalg.norm(reached[body] - moved(places[body], pose), axis=1)
        largest, jacobian = float(off.max()), float(_jacobian(reached, coarse.grid)[body].min())
        return cls(pose, largest, jacobian, _gain(transform, ct, mr, pose) if largest >= MOVED_MM else 0.0)


def _gain(transform: sitk.Transform, ct: Prepared, mr: Prepared, pose: Pose) -> float:
    compared = replace(ct, valid=shown_by_both(ct, mr, pose))
    information = Information.of(mr, compared, bins=_BINS, samples=_SAMPLES, sigma_mm=_SIGMA_MM)
    points = information.samples.points.astype(np.float64)
    rigid = moved(points, pose)
    bent = np.array([transform.TransformPoint(point) for point in points.tolist()]).reshape(-1, 3)
    far = np.linalg.norm(bent - rigid, axis=1) >= MOVED_MM
    if far.sum() < _FEWEST_MOVED:
        return 0.0
    part = replace(information, samples=Samples(points[far].astype(np.float32), information.samples.bins[far]))
    before, after = (part.at_places(places[far])[0] for places in (rigid, bent))
    return after / max(before, 1e-9) - 1


def _body(ct: Prepared) -> NDArray[np.bool_]:
    """Where the CT shows more than air; all of it where there is nothing else."""
    body = ct.values.array_kji > ct.air_below
    return body if body.any() else np.ones_like(body)


def _places(grid: Grid) -> NDArray[np.float64]:
    """(K, J, I, 3) LPS mm."""
    k, j, i = np.indices(grid.shape_kji)
    return grid.to_lps(np.stack([i, j, k], axis=-1))


def _reached(transform: sitk.Transform, grid: Grid) -> NDArray[np.float64]:
    """(K, J, I, 3) LPS mm: the voxel centres under the transform."""
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, grid.size_ijk, grid.origin_lps, grid.spacing_mm, grid.direction
    )
    return np.asarray(_places(grid) + sitk.GetArrayViewFromImage(field))


def _jacobian(reached: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """(K, J, I): determinant of the map's slopes, by differences between neighbouring voxels."""
    padded = np.pad(reached, [(0, int(n == 1)) for n in grid.shape_kji] + [(0, 0)], mode="edge")
    slopes = np.moveaxis(np.asarray(np.gradient(padded, axis=(2, 1, 0))), 0, -1)
    inner = slopes[tuple(slice(n) for n in grid.shape_kji)]
    return np.asarray(np.linalg.det(inner) / np.linalg.det(grid.ijk_to_lps[:3, :3]))
