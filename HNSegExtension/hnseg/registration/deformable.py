"""Jaw and neck after the rigid pose: a B-spline that climbs mutual information, while the skull stays where it is.

Mutual information alone would also bend the head: bone and the fluid beside it are both dark in T1, and a free
deformation makes use of that. The skull is rigid, so it is held at the rigid pose, which is exact there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import sparse
from scipy.optimize import minimize

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.registration.bending import Array, ControlLattice
from hnseg.registration.bent import Bent
from hnseg.registration.images import Prepared, prepare_ct, prepare_mr
from hnseg.registration.information import Information, Samples
from hnseg.registration.inside import lies_in, shown_by_both
from hnseg.registration.poses import Pose, from_transform, moved
from hnseg.registration.quality import judge, with_bending
from hnseg.registration.rigid import WORKING_MM, Registration, register_rigid
from hnseg.registration.skull import skull

OnProgress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BendingLevel:
    """One step of the pyramid: control points and images, mm."""

    control_mm: float
    spacing_mm: float
    sigma_mm: float
    samples: int = 40_000
    iterations: int = 40


LEVELS = (
    BendingLevel(control_mm=48.0, spacing_mm=4.0, sigma_mm=2.0),
    # Coarser or smoother than this, thick MR slices and thin cortical bone mix, and the maximum is no longer the truth.
    BendingLevel(control_mm=32.0, spacing_mm=2.0, sigma_mm=0.5, samples=150_000),
)
STIFFNESS = 500.0
"""Nats per mm⁻² of mean squared second derivative."""
FIRST_ORDER = 1e-3
HOLD = 0.3
"""Nats for a skull that is 1 mm off throughout; jaw and neck gain some hundredths."""
REST = 0.003
"""Nats per mm² of squared displacement, where as much is out of the MR's sight as it shows."""
SMALLEST_JACOBIAN = 0.1
_STIFFER = 3.0
LEAST_GAIN = 0.005
"""Relative gain of information for which the bending is kept. One that brings the organs nearer gains 1 to 5 %."""
UNSURE_MM = 0.7
"""Displacements of this length are halved: so far, blurred borders alone move glands and lips. Longer ones stay."""
_BINS = 32
_SKULL_MM = 4.0
_HELD_EVERY = 40


@dataclass(frozen=True, slots=True)
class Bending:
    """What the deformable step did. ``gain``: of mutual information, relative, on voxels that were not used to find it.
    ``largest_mm`` and ``smallest_jacobian`` of the whole field. Where ``used`` is False the transform is the rigid
    pose, and ``reason`` says why.
    """

    used: bool
    reason: str
    gain: float = 0.0
    largest_mm: float = 0.0
    smallest_jacobian: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class DeformableRegistration(Registration):
    """A registration whose transform bends where ``bending.used``: the B-spline first, then the rigid pose.

    The metrics are those of ``rigid``, the pose that it starts from, with the bending's beside them; verdict and reason
    follow from both.
    """

    rigid: sitk.Transform
    bending: Bending


def register_deformable(
    ct: Volume, mr: Volume, *, rigid: Registration | None = None, on_progress: OnProgress | None = None
) -> DeformableRegistration:
    """The MR in the CT with jaw and neck where the CT has them: ``transform`` maps CT points to MR points, LPS mm.

    ``rigid``: the pose to start from; found here if not given. Where it has failed, or bending does not make the two
    tell more about each other, the transform stays rigid; it never folds. ``ct`` in HU. Raises ``UnsupportedImage`` as
    ``register_rigid`` does.
    """
    started = time.perf_counter()
    tell = on_progress or (lambda fraction, text: None)
    before = 0.0 if rigid is None else rigid.seconds
    if rigid is None:
        rigid = register_rigid(ct, mr, on_progress=lambda f, text: tell(0.6 * f, text))
    found, bending = rigid, Bending(False, "The rigid pose failed its check.")
    if rigid.verdict != "failed":
        tell(0.6, "Preparing to bend jaw and neck")
        images, pose = (prepare_ct(ct, WORKING_MM), prepare_mr(mr, WORKING_MM)), from_transform(rigid.transform)
        spline, bending = bend(*images, pose, lambda f, text: tell(0.6 + 0.4 * f, text))
        if bending.used:
            whole = sitk.CompositeTransform([rigid.transform, spline])
            quality = with_bending(rigid.metrics, Bent.of(whole, *images, pose))
            verdict, reason = judge(quality)
            if verdict == "failed":
                bending = replace(bending, used=False, reason=reason)
            else:
                found = replace(rigid, transform=whole, verdict=verdict, reason=reason, metrics=quality)
    tell(1.0, bending.reason)
    seconds = before + time.perf_counter() - started
    return DeformableRegistration(
        found.transform, found.verdict, found.reason, found.metrics, seconds, rigid.transform, bending
    )


def bend(ct: Prepared, mr: Prepared, ct_to_mr: Pose, tell: OnProgress) -> tuple[sitk.Transform, Bending]:
    """The B-spline that goes before the pose, and what to think of it; the images at about 2 mm."""
    held = _held(ct.coarser(_SKULL_MM))
    steps = [_Step.of(ct, mr, ct_to_mr, held, level) for level in LEVELS]
    lattice, coefficients, jacobian = _climb_all(steps, ct.grid, tell)
    gain = steps[-1].gain(lattice, coefficients)
    largest = float(np.linalg.norm(lattice.displacement(coefficients, lattice.nodes()), axis=1).max())
    reason = f"Bending raises the mutual information by {gain:.1%}."
    return lattice.to_transform(coefficients), Bending(gain >= LEAST_GAIN, reason, gain, largest, jacobian)


