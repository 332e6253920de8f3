"""What regions share: the patient's own factors, offsets and noise, and shapes by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from hnseg.organs import BY_NAME
from hnseg.phantom.patient import Patient
from hnseg.phantom.pose import ToCanonical
from hnseg.phantom.shapes import Array, Waves
from hnseg.phantom.structure import Shape, Structure, View, solid

Triple = tuple[float, float, float]

SIDES = (("L", 1.0), ("R", -1.0))
CORD = np.array([(0, 14, -28), (0, 20, -60), (0, 20, -100), (0, 28, -150), (0, 40, -185), (0, 48, -215), (0, 58, -260)])

NOMINAL_ML = {
    "A_Carotid_L": 5.82, "A_Carotid_R": 5.86, "Arytenoid": 0.563, "Bone_Mandible": 79.5, "Brainstem": 29.0,
    "BuccalMucosa": 18.0, "Cavity_Oral": 120.0, "Cochlea_L": 0.16, "Cochlea_R": 0.165, "Cricopharyngeus": 3.85,
    "Esophagus_S": 3.63, "Eye_AL": 0.93, "Eye_AR": 0.93, "Eye_PL": 6.66, "Eye_PR": 6.66, "Glnd_Lacrimal_L": 0.841,
    "Glnd_Lacrimal_R": 0.821, "Glnd_Submand_L": 9.46, "Glnd_Submand_R": 9.5, "Glnd_Thyroid": 17.0, "Glottis": 4.04,
    "Larynx_SG": 20.5, "Lips": 29.8, "OpticChiasm": 0.633, "OpticNrv_L": 0.63, "OpticNrv_R": 0.634, "Parotid_L": 32.4,
    "Parotid_R": 32.1, "Pituitary": 0.45, "SpinalCord": 11.5,
}  # fmt: skip
"""Volume in mL of each organ's label in the average patient at factor 1 (measured)."""

_PLACES = {
    "A_Carotid_L": ((18, 10, -180), (25, 0, -120), (28, -2, -60), (28, -2, -15)), "Arytenoid": ((0, -8, -122),),
    "Bone_Mandible": ((49, -20, -25), (-49, -20, -25), (38, -48, -68), (-38, -48, -68), (0, -82, -82)),
    "Brainstem": ((0, 5, 9),), "BuccalMucosa": ((36, -60, -50), (-36, -60, -50)), "Cavity_Oral": ((0, -51, -52),),
    "Cochlea_L": ((23, -6, 5),), "Cricopharyngeus": ((0, -2, -140),), "Esophagus_S": ((1, 4, -158),),
    "Eye_AL": ((32, -80, 18),), "Eye_PL": ((32, -70, 18),), "Glnd_Lacrimal_L": ((43, -66, 28),),
    "Glnd_Submand_L": ((31, -32, -70),), "Glnd_Thyroid": ((20, -15, -148), (-20, -15, -148), (0, -33, -157)),
    "Glottis": ((0, -20, -127),), "Larynx_SG": ((0, -20, -106),), "Lips": ((0, -91, -52),),
    "OpticChiasm": ((0, -22, 36),), "OpticNrv_L": ((20, -42, 24),), "Parotid_L": ((57, 2, -23),),
    "Pituitary": ((0, -20, 26),), "SpinalCord": ((0, 14, -28), (0, 20, -80), (0, 26, -135), (0, 40, -185)),
}  # fmt: skip
"""Where the average patient's organs lie: points spread over each; of a pair, those of the left one."""

# Organs that are scaled across only, not along: their volume goes with the square of the factor.
_SCALED_ACROSS = (
    "A_Carotid_L", "A_Carotid_R", "Bone_Mandible", "BuccalMucosa", "Esophagus_S", "Eye_AL", "Eye_AR",
    "OpticNrv_L", "OpticNrv_R", "SpinalCord",
)  # fmt: skip


@dataclass(frozen=True)
class Builder:
    """Gives shapes what is this patient's own: scale, place and roughness."""

    patient: Patient

    def factor(self, organ: str) -> float:
        """Linear scale of the organ that gives its target volume, with what the pose does to volumes at its place."""
        ratio = self.patient.target_ml[organ] / NOMINAL_ML[organ] / volume_scale(self.patient, places_of(organ))
        return float(np.clip(ratio ** (1 / 2 if organ in _SCALED_ACROSS else 1 / 3), 0.5, 1.7))

    def offset(self, organ: str) -> NDArray[np.float64]:
        """Where this patient's organ lies against the average, mm."""
        return np.asarray(self.patient.offset_mm[organ])

    def waves(self, key: str, wavelength_mm: float, count: int = 6, stretch: Triple = (1, 1, 1)) -> Waves:
        """Noise that belongs to ``key``: the same for the same patient and key."""
        return Waves.draw(self.patient.rng(2, *key.encode()), wavelength_mm, count, stretch)

    def rough(self, shape: Shape, key: str, amplitude_mm: float, wavelength_mm: float) -> Shape:
        """The shape with an outline of this patient's own."""
        amount = amplitude_mm * (0.4 + 0.6 * self.patient.options.variation)
        return shape.rough(self.waves(key, wavelength_mm), amount)

    def place(self, shape: Shape, organ: str) -> Shape:
        """Scaled to the organ's volume and moved to the patient's place for it."""
        return shape.scaled(self.factor(organ)).moved(self.offset(organ))


