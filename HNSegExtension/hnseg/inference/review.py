"""What a person should know about a result: organ by organ, and about the images that it came from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hnseg.image.grid import Grid
from hnseg.image.orient import canonical
from hnseg.image.volume import Volume
from hnseg.inference.confidence import Confidence
from hnseg.inference.places import usual_places
from hnseg.inference.postprocess import leftward
from hnseg.inference.voxels import Indices, centroid_lps, connected_parts, organ_voxels, points_ijk
from hnseg.models.calibration import Calibration, shortfall
from hnseg.models.metadata import BundleMetadata, InputLimits, PostprocessSettings, Teaching
from hnseg.organs import BY_NAME, ORGANS, Organ

Status = Literal["ok", "check", "absent", "not trained"]

_LOW_CONFIDENCE = 0.5
"""Of the mean winning probability, for models whose confidence nobody has calibrated."""
_EDGE_MM = 2.0
_FEWEST_TO_JUDGE = 6
_CUT_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class OrganFinding:
    """One organ of the result. ``status`` check: the notes name a doubt; absent: nothing was found.

    ``taught_by``: what showed the organ to the model, empty where the model does not say. ``expected_dsc``: with an
    expert, told from confidence and volume; None where that was not measured, or on phantoms alone.
    """

    organ: str
    ml: float
    confidence: Confidence | None
    status: Status
    notes: tuple[str, ...] = ()
    taught_by: tuple[Teaching, ...] = ()
    expected_dsc: float | None = None


def review_organs(
    labels: Volume, metadata: BundleMetadata, confidence: Mapping[int, Confidence], wanted: Collection[Organ]
) -> tuple[OrganFinding, ...]:
    """A finding for each wanted organ, in label order."""
    voxels = organ_voxels(labels)
    centres = {ORGANS[label - 1].name: centroid_lps(part, labels.grid) for label, part in voxels.items()}
    unseen = outside_the_scan(centres, metadata.organ_centres_mm, labels.grid)
    found = []
    for organ in sorted(wanted, key=lambda organ: organ.label):
        if organ.name not in metadata.organs:
            found.append(OrganFinding(organ.name, 0.0, None, "not trained", ("The model does not know this organ.",)))
        elif organ.label not in voxels:
            found.append(OrganFinding(organ.name, 0.0, None, "absent", (_why_absent(organ, unseen),)))
        else:
            found.append(_finding(organ, voxels[organ.label], labels.grid, centres, metadata, confidence))
    return tuple(replace(finding, taught_by=metadata.taught_by.get(finding.organ, ())) for finding in found)


def _why_absent(organ: Organ, unseen: Mapping[str, str]) -> str:
    if organ.name in unseen:
        return f"The scan ends {unseen[organ.name]} the {organ.english}, so there is nothing to find."
    return f"Nothing was found of the {organ.english}; look whether the scan shows it."


def _finding(
    organ: Organ,
    voxels: Indices,
    grid: Grid,
    centres: Mapping[str, NDArray[np.float64]],
    metadata: BundleMetadata,
    confidence: Mapping[int, Confidence],
) -> OrganFinding:
    ml, sure = len(voxels) * grid.voxel_ml, confidence.get(organ.label)
    cut = reaches_end(voxels, grid)
    expected = _expected_dsc(organ, ml, sure, metadata.calibration)
    notes = [
        *([f"It reaches the scan's {' and '.join(cut)} end and may be cut off."] if cut else []),
        *_volume_notes(organ, ml, metadata.postprocess, cut=bool(cut)),
        *_side_notes(organ, centres),
        *_part_notes(organ, voxels, grid, metadata.postprocess),
        *(["The model is unsure of it."] if sure and _is_unsure(sure, expected, metadata.calibration) else []),
    ]
    known = metadata.taught_by.get(organ.name) != ("phantom",)
    return OrganFinding(
        organ.name, ml, sure, "check" if notes else "ok", tuple(notes), expected_dsc=expected if known else None
    )


def _expected_dsc(organ: Organ, ml: float, sure: Confidence | None, calibration: Calibration | None) -> float | None:
    if sure is None or calibration is None:
        return None
    return calibration.expected_dsc(sure.mean, sure.boundary, shortfall(ml, organ.typical_ml))


def _is_unsure(sure: Confidence, expected_dsc: float | None, calibration: Calibration | None) -> bool:
    if expected_dsc is None or calibration is None:
        return sure.mean < _LOW_CONFIDENCE
    return expected_dsc < calibration.check_below


def reaches_end(voxels: Indices, grid: Grid) -> tuple[str, ...]:
    """Which of the scan's ends along the patient ("lower", "upper") the voxels touch."""
    axis = int(np.argmax(np.abs(grid.axes[2])))
    index = points_ijk(voxels, grid)[:, axis]
    ends = ("lower", "upper") if grid.axes[2, axis] > 0 else ("upper", "lower")
    touched = (index.min() == 0, index.max() == grid.size_ijk[axis] - 1)
    return tuple(sorted(name for name, touches in zip(ends, touched, strict=True) if touches))