def _climb_all(steps: list[_Step], grid: Grid, tell: OnProgress) -> tuple[ControlLattice, Array, float]:
    """Coarse to fine, and all again with more stiffness for as long as the field comes near to folding."""
    stiffness = STIFFNESS
    while True:
        lattice = ControlLattice.over(grid, steps[0].level.control_mm)
        found = np.zeros((lattice.points, 3))
        for n, step in enumerate(steps):
            finer = ControlLattice.over(grid, step.level.control_mm)
            found, lattice = finer.fitted(lattice.displacement(found, finer.nodes())), finer
            found = step.climb(lattice, found, stiffness, _part(tell, n / len(steps), (n + 1) / len(steps)))
        found = _damped(lattice, found)
        jacobian = lattice.smallest_jacobian(found)
        if jacobian >= SMALLEST_JACOBIAN:
            return lattice, found, jacobian
        stiffness *= _STIFFER


def _damped(lattice: ControlLattice, coefficients: Array) -> Array:
    """Coefficients whose displacements at the nodes are times l² / (l² + ``UNSURE_MM``²), where l was their length."""
    displacement = lattice.displacement(coefficients, lattice.nodes())
    squared = np.sum(displacement**2, axis=1, keepdims=True)
    return lattice.fitted(displacement * squared / (squared + UNSURE_MM**2))


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """One level's images: the CT's voxels of the body as samples (every other kept for the proof), the MR whole."""

    level: BendingLevel
    information: Information
    proof: Information
    pose: Pose
    compared_ml: float
    held: Array

    @classmethod
    def of(cls, ct: Prepared, mr: Prepared, ct_to_mr: Pose, held: Array, level: BendingLevel) -> _Step:
        fixed, moving = ct.coarser(level.spacing_mm), mr.coarser(level.spacing_mm)
        compared = replace(fixed, valid=shown_by_both(fixed, moving, ct_to_mr))
        information = Information.of(moving, compared, bins=_BINS, samples=2 * level.samples, sigma_mm=level.sigma_mm)
        points, bins = information.samples.points, information.samples.bins
        used, proof = (replace(information, samples=Samples(points[n::2], bins[n::2])) for n in (0, 1))
        volume_ml = float(compared.valid.array_kji.sum()) * fixed.grid.voxel_ml
        return cls(level, used, proof, ct_to_mr, volume_ml, held)

    def climb(self, lattice: ControlLattice, start: Array, stiffness: float, tell: OnProgress) -> Array:
        """L-BFGS over the coefficients."""
        points = self.information.samples.points.astype(np.float64)
        weights = lattice.weights(points)
        transposed = sparse.csr_array(weights.T)
        resistance = self._resistance(lattice, stiffness)
        done = iter(range(100 * self.level.iterations))

        def loss(flat: Array) -> tuple[float, Array]:
            tell(min(1.0, next(done) / self.level.iterations), "Bending jaw and neck")
            c = flat.reshape(-1, 3)
            value, slope, seen = self.information.at_places(moved(points + weights @ c, self.pose))
            pull = np.zeros_like(points)
            pull[seen] = slope @ self.pose[:3, :3]
            against = resistance @ c
            return float(np.vdot(c, against)) - value, (2 * against - transposed @ pull).ravel()

        options: dict[str, Any] = {"maxiter": self.level.iterations, "ftol": 1e-5, "gtol": 1e-9}
        answer = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)  # type: ignore[call-overload]
        return np.asarray(answer.x.reshape(-1, 3))

    def gain(self, lattice: ControlLattice, coefficients: Array) -> float:
        """Relative, on the samples that were kept for the proof."""
        points = self.proof.samples.points.astype(np.float64)
        bent = points + lattice.displacement(coefficients, points)
        before, after = (self.proof.at_places(moved(places, self.pose))[0] for places in (points, bent))
        return after / max(before, 1e-9) - 1

    def _resistance(self, lattice: ControlLattice, stiffness: float) -> sparse.csr_array:
        """Bending energy and rest where the MR shows nothing, by the volume that is compared; the hold on the skull."""
        shown = Volume(self.information.valid, self.information.grid)
        unseen = ~lies_in(shown, moved(lattice.nodes(), self.pose))[1]
        bending = lattice.stiffness(FIRST_ORDER) * (stiffness * lattice.volume_ml / self.compared_ml)
        rest = sparse.diags_array(unseen * (REST * lattice.spacing_mm**3 / 1000 / self.compared_ml))
        there = lattice.weights(self.held)
        return sparse.csr_array(bending + rest + there.T @ there * (HOLD / max(1, len(self.held))))


def _part(tell: OnProgress, start: float, stop: float) -> OnProgress:
    return lambda fraction, text: tell(start + (stop - start) * fraction, text)


def _held(ct: Prepared) -> Array:
    """Some places of the skull and what it holds, (N, 3) LPS mm."""
    return ct.grid.to_lps(np.argwhere(skull(ct))[::_HELD_EVERY, ::-1])
