"""Rigid MR→CT registration that needs no start: exhaustive search, then refinement of the best candidates."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import SimpleITK as sitk

from hnseg.image.volume import Volume
from hnseg.registration.images import Prepared, prepare_ct, prepare_mr
from hnseg.registration.poses import Pose, degrees_between, mm_between, to_transform
from hnseg.registration.quality import Quality, Verdict, judge, measure
from hnseg.registration.refine import Ascent, Level, refine
from hnseg.registration.search import find_candidates

OnProgress = Callable[[float, str], None]

WORKING_MM = 2.0
SCREEN = Level(spacing_mm=8.0, sigma_mm=6.0, samples=20_000)
COARSE = Level(spacing_mm=4.0, sigma_mm=3.0)
FINE = Level(spacing_mm=2.0, sigma_mm=1.0, samples=120_000, tolerance=1e-6)


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """``transform`` maps CT points to MR points (LPS mm), as ITK's resampling of the MR onto the CT asks for.

    ``verdict`` and ``reason`` come from the quality check; a failed one's transform must not be used unseen.
    """

    transform: sitk.Transform
    verdict: Verdict
    reason: str
    metrics: Quality
    seconds: float


def register_rigid(ct: Volume, mr: Volume, *, on_progress: OnProgress | None = None) -> Registration:
    """The rigid pose of the MR in the CT, and whether to believe it.

    Headers are trusted for spacing only: the MR may lie anywhere, tilted by up to 20° about each axis, and turned by
    180°. Same input, same result. Raises ``UnsupportedImage`` where an image holds one value only; a pose that is not
    found is not an error but the verdict ``"failed"``.
    """
    started = time.perf_counter()
    tell = on_progress or _silent
    tell(0.0, "Preparing CT and MR for registration")
    ct_working, mr_working = prepare_ct(ct, WORKING_MM), prepare_mr(mr, WORKING_MM)
    pose = find_pose(ct_working, mr_working, on_progress=tell)
    quality = measure(ct_working, mr_working, pose, on_progress=lambda f, text: tell(0.9 + 0.1 * f, text))
    verdict, reason = judge(quality)
    tell(1.0, f"Registration {verdict}")
    transform = to_transform(pose, ct_working.grid.centre_lps)
    return Registration(transform, verdict, reason, quality, time.perf_counter() - started)


def find_pose(ct: Prepared, mr: Prepared, *, on_progress: OnProgress | None = None) -> Pose:
    """The best pose found, CT points → MR points; no judgement."""
    tell = on_progress or _silent
    candidates = find_candidates(ct, mr, on_progress=lambda f, text: tell(0.05 + 0.5 * f, text))
    screen, screened = Ascent.of(ct, mr, SCREEN), []
    for n, candidate in enumerate(candidates):
        tell(0.55 + 0.15 * n / len(candidates), "Comparing the likeliest places")
        screened.append(screen.climb(candidate.ct_to_mr))
    best = _distinct(sorted(screened, key=lambda s: -s[1]), ct)[:3]
    tell(0.7, "Refining the pose")
    middle = Ascent.of(ct, mr, COARSE)
    coarse = max((middle.climb(pose) for pose, _ in best), key=lambda s: s[1])[0]
    tell(0.8, "Refining the pose")
    return refine(ct, mr, coarse, FINE)[0]


def _distinct(ordered: list[tuple[Pose, float]], ct: Prepared) -> list[tuple[Pose, float]]:
    """Without those that climbed to a better one's top."""
    corners = ct.grid.corners_lps()
    kept: list[tuple[Pose, float]] = []
    for pose, value in ordered:
        if all(mm_between(pose, other, corners) > 15 or degrees_between(pose, other) > 10 for other, _ in kept):
            kept.append((pose, value))
    return kept


def _silent(fraction: float, text: str) -> None:
    """No one listens."""
