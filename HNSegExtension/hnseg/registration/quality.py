"""Whether a registration can be believed, from the two images and the transform alone.

Each measure has a value at which the pose is refused and one from which it is accepted; the score is the lowest of the
measures' places between the two, so that one clear "no" is enough. The values were set on phantoms with planted
failures; docs/registration.md says what is known of them on others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from hnseg.image.volume import Volume
from hnseg.registration.bent import Bent
from hnseg.registration.images import Prepared, prepare_ct, prepare_mr
from hnseg.registration.information import Information, Samples
from hnseg.registration.inside import edge_agreement, inside_body, lies_in
from hnseg.registration.local import steady_share
from hnseg.registration.mirror import mirrored
from hnseg.registration.poses import Pose, degrees_between, inverse, mm_between, moved, pose, tilt_degrees
from hnseg.registration.refine import Level, refine

Verdict = Literal["good", "doubtful", "failed"]

WORKING_MM = 2.0
_WIDE = Level(spacing_mm=8.0, sigma_mm=6.0, samples=15_000)
_CHECK = Level(spacing_mm=4.0, sigma_mm=2.0, samples=40_000)
_FAR_MM = 15.0
_FEWEST_INSIDE = 500
_LOST_MM = 100.0
"""Drift of a pose that leaves nothing to compare."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What the images say about a pose. All go into ``score``, 0 (refused) to 1 (accepted), but ``turn_degrees``.

    ``data``: share of the MR's grid that is no padding. ``overlap``: share of that which lies in the CT's field of
    view.
    ``extent_mm``: the thinnest side of what both show. ``information``: mutual information of the
    voxels 1 cm and more under the skin, nats per voxel. ``gain``: share of it that is lost, on average, 15 mm away
    along ±x, ±y, ±z. ``edges``: mean cos² between the gradients of CT and MR under the skin; 1/3 by chance. ``steady``:
    share of 4 cm blocks, by what they tell, that fit best within 3 mm of where they are. ``drift_mm``: how far the pose
    moves when it is refined again. ``side_margin``: how much information the mirrored MR lacks, relative; negative if
    it fits better. ``turn_degrees``: rotation against the headers, for the reader only: feet first is no mistake.
    ``tilt_degrees``: what is left of it beside the nearest half turn. ``bend_mm`` and ``smallest_jacobian``: the
    farthest that the transform takes a place of the body from where its rigid part would, and the least determinant
    over the body; 0 and 1 for a pose. ``bend_gain``: of information, relative, where it bends; 0 for a pose.
    """

    data: float
    overlap: float
    extent_mm: float
    information: float
    gain: float
    edges: float
    steady: float
    drift_mm: float
    side_margin: float
    score: float = 0.0
    turn_degrees: float = 0.0
    tilt_degrees: float = 0.0
    bend_mm: float = 0.0
    smallest_jacobian: float = 1.0
    bend_gain: float = 0.0


@dataclass(frozen=True, slots=True)
class _Rule:
    refused_at: float
    accepted_from: float
    complaint: str
    show: str = "{:.2f}"

    def place(self, value: float) -> float:
        return float(np.clip((value - self.refused_at) / (self.accepted_from - self.refused_at), 0.0, 1.0))


RULES: dict[str, _Rule] = {
    "extent_mm": _Rule(40.0, 70.0, "CT and MR share a slab of only {}", "{:.0f} mm"),
    "data": _Rule(0.3, 0.6, "only {} of the MR is data, the rest is padding", "{:.0%}"),
    "overlap": _Rule(0.25, 0.45, "CT and MR share {} of the MR's field of view", "{:.0%}"),
    "drift_mm": _Rule(8.0, 3.0, "a second refinement moves the pose by {}", "{:.1f} mm"),
    "gain": _Rule(0.25, 0.40, "only {} of the information is lost 15 mm away", "{:.0%}"),
    "edges": _Rule(0.48, 0.56, "the edges of CT and MR agree by {} (1/3 is chance)"),
    "steady": _Rule(0.35, 0.50, "only {} of the blocks fit best where they are", "{:.0%}"),
    "information": _Rule(0.06, 0.12, "CT and MR tell {} nats about each other"),
    "side_margin": _Rule(-0.01, 0.01, "the mirrored MR fits as well or better (margin {})", "{:.1%}"),
    "tilt_degrees": _Rule(60.0, 40.0, "the head would be tilted by {} against the headers", "{:.0f}°"),
    "smallest_jacobian": _Rule(0.0, 0.1, "the bending folds or crushes the body (least Jacobian determinant {})"),
    "bend_mm": _Rule(60.0, 40.0, "the bending moves a place of the body by {}", "{:.0f} mm"),
    "bend_gain": _Rule(-0.05, 0.0, "where the transform bends, CT and MR fit worse for it ({})", "{:+.0%}"),
}
"""By name of the measure, gravest first."""


def assess(ct: Volume, mr: Volume, transform: sitk.Transform) -> tuple[Verdict, str, Quality]:
    """Verdict, reason and measures of a transform (CT points → MR points, LPS mm), wherever it comes from.

    Of one that bends, the rigid part is looked at as a pose, and the rest for folds, for how far it goes and for what
    the images say of it. Raises ``UnsupportedImage`` when an image holds one value only.
    """
    fixed, moving = prepare_ct(ct, WORKING_MM), prepare_mr(mr, WORKING_MM)
    bent = Bent.of(transform, fixed, moving)
    quality = with_bending(measure(fixed, moving, bent.pose), bent)
    return *judge(quality), quality


def with_bending(quality: Quality, bent: Bent) -> Quality:
    """A pose's measures, with what the transform does beyond it."""
    found = replace(quality, bend_mm=bent.largest_mm, smallest_jacobian=bent.smallest_jacobian, bend_gain=bent.gain)
    return replace(found, score=score(found))


