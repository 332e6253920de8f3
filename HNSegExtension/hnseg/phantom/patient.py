"""A patient as numbers: everything that varies between phantoms, drawn once and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hnseg.organs import ORGANS
from hnseg.phantom.options import PhantomOptions
from hnseg.phantom.tissues import TISSUES

Triple = tuple[float, float, float]
_STILL: Triple = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """How the canonical patient lies: rotation (degrees about x, y, z), shift (mm), scale per axis, neck and jaw.

    ``neck_degrees`` bends (flexion, lateral) the neck below the skull base; ``jaw_degrees`` opens the mouth.
    """

    rotation_degrees: Triple = _STILL
    shift_mm: Triple = _STILL
    scale: Triple = (1.0, 1.0, 1.0)
    neck_degrees: tuple[float, float] = (0.0, 0.0)
    jaw_degrees: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Where and how the scanners look, in mm. z and centres are relative to the canonical frame."""

    ct_top: float = 145.0
    ct_bottom: float = -225.0
    ct_centre: tuple[float, float] = (0.0, 20.0)
    ct_noise_hu: float = 14.0
    mr_bottom: float = -80.0
    mr_slice: float = 3.0
    mr_tilt_degrees: Triple = _STILL
    mr_centre: tuple[float, float] = (0.0, -5.0)
    mr_bias: float = 0.25
    mr_noise: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """The parameters of one phantom. ``seed`` fixes the smooth noise of its shapes and textures.

    ``target_ml`` are the volumes that the organs are scaled to; ``offset_mm`` moves single organs; ``hu`` and ``t1``
    are tissue values after this patient's shifts.
    """

    seed: int
    options: PhantomOptions
    target_ml: Mapping[str, float]
    offset_mm: Mapping[str, Triple]
    hu: Mapping[str, float]
    t1: Mapping[str, float]
    pose: Pose = field(default_factory=Pose)
    mr_pose: Pose = field(default_factory=Pose)
    scan: Scan = field(default_factory=Scan)
    fat_mm: float = 6.0
    muscle: float = 1.0
    metal: tuple[Triple, ...] = ()
    mask_shell: bool = False
    calcified: float = 0.5

    def rng(self, *stream: int) -> np.random.Generator:
        """A generator of this patient's own, the same at every call with the same numbers."""
        return np.random.default_rng([self.seed, *stream])


def average_patient() -> Patient:
    """The patient of the anatomy table, lying straight: no variation at all."""
    return Patient(
        seed=0,
        options=PhantomOptions(variation=0, deformation=False, far_origin=False),
        target_ml={organ.name: organ.typical_ml for organ in ORGANS},
        offset_mm={organ.name: _STILL for organ in ORGANS},
        hu={tissue.name: tissue.hu for tissue in TISSUES.values()},
        t1={tissue.name: tissue.t1 for tissue in TISSUES.values()},
    )


def draw_patient(rng: np.random.Generator, options: PhantomOptions | None = None) -> Patient:
    """A patient drawn from the published spreads: organ volume CV 20–35 % within the published range, pose ±3 mm and
    ±5°, scale ±6 %, neck flexion ±10°.
    """
    options = options or PhantomOptions()
    v = options.variation
    hu, t1 = _draw_tissues(rng, options)
    return Patient(
        seed=int(rng.integers(2**31)),
        options=options,
        target_ml=_draw_volumes(rng, v),
        offset_mm={o.name: _triple(np.clip(rng.normal(0, 0.9 * v, 3), -3, 3)) for o in ORGANS},
        hu=hu,
        t1=t1,
        pose=_draw_pose(rng, v),
        mr_pose=_draw_mr_pose(rng, options),
        scan=_draw_scan(rng, options),
        fat_mm=float(rng.uniform(6 - 3 * min(v, 1), 6 + 6 * v)) if v else 6.0,
        muscle=float(np.clip(rng.normal(1, 0.12 * v), 0.7, 1.35)),
        metal=_draw_metal(rng, options),
        mask_shell=bool(rng.random() < options.mask_shell),
        calcified=float(rng.uniform()),
    )


def _draw_volumes(rng: np.random.Generator, variation: float) -> dict[str, float]:
    """Log-normal about the typical volume; the two sides of a pair share most of their deviation."""
    volumes: dict[str, float] = {}
    deviations: dict[str, float] = {}
    for organ in ORGANS:
        shared = deviations.get(organ.partner or "")
        own = float(rng.normal())
        deviations[organ.name] = own if shared is None else 0.85 * shared + 0.5 * own
        low, high = organ.range_ml
        inner = max(low + 0.12 * (high - low), 1.15 * low), min(high - 0.12 * (high - low), high / 1.15)
        spread = min(0.28, np.log(high / low) / 4)
        factor = np.exp(np.clip(deviations[organ.name], -2.5, 2.5) * spread * variation)
        volumes[organ.name] = float(np.clip(organ.typical_ml * factor, *inner))
    return volumes


