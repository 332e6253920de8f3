"""Rigid poses as 4×4 matrices in LPS mm, and their way to and from SimpleITK."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray

from hnseg.errors import GeometryMismatch

Pose = NDArray[np.float64]
"""4×4; maps homogeneous LPS points. Rotation part orthonormal, determinant +1."""

HALF_TURNS: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("none", (1, 1, 1)),
    ("half turn about the left-right axis", (1, -1, -1)),
    ("half turn about the front-back axis", (-1, 1, -1)),
    ("half turn about the head-foot axis", (-1, -1, 1)),
)
"""The identity and the half turns about x, y, z, each as the diagonal of its rotation matrix."""


def rotation(degrees: Sequence[float]) -> NDArray[np.float64]:
    """3×3 rotation about x, then y, then z by the given angles."""
    ax, ay, az = np.deg2rad(degrees)
    rx = np.array([[1, 0, 0], [0, np.cos(ax), -np.sin(ax)], [0, np.sin(ax), np.cos(ax)]])
    ry = np.array([[np.cos(ay), 0, np.sin(ay)], [0, 1, 0], [-np.sin(ay), 0, np.cos(ay)]])
    rz = np.array([[np.cos(az), -np.sin(az), 0], [np.sin(az), np.cos(az), 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx)


def pose(rotation_3x3: ArrayLike, shift_mm: ArrayLike = (0, 0, 0), centre: ArrayLike = (0, 0, 0)) -> Pose:
    """Rotation about ``centre``, then the shift."""
    r, c = np.asarray(rotation_3x3, dtype=np.float64), np.asarray(centre, dtype=np.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = r
    matrix[:3, 3] = c + np.asarray(shift_mm) - r @ c
    return matrix


def inverse(matrix: Pose) -> Pose:
    """The inverse pose, exactly rigid."""
    return pose(matrix[:3, :3].T, -matrix[:3, :3].T @ matrix[:3, 3])


def moved(points: ArrayLike, matrix: Pose) -> NDArray[np.float64]:
    """Points (…, 3) under the pose."""
    return np.asarray(np.asarray(points) @ matrix[:3, :3].T + matrix[:3, 3])


def degrees_between(a: Pose, b: Pose) -> float:
    """Angle of the rotation that takes one orientation into the other, 0…180."""
    cosine = (np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2
    return float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))


def tilt_degrees(a: Pose) -> float:
    """Angle to the nearest of the identity and the three half turns, 0…90."""
    return min(degrees_between(a, pose(np.diag(signs))) for _, signs in HALF_TURNS)


def nearest_pose(points: ArrayLike, reached: ArrayLike) -> Pose:
    """The pose that brings the points (N, 3) nearest to (N, 3) others, by least squares (Kabsch 1976)."""
    source, target = np.asarray(points, dtype=np.float64), np.asarray(reached, dtype=np.float64)
    middle, there = source.mean(axis=0), target.mean(axis=0)
    turn = _orthonormal((target - there).T @ (source - middle))
    return pose(turn, there - middle, middle)


def mm_between(a: Pose, b: Pose, points: ArrayLike) -> float:
    """Root mean square distance between the images of the points (N, 3) under the two poses."""
    return float(np.sqrt(np.mean(np.sum((moved(points, a) - moved(points, b)) ** 2, axis=-1))))


def to_transform(matrix: Pose, centre: ArrayLike = (0, 0, 0)) -> sitk.Euler3DTransform:
    """A SimpleITK transform that maps points as the pose does."""
    c = np.asarray(centre, dtype=np.float64)
    transform = sitk.Euler3DTransform()
    transform.SetCenter(c.tolist())
    transform.SetMatrix(_orthonormal(matrix[:3, :3]).ravel().tolist(), 1e-6)
    transform.SetTranslation((moved(c, matrix) - c).tolist())
    return transform


def from_transform(transform: sitk.Transform) -> Pose:
    """The 4×4 of a linear SimpleITK transform. Raises ``GeometryMismatch`` when it is not a rotation plus a shift."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([np.array(transform.TransformPoint(tuple(e))) - origin for e in np.eye(3)], axis=1)
    matrix[:3, 3] = origin
    probe = np.array([37.0, -211.0, 143.0])
    straight = np.allclose(transform.TransformPoint(probe.tolist()), moved(probe, matrix), atol=1e-3)
    if not straight or np.abs(matrix[:3, :3] - _orthonormal(matrix[:3, :3])).max() > 1e-3:
        raise GeometryMismatch(
            f"A rigid transform is needed, got {transform.GetName()} with scale, shear or bending; pass a rigid one."
        )
    return matrix


def _orthonormal(rotation_3x3: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nearest proper rotation (Kabsch)."""
    u, _, vt = np.linalg.svd(rotation_3x3)
    return np.asarray(u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt)
