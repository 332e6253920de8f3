"""From a rough pose to an exact one: ascent of mutual information, coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from hnseg.registration.images import Prepared
from hnseg.registration.information import Information
from hnseg.registration.poses import Pose, inverse, pose

_ARM_MM = 80.0
"""A head's radius: turns the rotation into mm at the skin, so that all six unknowns have one scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One step of the pyramid. ``samples`` bounds the number of MR voxels that are compared."""

    spacing_mm: float
    sigma_mm: float = 0.0
    iterations: int = 40
    tolerance: float = 1e-5
    samples: int = 60_000
    bins: int = 20


@dataclass(frozen=True, slots=True, eq=False)
class Ascent:
    """CT and MR made ready at one level: many poses may climb without preparing the images again."""

    information: Information
    centre: NDArray[np.float64]
    level: Level

    @classmethod
    def of(cls, ct: Prepared, mr: Prepared, level: Level) -> Ascent:
        """The MR gives the samples, as it is the smaller: nearly all of them stay inside the CT whatever the pose."""
        ct, mr = ct.coarser(level.spacing_mm), mr.coarser(level.spacing_mm)
        information = Information.of(ct, mr, bins=level.bins, samples=level.samples, sigma_mm=level.sigma_mm)
        return cls(information, information.samples.points.mean(axis=0, dtype=np.float64), level)

    def climb(self, ct_to_mr: Pose) -> tuple[Pose, float]:
        """The best pose near ``ct_to_mr`` and its mutual information in nats per MR sample: BFGS over a rotation vector
        about the samples' centre and a shift, both in mm.
        """
        start = inverse(ct_to_mr)

        def loss(unknowns: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            step = _step(unknowns, self.centre)
            value, slope = self.information.with_gradient(start, step, self.centre)
            turning = _left_jacobian(unknowns[:3] / _ARM_MM).T @ slope[:3] / _ARM_MM
            return -value, -np.concatenate([turning, slope[3:]])

        options: dict[str, Any] = {"maxiter": self.level.iterations, "ftol": self.level.tolerance, "gtol": 1e-7}
        result = minimize(loss, np.zeros(6), jac=True, method="L-BFGS-B", options=options)  # type: ignore[call-overload]
        return inverse(start @ _step(result.x, self.centre)), -float(result.fun)


def refine(ct: Prepared, mr: Prepared, ct_to_mr: Pose, level: Level) -> tuple[Pose, float]:
    """One pose's ascent: the best pose near ``ct_to_mr`` and its mutual information in nats per MR sample."""
    return Ascent.of(ct, mr, level).climb(ct_to_mr)


def _step(unknowns: NDArray[np.float64], centre: NDArray[np.float64]) -> Pose:
    return pose(Rotation.from_rotvec(unknowns[:3] / _ARM_MM).as_matrix(), unknowns[3:], centre)


def _left_jacobian(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """How a change of the rotation vector turns the body: exp(r + dr) ≈ exp(J dr) exp(r)."""
    angle = float(np.linalg.norm(r))
    cross = np.array([[0, -r[2], r[1]], [r[2], 0, -r[0]], [-r[1], r[0], 0]])
    if angle < 1e-6:
        return np.eye(3) + cross / 2
    return np.asarray(
        np.eye(3) + (1 - np.cos(angle)) / angle**2 * cross + (angle - np.sin(angle)) / angle**3 * cross @ cross
    )