def _draw_tissues(rng: np.random.Generator, options: PhantomOptions) -> tuple[dict[str, float], dict[str, float]]:
    v = options.variation
    hu, t1 = {}, {}
    for tissue in TISSUES.values():
        spread = 0.06 * abs(tissue.hu) if tissue.hu > 250 else min(5.0, 0.12 * abs(tissue.hu) + 1)
        hu[tissue.name] = tissue.hu + float(np.clip(rng.normal(), -2, 2)) * spread * v * (tissue.name != "air")
        t1[tissue.name] = max(0.01, tissue.t1 * (1 + 0.07 * v * float(np.clip(rng.normal(), -2, 2))))
    hu["parotid"] += float(rng.uniform(-35, 30)) * v
    arterial = float(rng.uniform(*options.contrast)) if v else float(np.mean(options.contrast))
    plain = rng.random() < options.non_contrast
    hu["artery"] = 45.0 if plain else arterial
    hu["vein"] = 42.0 if plain else arterial * float(rng.uniform(0.65, 0.95))
    if plain:
        hu["thyroid"], hu["submandibular"], hu["pituitary"] = hu["thyroid"] - 60, hu["submandibular"] - 35, 48.0
    flow = float(rng.uniform(0.05, 0.2))
    t1["artery"], t1["vein"] = flow, flow * float(rng.uniform(1.0, 2.5))
    return hu, t1


def _draw_pose(rng: np.random.Generator, v: float) -> Pose:
    scale = 1 + v * (np.clip(rng.normal(0, 0.025), -0.06, 0.06) + np.clip(rng.normal(0, 0.012, 3), -0.02, 0.02))
    return Pose(
        rotation_degrees=_triple(v * np.clip(rng.normal(0, (2.5, 1.5, 2.5)), -5, 5)),
        shift_mm=_triple(v * rng.uniform(-3, 3, 3)),
        scale=_triple(scale),
        neck_degrees=(float(v * np.clip(rng.normal(0, 5), -10, 10)), float(v * np.clip(rng.normal(0, 2), -4, 4))),
        jaw_degrees=float(v * rng.uniform(-0.5, 3.0)),
    )


def _draw_mr_pose(rng: np.random.Generator, options: PhantomOptions) -> Pose:
    """CT → MR: a rigid part, and how jaw and neck differ on top of it."""
    jaw, flexion, lateral = rng.normal(size=3).clip(-2, 2)
    rotation, near = rng.normal(0, 3.0, 3).clip(-8, 8), rng.uniform(-40, 40, 3)
    far = rng.normal(size=3)
    far = far / np.linalg.norm(far) * rng.uniform(150, 1050)
    soft = options.deformation
    return Pose(
        rotation_degrees=_triple(rotation),
        shift_mm=_triple(far if options.far_origin and rng.random() < 0.6 else near),
        neck_degrees=(float(flexion * options.neck_degrees * soft), float(lateral * options.neck_degrees * 0.4 * soft)),
        jaw_degrees=float(np.clip(jaw * options.jaw_degrees, -2.5, 4.0)) * soft,
    )


def _draw_scan(rng: np.random.Generator, options: PhantomOptions) -> Scan:
    v = options.variation
    return Scan(
        ct_top=float(145 + v * rng.uniform(-8, 25)),
        ct_bottom=float(-225 + v * rng.uniform(-25, 15)),
        ct_centre=(float(v * rng.uniform(-12, 12)), float(20 + v * rng.uniform(-20, 20))),
        ct_noise_hu=float(rng.uniform(*options.noise_hu)),
        mr_bottom=float(-80 + v * rng.uniform(-10, 10)),
        mr_slice=1.7 if rng.random() < 10 / 42 else float(rng.uniform(3, 6)),
        mr_tilt_degrees=_triple(v * rng.normal(0, (5, 2, 2)).clip(-12, 12)),
        mr_centre=(float(v * rng.uniform(-6, 6)), float(-5 + v * rng.uniform(-8, 8))),
        mr_bias=float(rng.uniform(0.1, 0.35)),
        mr_noise=float(rng.uniform(0.012, 0.035)),
    )


def _draw_metal(rng: np.random.Generator, options: PhantomOptions) -> tuple[Triple, ...]:
    """Places along the dental arches: (side-signed arch fraction −1…1, upper 1 or lower 0, size mm)."""
    if rng.random() >= options.dental_metal:
        return ()
    count = int(rng.integers(1, 6))
    return tuple(
        (float(rng.choice((-1, 1)) * rng.uniform(0.45, 0.95)), float(rng.integers(2)), float(rng.uniform(1.8, 3.6)))
        for _ in range(count)
    )


def _triple(values: np.ndarray) -> Triple:
    x, y, z = (float(v) for v in values)
    return x, y, z
