"""Where a point of the CT lies in the canonical patient, and where it lies in the MR."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, map_coordinates
from scipy.spatial.transform import Rotation

from hnseg.phantom.patient import Patient, Pose
from hnseg.phantom.shapes import Points, Waves, step

Coordinates = NDArray[np.float64]
"""(N, 3) LPS mm."""

_CONDYLE = (0.0, -8.0, -1.0)
_HEAD_CENTRE = np.array([0.0, 0.0, 0.0])
# Control points of the truth's B-spline: 10 mm apart, well beyond every CT (its displacement is cut off outside).
_CONTROL_MM = 10.0
_CONTROL_LOW = np.array([-330.0, -230.0, -330.0])
_CONTROL_SIZE = (67, 48, 56)


def jaw_weight(points: Points) -> NDArray[np.float32]:
    """1 where the mandible carries the tissue with it, 0 above the occlusal plane, at spine, vessels and larynx.

    At the sides it reaches back to the ramus; in the middle it fades out gently behind the tongue, lest the throat be
    squeezed.
    """
    x, y, z = points
    hinge_plane = 0.55 * (y + 8)
    below = step(hinge_plane - z, -5.0, 11.0)
    middle = step(np.abs(x), 42.0, 30.0)
    behind = y - (14.0 - 22.0 * middle)
    front = step(behind / (16.0 + 12.0 * middle), 0.0, -1.0)
    return below * front * step(z, -135.0, -102.0) * step(np.abs(x), 95.0, 75.0)


def jaw_displacement(points: Points, degrees: float) -> Coordinates:
    """Displacement (N, 3) that opens the jaw by ``degrees`` about the condyles."""
    x, y, z = points
    angle, w = np.deg2rad(degrees), jaw_weight(points)
    cos, sin = np.cos(angle), np.sin(angle)
    dy, dz = y - _CONDYLE[1], z - _CONDYLE[2]
    return np.stack([0 * x, w * ((cos - 1) * dy - sin * dz), w * (sin * dy + (cos - 1) * dz)], axis=-1)


def neck_displacement(points: Points, degrees: tuple[float, float]) -> Coordinates:
    """Displacement (N, 3) that bends everything below the skull base: flexion (forward) and lateral, in degrees."""
    drop = np.maximum(-30.0 - points[2], 0.0)
    bend = np.where(drop < 60, drop**2 / 120.0, drop - 30.0)
    flexion, lateral = (np.tan(np.deg2rad(d)) for d in degrees)
    return np.stack([lateral * bend, flexion * bend, 0.0 * bend], axis=-1)


@dataclass(frozen=True)
class ToCanonical:
    """CT points → canonical points: scale, rotation and shift, then neck and jaw, then low-frequency displacement."""

    patient: Patient

    def __call__(self, points_lps: Coordinates) -> Coordinates:
        """(N, 3) LPS mm of the CT's world to the canonical frame."""
        pose = self.patient.pose
        moved = (points_lps - pose.shift_mm) @ rotation_matrix(pose) / pose.scale
        split = _split(moved)
        moved = moved - neck_displacement(split, pose.neck_degrees)
        moved = moved - jaw_displacement(_split(moved), pose.jaw_degrees)
        split = _split(moved.astype(np.float32))
        amplitude = 1.1 * self.patient.options.variation
        return np.asarray(moved + amplitude * np.stack([w(split) for w in self._warp], axis=-1))

    @cached_property
    def _warp(self) -> tuple[Waves, ...]:
        rng = self.patient.rng(1)
        return tuple(Waves.draw(rng, 110.0, 4) for _ in range(3))

    def back(self, points_canonical: Coordinates) -> Coordinates:
        """Canonical points → CT points, by fixed-point iteration (0.01 mm)."""
        pose = self.patient.pose
        target = np.atleast_2d(np.asarray(points_canonical, dtype=np.float64))
        linear: Coordinates = rotation_matrix(pose) * np.asarray(pose.scale)
        guess = target @ linear.T + pose.shift_mm
        for _ in range(30):
            error = target - self(guess)
            guess = guess + error @ linear.T
            if np.abs(error).max() < 0.01:
                break
        return guess


