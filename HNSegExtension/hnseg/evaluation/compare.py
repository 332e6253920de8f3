"""Prediction against reference: every organ of two segmentations, matched by name, alias or code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hnseg.errors import ConfigError, GeometryMismatch
from hnseg.evaluation import metrics
from hnseg.evaluation.boxes import Boxed, cropped, union
from hnseg.evaluation.matching import Pair, match
from hnseg.evaluation.placement import suspicion
from hnseg.evaluation.scores import OrganScores, Scores
from hnseg.evaluation.surfaces import surface_distances
from hnseg.image.grid import Grid
from hnseg.image.resample import resample
from hnseg.image.segmentation import Segment, Segmentation
from hnseg.image.volume import Volume

Mask = NDArray[np.bool_]
OnProgress = Callable[[float, str], None]

ENDS_SET_BY_PROTOCOL = ("A_Carotid_L", "A_Carotid_R", "Esophagus_S", "SpinalCord")
"""Organs that a protocol, not anatomy, ends; their z-restricted scores stand beside the full ones."""

_GOOD_ENOUGH = 0.85


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """``tolerance_mm`` is that of the surface DSC.

    ``organs`` restricts the comparison and ``leave_out`` narrows it (names or aliases). ``check_placement`` looks for
    mirrored, shifted and turned predictions where the scores are poor.
    """

    tolerance_mm: float = 2.0
    organs: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    check_placement: bool = True
    workers: int = 2

    def __post_init__(self) -> None:
        if not self.tolerance_mm >= 0:
            raise ConfigError(f"The tolerance of the surface DSC is {self.tolerance_mm} mm; give 0 or more.")


def compare(
    prediction: Segmentation,
    reference: Segmentation,
    options: CompareOptions | None = None,
    on_progress: OnProgress = lambda fraction, text: None,
) -> Scores:
    """Score every organ of the reference, and report what the prediction has beyond it.

    Where the grids differ, the prediction is resampled (nearest neighbour) onto the reference's grid and a warning says
    so. Raises ``InputError`` when no organ is in both by name, alias or code, or two segments are the same organ.
    """
    options = options or CompareOptions()
    pairs = match(prediction.segments, reference.segments, only=options.organs, without=options.leave_out)
    warnings = list(_grid_warnings(prediction, reference))
    placed, expected = Boxed.of(_placed(prediction, reference.grid)), Boxed.of(reference)
    rows: list[OrganScores] = []
    with ThreadPoolExecutor(options.workers) as pool:
        jobs = pool.map(partial(_score_pair, placed, expected, options), pairs)
        for count, row in enumerate(jobs, start=1):
            rows.append(row)
            on_progress(count / len(pairs), f"Scored {row.organ}")
    scores = Scores(tuple(rows), options.tolerance_mm, reference.grid.diagonal_mm, tuple(warnings))
    if not options.check_placement or scores.mean()["dsc"] > _GOOD_ENOUGH:
        return scores
    unplaced = placed if prediction.grid.is_close(reference.grid) else Boxed.of(prediction)
    return replace(scores, warnings=(*scores.warnings, *suspicion(unplaced, expected, pairs)))


def pair_masks(
    prediction: Segmentation, reference: Segmentation, organs: Sequence[str]
) -> Iterator[tuple[str, tuple[Volume, Volume]]]:
    """Each organ's masks, prediction and reference, each on its own grid; empty where there is no such segment."""
    for pair in match(prediction.segments, reference.segments, only=organs):
        yield pair.name, (_mask(prediction, pair.prediction), _mask(reference, pair.reference))