@dataclass(frozen=True)
class Plan(Builder):
    """A builder that knows the two surfaces that all regions keep to: the skin and the inside of the skull."""

    body: Shape
    cavity: Shape


def places_of(organ: str) -> NDArray[np.float64]:
    """Points (N, 3) in the average patient's organ, canonical mm."""
    partner = BY_NAME[organ].partner
    if organ in _PLACES or partner is None:
        return np.array(_PLACES[organ], dtype=np.float64)
    return mirror(_PLACES[partner], -1)


def volume_scale(patient: Patient, points_canonical: NDArray[np.float64]) -> float:
    """How much larger the CT's tissue is than the canonical patient's, by volume, on the mean of points (N, 3)."""
    frame, step_mm = ToCanonical(patient), 2.0
    at = frame.back(points_canonical)
    ahead, behind = (frame((at[:, None] + sign * step_mm * np.eye(3)).reshape(-1, 3)) for sign in (1, -1))
    shrinking = np.linalg.det(((ahead - behind) / (2 * step_mm)).reshape(-1, 3, 3))
    return float(np.mean(1 / shrinking))


def half_space(normal: tuple[float, float, float], through: tuple[float, float, float]) -> Shape:
    """Everything on the far side of a plane from its outward ``normal``."""
    n = np.asarray(normal) / np.linalg.norm(normal)
    reach = float(n @ np.asarray(through))
    a, c, d = (np.float32(v) for v in n)
    everywhere = np.full(3, 999.0)
    return Shape(lambda p: a * p[0] + c * p[1] + d * p[2] - np.float32(reach), -everywhere, everywhere)


def slab(low: float, high: float) -> Shape:
    """Everything between two heights."""
    return Shape(
        lambda p: np.maximum(np.float32(low) - p[2], p[2] - np.float32(high)),
        np.array([-400.0, -400, low]),
        np.array([400.0, 400, high]),
    )


def tilt(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> NDArray[np.float64]:
    """Rotation by degrees about x, then y, then z."""
    return np.asarray(Rotation.from_euler("xyz", (x, y, z), degrees=True).as_matrix())


def mirror(path: ArrayLike, sign: float) -> NDArray[np.float64]:
    """A path (N, 3) drawn for the left (+1), for the side of that sign."""
    return np.asarray(np.asarray(path, dtype=np.float64) * np.array((sign, 1.0, 1.0)))


def shifted(point: ArrayLike, x: float, y: float, z: float) -> NDArray[np.float64]:
    """A point moved by x, y, z mm."""
    return np.asarray(np.asarray(point, dtype=np.float64) + np.array((x, y, z)))


def cord_at(z: float) -> NDArray[np.float64]:
    """The point of the spinal cord's axis at that height."""
    order = np.argsort(CORD[:, 2])
    return np.array([0.0, np.interp(z, CORD[order, 2], CORD[order, 1]), z])


def speckle(shape: Shape, waves: Waves, level: float, size_mm: float) -> Callable[[View], Array]:
    """Cells: where the noise exceeds ``level``, inside the shape."""
    return lambda view: np.maximum(
        shape.sdf(view.points), (np.float32(level) - waves(view.points)) * np.float32(size_mm)
    )


def muscle(b: Plan, name: str, shape: Shape) -> Structure:
    """A muscle in its thin coat of fat."""
    shape = b.rough(shape, name, 1.5, 20).grown((b.patient.muscle - 1) * 6).coarse(2.6)
    return under_skin(b, name, ((-0.9, "fascia"), (0.0, "muscle")), shape, 4.5)


def under_skin(b: Plan, name: str, layers: tuple[tuple[float, str], ...], shape: Shape, depth_mm: float) -> Structure:
    """A structure that keeps at least ``depth_mm`` away from the skin, and out of the skull."""
    return solid(name, layers, shape, under=(b.body, depth_mm), outside=(b.cavity, 5.0))