@dataclass(frozen=True)
class CtToMr:
    """CT points → MR points: jaw and neck as a cubic B-spline, then a rigid motion; and back again."""

    patient: Patient

    @cached_property
    def rigid(self) -> sitk.Euler3DTransform:
        """The rigid part, about the canonical origin."""
        pose = self.patient.mr_pose
        rigid = sitk.Euler3DTransform()
        rigid.SetMatrix(rotation_matrix(pose).ravel().tolist())
        rigid.SetTranslation([float(t) for t in pose.shift_mm])
        return rigid

    @cached_property
    def coefficients(self) -> NDArray[np.float64] | None:
        """B-spline coefficients (3, nk, nj, ni) in mm, rounded to what is written; None where the motion is rigid."""
        pose = self.patient.mr_pose
        if not (pose.jaw_degrees or any(pose.neck_degrees)):
            return None
        axes = [low + _CONTROL_MM * np.arange(n) for low, n in zip(_CONTROL_LOW, _CONTROL_SIZE, strict=True)]
        z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
        nodes = ToCanonical(self.patient)(np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1))
        canonical = _split(nodes)
        moved = jaw_displacement(canonical, pose.jaw_degrees) + neck_displacement(canonical, pose.neck_degrees)
        return np.round(np.moveaxis(moved.reshape(*z.shape, 3), -1, 0), 3)

    @cached_property
    def transform(self) -> sitk.Transform:
        """As SimpleITK: the B-spline, then the rigid motion; the rigid motion alone where nothing bends."""
        if self.coefficients is None:
            return self.rigid
        images = []
        for component in self.coefficients:
            image = sitk.GetImageFromArray(component)
            image.SetOrigin(_CONTROL_LOW.tolist())
            image.SetSpacing([_CONTROL_MM] * 3)
            images.append(image)
        return sitk.CompositeTransform([self.rigid, sitk.BSplineTransform(images, 3)])

    def displacement(self, points_lps: Coordinates) -> Coordinates:
        """The B-spline's displacement at CT points."""
        if self.coefficients is None:
            return np.zeros_like(points_lps)
        return _interpolate(self.coefficients, points_lps, order=3)

    def back(self, points_lps: Coordinates) -> Coordinates:
        """MR points → CT points, by fixed-point iteration (the B-spline is a contraction; stops at 0.01 mm)."""
        pose = self.patient.mr_pose
        target = (points_lps - pose.shift_mm) @ rotation_matrix(pose)
        if self.coefficients is None:
            return target
        guess = target
        for _ in range(4):  # a quick linear estimate first, which the cubic then refines where anything bends
            guess = target - _interpolate(self._at_nodes, guess, order=1)
        bent = np.flatnonzero((guess != target).any(axis=1))
        for _ in range(25):
            update = target[bent] - self.displacement(guess[bent])
            change = np.abs(update - guess[bent]).max(initial=0.0)
            guess[bent] = update
            if change < 0.01:
                break
        return guess

    @cached_property
    def _at_nodes(self) -> NDArray[np.float64]:
        """The B-spline's displacement at its own nodes."""
        assert self.coefficients is not None
        kernel, values = np.array([1, 4, 1]) / 6, self.coefficients
        for axis in (1, 2, 3):
            values = correlate1d(values, kernel, axis=axis, mode="nearest")
        return values


def _interpolate(values: NDArray[np.float64], points_lps: Coordinates, *, order: Literal[1, 3]) -> Coordinates:
    index = ((points_lps - _CONTROL_LOW) / _CONTROL_MM).T[::-1]
    parts = [
        map_coordinates(v, index, order=order, prefilter=False, mode="nearest")
        if v.any()
        else np.zeros(len(points_lps))
        for v in values
    ]
    return np.stack(parts, axis=-1)


@dataclass(frozen=True)
class MrToCanonical:
    """MR points → canonical points, through the true transform."""

    patient: Patient

    def __call__(self, points_lps: Coordinates) -> Coordinates:
        """(N, 3) LPS mm of the MR's world to the canonical frame."""
        return ToCanonical(self.patient)(CtToMr(self.patient).back(points_lps))


def rotation_matrix(pose: Pose) -> NDArray[np.float64]:
    """3×3 that rotates by the pose's angles, about x first."""
    return np.asarray(Rotation.from_euler("xyz", pose.rotation_degrees, degrees=True).as_matrix())


def _split(points: NDArray[np.floating]) -> Points:
    x, y, z = (points[:, n] for n in range(3))
    return x, y, z