def score_organ(organ: str, prediction: Mask, reference: Mask, grid: Grid, *, tolerance_mm: float = 2.0) -> OrganScores:
    """All metrics of one organ from two masks on one grid; cropping both to their union's box changes nothing."""
    if prediction.shape != grid.shape_kji or reference.shape != grid.shape_kji:
        raise GeometryMismatch(
            f"The masks of {organ} are {prediction.shape} and {reference.shape} but their grid is {grid.shape_kji}; "
            "resample the prediction onto the reference's grid."
        )
    volumes = metrics.volume_ml(reference, grid), metrics.volume_ml(prediction, grid)
    extra_ml = metrics.volume_ml(prediction & ~reference, grid)
    row = OrganScores(organ, *volumes, extra_ml)
    if not row.scored:
        return row
    row = replace(
        row,
        dsc=metrics.dsc(prediction, reference),
        iou=metrics.iou(prediction, reference),
        volume_error=metrics.relative_volume_error(prediction, reference),
        added_path_length_mm=metrics.added_path_length(prediction, reference, grid.spacing_mm),
    )
    if organ in ENDS_SET_BY_PROTOCOL:
        row = _with_restricted(row, *z_restricted(prediction, reference, grid), grid, tolerance_mm)
    if row.missed:
        return replace(row, surface_dsc=0.0)
    distances = surface_distances(prediction, reference, grid.spacing_mm)
    shift = metrics.centroid_shift_mm(prediction, reference, grid)
    return replace(
        row,
        hd_mm=metrics.hausdorff(distances),
        hd95_mm=metrics.hd95(distances),
        mean_surface_distance_mm=metrics.mean_surface_distance(distances),
        surface_dsc=metrics.surface_dsc(distances, tolerance_mm=tolerance_mm),
        centroid_shift_mm=float(np.linalg.norm(shift)),
        centroid_shift_lps_mm=shift,
    )


def z_restricted(mask: Mask, reference: Mask, grid: Grid) -> tuple[Mask, Mask]:
    """Both masks cropped to the slices, across the axis nearest to head–feet, in which the reference is present."""
    axis = 2 - int(np.abs(grid.axes[2]).argmax())
    others = tuple(n for n in range(3) if n != axis)
    present = np.flatnonzero(reference.any(axis=others))
    keep = slice(int(present[0]), int(present[-1]) + 1)
    box = tuple(keep if n == axis else slice(None) for n in range(3))
    return mask[box], reference[box]


def _with_restricted(
    row: OrganScores, prediction: Mask, reference: Mask, grid: Grid, tolerance_mm: float
) -> OrganScores:
    row = replace(row, z_restricted_dsc=metrics.dsc(prediction, reference))
    if not prediction.any():
        return replace(row, z_restricted_surface_dsc=0.0)
    distances = surface_distances(prediction, reference, grid.spacing_mm)
    return replace(
        row,
        z_restricted_hd95_mm=metrics.hd95(distances),
        z_restricted_surface_dsc=metrics.surface_dsc(distances, tolerance_mm=tolerance_mm),
    )


def _mask(segmentation: Segmentation, segment: Segment | None) -> Volume:
    if segment is None:
        return Volume(np.zeros(segmentation.grid.shape_kji, np.bool_), segmentation.grid)
    return segmentation.mask(segment.name)


def _score_pair(prediction: Boxed, reference: Boxed, options: CompareOptions, pair: Pair) -> OrganScores:
    box = union(prediction.box(pair.prediction), reference.box(pair.reference))
    if box is None:
        return OrganScores(pair.name, 0.0, 0.0, 0.0)
    return score_organ(
        pair.name,
        prediction.mask(pair.prediction, box),
        reference.mask(pair.reference, box),
        cropped(reference.grid, box),
        tolerance_mm=options.tolerance_mm,
    )


def _placed(segmentation: Segmentation, grid: Grid) -> Segmentation:
    """The segmentation on that grid; layers that are there already are not copied."""
    layers = tuple(
        Volume(layer.array_kji, grid) if layer.grid.is_close(grid) else resample(layer, grid, interpolation="nearest")
        for layer in segmentation.layers
    )
    return replace(segmentation, layers=layers)


def _grid_warnings(prediction: Segmentation, reference: Segmentation) -> Iterable[str]:
    mine, theirs = prediction.grid, reference.grid
    if not mine.is_close(theirs):
        yield (
            f"The prediction's grid ({_grid_text(mine)}) is not the reference's ({_grid_text(theirs)}): "
            "it was resampled onto the reference's grid by nearest neighbour."
        )


def _grid_text(grid: Grid) -> str:
    size, spacing = "×".join(map(str, grid.size_ijk)), "×".join(f"{mm:.4g}" for mm in grid.spacing_mm)
    x, y, z = grid.origin_lps
    return f"{size} voxels of {spacing} mm from ({x:.1f}, {y:.1f}, {z:.1f})"