def judge(quality: Quality) -> tuple[Verdict, str]:
    """The verdict, and a sentence that names what speaks against the pose, or that nothing does."""
    places = {name: rule.place(getattr(quality, name)) for name, rule in RULES.items()}
    worst = min(places, key=lambda name: places[name])
    if places[worst] == 1.0:
        return "good", (
            f"All measures are as for a true pose (edges agree by {quality.edges:.2f}, "
            f"{quality.steady:.0%} of the blocks fit where they are)."
        )
    rule = RULES[worst]
    sentence = rule.complaint.format(rule.show.format(getattr(quality, worst)))
    verdict: Verdict = "failed" if places[worst] == 0.0 else "doubtful"
    return verdict, sentence[0].upper() + sentence[1:] + "."


def score(quality: Quality) -> float:
    """The lowest of the rules' places, 0…1."""
    return min(rule.place(getattr(quality, name)) for name, rule in RULES.items())


def measure(
    ct: Prepared, mr: Prepared, ct_to_mr: Pose, *, on_progress: Callable[[float, str], None] | None = None
) -> Quality:
    """All measures of a pose; the images at about 2 mm."""
    tell = on_progress or (lambda fraction, text: None)
    mr_to_ct, coarse_ct, coarse_mr = inverse(ct_to_mr), ct.coarser(_CHECK.spacing_mm), mr.coarser(_CHECK.spacing_mm)
    inside = inside_body(coarse_ct)
    information = _information(coarse_ct, coarse_mr)
    within = _Within.of(information, inside, mr_to_ct, mr.grid.axes)
    turn, tilt = degrees_between(ct_to_mr, np.eye(4)), tilt_degrees(ct_to_mr)
    data = float(mr.valid.array_kji.mean())
    if len(within.information.samples.points) < _FEWEST_INSIDE:
        return Quality(data, within.overlap, within.extent_mm, 0.0, 0.0, 0.0, 0.0, _LOST_MM, -1.0, 0.0, turn, tilt)
    tell(0.1, "Checking the registration: does it drift?")
    again, _ = refine(ct, mr, ct_to_mr, _CHECK)
    drift = mm_between(again, ct_to_mr, moved(within.information.samples.points, mr_to_ct))
    tell(0.3, "Checking the registration: does the mirrored MR fit?")
    other_side = _best_of_mirrored(ct, mr, ct_to_mr, inside)
    here = within.information.at(mr_to_ct)
    tell(0.7, "Checking the registration: do edges and parts agree?")
    found = Quality(
        data=data,
        overlap=within.overlap,
        extent_mm=within.extent_mm,
        information=here,
        gain=1 - _mean_far_away(within.information, mr_to_ct) / max(here, 1e-9),
        edges=edge_agreement(coarse_ct, coarse_mr, mr_to_ct, inside),
        steady=steady_share(ct, mr, mr_to_ct),
        drift_mm=drift,
        side_margin=1 - other_side / max(here, 1e-9),
        turn_degrees=turn,
        tilt_degrees=tilt,
    )
    return replace(found, score=score(found))


@dataclass(frozen=True, slots=True, eq=False)
class _Within:
    """The information of the MR's samples inside the body; the share that the CT shows; that part's thinnest side."""

    information: Information
    overlap: float
    extent_mm: float

    @classmethod
    def of(cls, information: Information, inside: Volume, mr_to_ct: Pose, mr_axes: NDArray[np.float64]) -> _Within:
        samples = information.samples
        seen, within = lies_in(inside, moved(samples.points, mr_to_ct))
        part = Samples(samples.points[within], samples.bins[within])
        return cls(replace(information, samples=part), float(seen.mean()), _extent_mm(samples.points[seen], mr_axes))


def _extent_mm(points: NDArray[np.floating], axes: NDArray[np.float64]) -> float:
    """Of the middle 96 %, so that a few stray voxels do not count, stretched back."""
    if not len(points):
        return 0.0
    low, high = np.quantile(points @ axes, [0.02, 0.98], axis=0)
    return float((high - low).min() / 0.96)


def _information(ct: Prepared, mr: Prepared) -> Information:
    return Information.of(ct, mr, bins=_CHECK.bins, samples=_CHECK.samples, sigma_mm=_CHECK.sigma_mm)


def _mean_far_away(information: Information, mr_to_ct: Pose) -> float:
    shifts = [sign * _FAR_MM * axis for axis in np.eye(3) for sign in (-1, 1)]
    return float(np.mean([information.at(pose(np.eye(3), shift) @ mr_to_ct) for shift in shifts]))


def _best_of_mirrored(ct: Prepared, mr: Prepared, ct_to_mr: Pose, inside: Volume) -> float:
    """Information inside the body of the mirrored MR at its own best pose."""
    places = inside.grid.to_lps(np.argwhere(inside.array_kji)[:, ::-1])
    reached = lies_in(mr.valid, moved(places, ct_to_mr))[1]
    image, start = mirrored(mr, ct_to_mr, places[reached].mean(axis=0) if reached.any() else places.mean(axis=0))
    for level in (_WIDE, _CHECK):
        start, _ = refine(ct, image, start, level)
    information = _information(ct.coarser(_CHECK.spacing_mm), image.coarser(_CHECK.spacing_mm))
    return _Within.of(information, inside, inverse(start), mr.grid.axes).information.at(inverse(start))