def _volume_notes(organ: Organ, ml: float, settings: PostprocessSettings, *, cut: bool) -> list[str]:
    low, high = settings.ranges_ml.get(organ.name, organ.range_ml)
    tolerance = settings.volume_tolerance
    if ml > high * (1 + tolerance) or (ml < low * (1 - tolerance) and not cut):
        return [f"Its volume of {ml:.2g} mL is outside the usual {low:g} to {high:g} mL."]
    return []


def _side_notes(organ: Organ, centres: Mapping[str, NDArray[np.float64]]) -> list[str]:
    partner = organ.partner
    if partner and partner in centres and leftward(organ) * (centres[organ.name][0] - centres[partner][0]) <= 0:
        return [f"It lies on the wrong side of the {BY_NAME[partner].english}: left and right may be swapped."]
    return []


def _part_notes(organ: Organ, voxels: Indices, grid: Grid, settings: PostprocessSettings) -> list[str]:
    parts, due = len(connected_parts(voxels, grid)), settings.parts.get(organ.name, organ.components)
    return [f"It is in {parts} separate parts, of {due} expected."] if parts != due else []


def outside_the_scan(
    centres_lps: Mapping[str, NDArray[np.float64]], typical_lps: Mapping[str, tuple[float, float, float]], grid: Grid
) -> dict[str, str]:
    """Organs whose usual place, relative to those that were found, lies "above" or "below" the scan.

    ``typical_lps``: mean places in one common frame; organs without one, and everything when nothing was found, are
    left out.
    """
    usual = usual_places(centres_lps, typical_lps)
    low, high = grid.bounds_lps()
    absent = {name: place[2] for name, place in usual.items() if name not in centres_lps}
    below = {name: "above" for name, z in absent.items() if z < low[2] + _EDGE_MM}
    return below | {name: "below" for name, z in absent.items() if z > high[2] - _EDGE_MM}


def result_warnings(findings: Collection[OrganFinding]) -> tuple[str, ...]:
    """A warning where most organs are missing or doubtful: then the image, not the organs, is out of place."""
    known = [finding for finding in findings if finding.status != "not trained"]
    doubtful = sum(finding.status != "ok" for finding in known)
    if len(known) < _FEWEST_TO_JUDGE or doubtful <= len(known) / 2:
        return ()
    return (
        f"{doubtful} of {len(known)} organs are missing or doubtful: the field of view, the quality or the kind of "
        "this image may be outside of what the model knows.",
    )


def input_warnings(ct: Volume, body: Volume, limits: InputLimits) -> tuple[str, ...]:
    """Where the CT leaves what the model was trained on. ``body``: boolean, on any grid that ends where the CT does."""
    spacing = canonical(Volume(np.broadcast_to(np.uint8(0), ct.grid.shape_kji), ct.grid)).grid.spacing_mm
    warnings = []
    if any(mm > most for mm, most in zip(spacing, limits.coarsest_spacing_mm, strict=True)):
        shown, known = (" × ".join(f"{mm:.3g}" for mm in part) for part in (spacing, limits.coarsest_spacing_mm))
        warnings.append(f"The CT's voxels of {shown} mm are coarser than the model knows ({known} mm): expect less.")
    low, high = limits.body_median_hu
    median = _body_median_hu(ct, body)
    if not low <= median <= high:
        warnings.append(
            f"The body's median of {median:.0f} HU is outside the {low:g} to {high:g} HU that the model knows: "
            "check that this is a head-and-neck CT."
        )
    if cut := _cut_sides(body):
        warnings.append(
            f"The body reaches the image's {' and '.join(cut)} side in most slices: what lies beyond cannot be found, "
            "and organs there may be cut off."
        )
    return tuple(warnings)


def _cut_sides(body: Volume) -> tuple[str, ...]:
    """The sides of the image that the body touches in more than half of its slices."""
    inside = canonical(body).array_kji
    shown = inside[inside.any(axis=(1, 2))]
    faces = {"right": shown[:, :, 0], "left": shown[:, :, -1], "front": shown[:, 0], "back": shown[:, -1]}
    return tuple(name for name, face in faces.items() if face.any(axis=1).mean() > _CUT_SHARE)


def _body_median_hu(ct: Volume, body: Volume) -> float:
    """Median of the CT at the body's voxel centres."""
    k, j, i = np.nonzero(body.array_kji)
    step = max(1, len(k) // 200_000)
    points = body.grid.to_lps(np.stack([i, j, k], axis=1)[::step])
    at = np.clip(np.rint(ct.grid.to_ijk(points)).astype(int), 0, np.asarray(ct.grid.size_ijk) - 1)
    return float(np.median(ct.array_kji[at[:, 2], at[:, 1], at[:, 0]]))
