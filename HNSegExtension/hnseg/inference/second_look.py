"""The second look: small organs once more, on a finer grid, where the first network or the atlas says they lie."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray

from hnseg.image.grid import Grid
from hnseg.image.orient import canonical
from hnseg.image.volume import Volume
from hnseg.inference.confidence import Confidence
from hnseg.inference.places import usual_places
from hnseg.inference.predictor import Prediction, Progress
from hnseg.inference.voxels import Indices, centroid_lps, connected_parts, organ_voxels, points_ijk
from hnseg.models.metadata import FineStage
from hnseg.organs import BY_NAME, ORGANS
from hnseg.preprocessing import NetworkInput, preprocess_part

Predict = Callable[[NetworkInput, Grid, Progress], Prediction]
"""Labels on a grid, from an input: the stage's network through the streaming predictor."""

_ATLAS_MM = 10.0
"""How far an organ may lie from where the atlas expects it, beyond the stage's own margin."""


@dataclass(frozen=True, slots=True, eq=False)
class Patient:
    """The images; ``ct_to_mr`` maps CT points to MR points (LPS mm), ``whole`` is the first network's input."""

    ct: Volume
    mr: Volume | None
    ct_to_mr: sitk.Transform | None
    whole: NetworkInput


@dataclass(frozen=True, slots=True)
class Region:
    """A box of the CT's canonical grid, from ``start_ijk`` up to but not with ``stop_ijk``, and what to look for."""

    start_ijk: tuple[int, int, int]
    stop_ijk: tuple[int, int, int]
    organs: frozenset[str]

    @property
    def size_ijk(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        return _triple(np.subtract(self.stop_ijk, self.start_ijk))

    @property
    def slices_kji(self) -> tuple[slice, slice, slice]:
        """What the box takes of an array."""
        i, j, k = (slice(a, b) for a, b in zip(self.start_ijk, self.stop_ijk, strict=True))
        return k, j, i

    @property
    def voxels(self) -> int:
        """Size of the box."""
        return int(np.prod(self.size_ijk))

    def joined(self, other: Region) -> Region:
        """The box around both, for the organs of both."""
        start, stop = np.minimum(self.start_ijk, other.start_ijk), np.maximum(self.stop_ijk, other.stop_ijk)
        return Region(_triple(start), _triple(stop), self.organs | other.organs)


@dataclass(frozen=True, slots=True, eq=False)
class SecondLook:
    """New labels on the CT's grid, the confidence of what was looked for, and the predictions that they come from."""

    labels: Volume
    confidence: Mapping[int, Confidence]
    predictions: tuple[Prediction, ...]


def look_again(
    labels: Volume,
    patient: Patient,
    stage: FineStage,
    predict: Predict,
    *,
    wanted: Collection[str],
    centres_mm: Mapping[str, tuple[float, float, float]],
    on_progress: Progress,
) -> SecondLook:
    """Let the stage decide its organs; ``labels`` (uint8, CT grid) is not changed.

    Wherever in an organ's region the first network or this one sees it, this one's answer stands; beyond the region
    nothing of it is left. An organ that has no region, since the scan ends before its usual place, stays as it was.
    """
    out = labels.with_array(np.array(labels.array_kji))
    first, canvas = canonical(labels).array_kji, canonical(out).array_kji
    found = locate(labels, [name for name in stage.decides if name in wanted], stage, centres_mm)
    decided = np.isin(np.arange(256), [BY_NAME[name].label for region in found for name in region.organs])
    for part in (canvas[k] for k in range(len(canvas))):
        part[decided[part]] = 0
    predictions = []
    confidence: dict[int, Confidence] = {}
    for n, region in enumerate(found):
        prediction = predict(*part_of(patient, region, stage), share(on_progress, n, len(found)))
        predictions.append(prediction)
        own = [BY_NAME[name].label for name in region.organs]
        confidence |= {label: prediction.confidence[label] for label in own if label in prediction.confidence}
        _write(canvas[region.slices_kji], first[region.slices_kji], prediction.labels.array_kji, own, decided)
    return SecondLook(out, confidence, tuple(predictions))


def locate(
    labels: Volume, organs: Iterable[str], stage: FineStage, centres_mm: Mapping[str, tuple[float, float, float]]
) -> tuple[Region, ...]:
    """Where to look for each of ``organs``, as few boxes as cost least.

    A box holds what the first network saw of an organ (its largest parts, as many as the organ has), or else its usual
    place; it is at least as large as the stage's patch where the scan allows, so that the network sees what it knows.
    """
    view = canonical(labels)
    seen = {ORGANS[label - 1].name: voxels for label, voxels in organ_voxels(view).items()}
    usual = usual_places({name: centroid_lps(voxels, view.grid) for name, voxels in seen.items()}, centres_mm)
    regions = []
    for name in organs:
        if name in seen:
            low, high = _extent(seen[name], BY_NAME[name].components, view.grid)
            regions.append(_region(name, low, high, stage.margin_mm, stage, view.grid))
        elif name in usual and _inside(at := view.grid.to_ijk(usual[name]), view.grid):
            regions.append(_region(name, at, at, stage.margin_mm + _ATLAS_MM, stage, view.grid))
    return _merged(regions)


def part_of(patient: Patient, region: Region, stage: FineStage) -> tuple[NetworkInput, Grid]:
    """The stage's input in a region, and the CT's own grid there, canonical."""
    ct = canonical(patient.ct)
    grid = ct.grid.cropped(region.start_ijk, region.size_ijk)
    # Interpolation at the region's border needs what lies beyond it.
    context = np.ceil(2 * np.asarray(stage.preprocess.spacing_mm) / ct.grid.spacing_mm).astype(int) + 1
    start = np.maximum(np.subtract(region.start_ijk, context), 0)
    stop = np.minimum(np.add(region.stop_ijk, context), ct.grid.size_ijk)
    given = preprocess_part(
        ct.cropped(_triple(start), _triple(stop - start)),
        patient.mr,
        patient.ct_to_mr,
        grid=grid.respaced(stage.preprocess.spacing_mm),
        settings=stage.preprocess,
        whole=patient.whole,
    )
    return given, grid


def _extent(voxels: Indices, parts: int, grid: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last index (i, j, k) of the largest parts."""
    points = points_ijk(np.concatenate(connected_parts(voxels, grid)[:parts]), grid)
    return points.min(axis=0), points.max(axis=0)


def _inside(at_ijk: NDArray[np.float64], grid: Grid) -> bool:
    return bool(np.all((at_ijk > -0.5) & (at_ijk < np.asarray(grid.size_ijk) - 0.5)))


def _region(name: str, low: ArrayLike, high: ArrayLike, margin_mm: float, stage: FineStage, grid: Grid) -> Region:
    spacing, size = np.asarray(grid.spacing_mm), np.asarray(grid.size_ijk)
    middle = (np.asarray(low) + np.asarray(high)) / 2
    patch = np.asarray(stage.patch_kji)[::-1] * stage.preprocess.spacing_mm / spacing
    extent = np.minimum(np.maximum(np.subtract(high, low) + 1 + 2 * margin_mm / spacing, patch), size)
    start = np.clip(middle + 0.5 - extent / 2, 0, size - extent)  # moved inside rather than cut off
    # Rounded first: a last bit must not add a voxel.
    first, last = np.floor(np.round(start, 6)), np.ceil(np.round(start + extent, 6))
    return Region(_triple(first), _triple(np.minimum(last, size)), frozenset({name}))


def _merged(regions: Iterable[Region]) -> tuple[Region, ...]:
    """Boxes joined for as long as that does not add voxels; in order of their first voxel."""
    boxes = list(regions)
    while len(boxes) > 1:
        a, b = max(combinations(boxes, 2), key=lambda pair: _saving(*pair))
        if _saving(a, b) < 0:
            break
        boxes = [a.joined(b), *(box for box in boxes if box is not a and box is not b)]
    return tuple(sorted(boxes, key=lambda box: box.start_ijk[::-1]))


def _saving(a: Region, b: Region) -> int:
    return a.voxels + b.voxels - a.joined(b).voxels


def _write(
    canvas: NDArray[np.uint8],
    first: NDArray[np.uint8],
    fine: NDArray[np.uint8],
    own: Sequence[int],
    decided: NDArray[np.bool_],
) -> None:
    """Put a region's answer into ``canvas``; organs that belong to another region are not this one's to name."""
    is_own = np.isin(np.arange(256), own)
    answer = np.where(decided & ~is_own, 0, np.arange(256)).astype(np.uint8)[fine]
    here = (is_own[first] | is_own[answer]) & ~decided[canvas]
    canvas[here] = answer[here]


def share(report: Progress, n: int, of: int) -> Progress:
    """One of several equal parts of a whole's progress."""
    return lambda fraction, sentence: report((n + fraction) / of, sentence)


def _triple(values: ArrayLike) -> tuple[int, int, int]:
    i, j, k = (int(value) for value in np.asarray(values))
    return i, j, k
