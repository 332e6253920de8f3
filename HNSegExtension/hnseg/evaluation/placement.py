"""Recognising a prediction that is good but lies wrongly: mirrored, shifted, turned, or with the sides exchanged.

Scores near zero say nothing about why. Each way in which files usually go wrong is tried on a sample of the
prediction's voxels; when one of them makes the scores rise by much, the comparison names it, with figures. Nothing is
corrected.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from hnseg.evaluation.boxes import Boxed, cropped
from hnseg.evaluation.matching import Pair
from hnseg.image.grid import Grid, Matrix
from hnseg.organs import BY_NAME

_SAMPLES = 1500
_RISE = 0.15
_EQUALLY_GOOD = 0.03
_DIRECTIONS = ("left to right", "front to back", "head to feet")


@dataclass(frozen=True, slots=True)
class _Sample:
    """Voxels of one structure: a regular sample of the prediction's, and the reference's lookup with its box."""

    name: str
    points_lps: Matrix
    prediction_voxels: float
    reference_kji: NDArray[np.bool_]
    reference_grid: Grid
    centroid_lps: Matrix


@dataclass(frozen=True, slots=True)
class _Candidate:
    words: str
    matrix: Matrix
    swap_sides: bool = False


def suspicion(prediction: Boxed, reference: Boxed, pairs: Sequence[Pair]) -> tuple[str, ...]:
    """A sentence such as "Scores rise from 0.11 to 0.58 when mirrored left to right", or none.

    Said only when the mean DSC rises by 0.15 or more. A translation may accompany each change, as a mirror has a place.
    """
    samples = tuple(_samples(prediction, reference, pairs))
    if not samples:
        return ()
    before = _mean_dsc(samples, np.eye(4))
    tried = [_scored(candidate, samples) for candidate in _candidates(prediction.grid, reference.grid, samples)]
    highest = max(after for _, after in tried)
    best, after = next((candidate, after) for candidate, after in tried if after >= highest - _EQUALLY_GOOD)
    if after - before < _RISE:
        return ()
    return (
        f"Scores rise from {before:.2f} to {after:.2f} when {best.words}, in mean DSC; "
        "check the prediction's orientation, origin and labels.",
    )


def _candidates(grid: Grid, expected: Grid, samples: Sequence[_Sample]) -> Iterable[_Candidate]:
    """Simple changes first: of equally good ones, the first is named."""
    for change in (*_changes(grid), *_other_headers(grid, expected)):
        moved = _aligned(change.matrix, samples, swap_sides=change.swap_sides)
        shift = moved[:3, 3] - change.matrix[:3, 3]
        yield change
        if np.abs(shift).max() > max(grid.spacing_mm):
            words = f"shifted by ({shift[0]:.0f}, {shift[1]:.0f}, {shift[2]:.0f}) mm in LPS"
            yield _Candidate(f"{change.words} and {words}".removeprefix(" and "), moved, change.swap_sides)


def _changes(grid: Grid) -> Iterable[_Candidate]:
    yield _Candidate("", np.eye(4))
    yield _Candidate("given the other side's label for each paired organ", np.eye(4), swap_sides=True)
    yield _Candidate("read as RAS instead of LPS", np.diag([-1.0, -1.0, 1.0, 1.0]))
    for flips in sorted(product((False, True), repeat=3), key=sum)[1:]:
        names = [_DIRECTIONS[_patient_axis(grid, axis)] for axis in range(3) if flips[axis]]
        yield _Candidate(f"mirrored {' and '.join(sorted(names, key=_DIRECTIONS.index))}", _index_flip(grid, flips))


def _other_headers(grid: Grid, expected: Grid) -> Iterable[_Candidate]:
    """The prediction's array under the reference's header, where it fits, and with its axes in another order."""
    for order in permutations(range(3)):
        straight = order == (0, 1, 2)
        if tuple(grid.size_ijk[axis] for axis in order) == expected.size_ijk and not (straight and grid == expected):
            words = "given the reference's spacing, origin and direction"
            yield _Candidate(
                words if straight else "given its axes in another order",
                expected.ijk_to_lps @ _index_permutation(order) @ grid.lps_to_ijk,
            )


def _patient_axis(grid: Grid, axis: int) -> int:
    return int(np.abs(grid.axes[:, axis]).argmax())


def _index_flip(grid: Grid, flips: Sequence[bool]) -> Matrix:
    """LPS → LPS: the array reversed along those axes while the header stays."""
    flip = np.diag([-1.0 if flipped else 1.0 for flipped in flips] + [1.0])
    flip[:3, 3] = [size - 1.0 if flipped else 0.0 for flipped, size in zip(flips, grid.size_ijk, strict=True)]
    return np.asarray(grid.ijk_to_lps @ flip @ grid.lps_to_ijk)


def _index_permutation(order: Sequence[int]) -> Matrix:
    exchange = np.eye(4)
    exchange[:3, :3] = np.eye(3)[list(order)]
    return exchange


def _samples(prediction: Boxed, reference: Boxed, pairs: Sequence[Pair]) -> Iterable[_Sample]:
    for pair in pairs:
        predicted_box, expected_box = prediction.box(pair.prediction), reference.box(pair.reference)
        if predicted_box is None or expected_box is None:
            continue
        expected = reference.mask(pair.reference, expected_box)
        voxels = np.argwhere(prediction.mask(pair.prediction, predicted_box))[:, ::-1]
        kept = voxels[:: max(1, len(voxels) // _SAMPLES)]
        expected_grid = cropped(reference.grid, expected_box)
        yield _Sample(
            pair.name,
            cropped(prediction.grid, predicted_box).to_lps(kept),
            len(voxels) * prediction.grid.voxel_ml / reference.grid.voxel_ml,
            expected,
            expected_grid,
            expected_grid.to_lps(np.argwhere(expected).mean(axis=0)[::-1]),
        )


def _scored(candidate: _Candidate, samples: Sequence[_Sample]) -> tuple[_Candidate, float]:
    return candidate, _mean_dsc(samples, candidate.matrix, swap_sides=candidate.swap_sides)


def _mean_dsc(samples: Sequence[_Sample], matrix: Matrix, *, swap_sides: bool = False) -> float:
    """Mean over structures of the DSC that the samples estimate once ``matrix`` has moved them."""
    targets = {sample.name: sample for sample in samples}
    values = []
    for sample in samples:
        target = targets.get(_other_side(sample.name)) if swap_sides else sample
        values.append(_dsc(sample, target, matrix) if target else 0.0)
    return float(np.mean(values))


def _dsc(sample: _Sample, target: _Sample, matrix: Matrix) -> float:
    moved = sample.points_lps @ matrix[:3, :3].T + matrix[:3, 3]
    kji = np.rint(target.reference_grid.to_ijk(moved)).astype(np.int64)[:, ::-1]
    inside = ((kji >= 0) & (kji < target.reference_kji.shape)).all(axis=1)
    hits = np.count_nonzero(target.reference_kji[tuple(kji[inside].T)])
    voxels = sample.prediction_voxels * abs(float(np.linalg.det(matrix[:3, :3])))  # another spacing, another volume
    return 2.0 * hits / len(kji) * voxels / (voxels + np.count_nonzero(target.reference_kji))


def _aligned(matrix: Matrix, samples: Sequence[_Sample], *, swap_sides: bool) -> Matrix:
    """``matrix`` followed by the median translation of the structures' centroids onto the reference's."""
    targets = {sample.name: sample for sample in samples}
    shifts = []
    for sample in samples:
        target = targets.get(_other_side(sample.name)) if swap_sides else sample
        if target:
            centre = matrix[:3, :3] @ sample.points_lps.mean(axis=0) + matrix[:3, 3]
            shifts.append(target.centroid_lps - centre)
    aligned = np.array(matrix)
    aligned[:3, 3] += np.median(shifts, axis=0) if shifts else 0.0
    return aligned


def _other_side(name: str) -> str:
    organ = BY_NAME.get(name)
    return organ.partner if organ and organ.partner else name
