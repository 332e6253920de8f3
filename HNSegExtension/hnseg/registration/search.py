"""Where the MR lies in the CT, found without any start: mutual information at every translation at once.

For a fixed orientation the joint histograms of ALL translations are cross-correlations of class indicator images, which
the FFT gives exactly (Öfverstedt, Lindblad, Sladoje: Fast computation of mutual information in the frequency domain,
Pattern Recognition Letters 159, 2022). Orientations are tried on a lattice about the identity and the three half turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from hnseg.image.grid import Grid
from hnseg.registration.images import Prepared, grey_classes, on_grid
from hnseg.registration.poses import HALF_TURNS, Pose, degrees_between, inverse, mm_between, pose, rotation

CT_QUANTILES = (0.25, 0.55, 0.85)
MR_QUANTILES = (0.2, 0.4, 0.6, 0.8)
_TILT_DEGREES = 12.0
TILTS = (
    (0.0, 0.0, 0.0),
    *product((-_TILT_DEGREES, _TILT_DEGREES), repeat=3),
    *(tuple(s * 2 * _TILT_DEGREES * (a == b) for b in range(3)) for a in range(3) for s in (-1, 1)),
)
"""Degrees about x, y, z: a body-centred lattice, the sparsest that leaves no tilt within ±20° farther than 14°."""
SMALLEST_OVERLAP = 0.4
"""Of the smaller field of view. Less would be guesswork."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A pose (CT points → MR points) with its information, in nats times overlap in litres."""

    ct_to_mr: Pose
    information: float
    half_turn: int


def orientations() -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Index into ``HALF_TURNS`` and 3×3 rotation that is applied to the MR about its centre."""
    for index, (_, diagonal) in enumerate(HALF_TURNS):
        for tilt in TILTS:
            yield index, rotation(tilt) @ np.diag(diagonal)


def find_candidates(
    ct: Prepared,
    mr: Prepared,
    *,
    step_mm: float = 14.0,
    keep: int = 8,
    on_progress: Callable[[float, str], None] | None = None,
) -> tuple[Candidate, ...]:
    """The best distinct poses, best first; none closer to a better one than 3 steps and 20°."""
    ct, mr = ct.coarser(step_mm), mr.coarser(step_mm)
    fixed = _Fixed.of(ct, mr, step_mm)
    edges = grey_classes(mr, MR_QUANTILES)
    tried = list(orientations())
    found: list[Candidate] = []
    for n, (half_turn, turn) in enumerate(tried):
        if on_progress:
            on_progress(n / len(tried), "Searching where the MR lies in the CT")
        found.extend(_best_translations(fixed, mr, turn, half_turn, edges, step_mm))
    return _distinct(sorted(found, key=lambda c: -c.information), mr.grid, step_mm, keep)


@dataclass(frozen=True, slots=True, eq=False)
class _Fixed:
    grid: Grid
    spectra: NDArray[np.complex64]
    whole: NDArray[np.complex64]
    fft_shape: tuple[int, int, int]
    smallest: float

    @classmethod
    def of(cls, ct: Prepared, mr: Prepared, step_mm: float) -> _Fixed:
        grid = _box(ct.grid, step_mm)
        image = on_grid(ct, grid)
        # With this length, shifts that overlap by less than half the MR's extent are the only ones that wrap.
        reach = np.ceil(0.6 * _largest_turned_box(mr.grid, step_mm)).astype(int)
        i, j, k = (scipy.fft.next_fast_len(int(n), real=True) for n in grid.size_ijk + reach)
        shape = (k, j, i)
        spectra = _spectra(_indicators(image, grey_classes(ct, CT_QUANTILES)), shape)
        measured = min(float(v.valid.array_kji.sum()) * v.grid.voxel_ml for v in (ct, mr))
        return cls(grid, spectra, spectra.sum(axis=0), shape, SMALLEST_OVERLAP * measured / grid.voxel_ml)


def _largest_turned_box(grid: Grid, step_mm: float) -> NDArray[np.int_]:
    boxes = (_box(grid, step_mm, pose(turn, centre=grid.centre_lps)).size_ijk for _, turn in orientations())
    return np.asarray(np.max(list(boxes), axis=0))


def _spectra(images: NDArray[np.float32], shape: tuple[int, int, int]) -> NDArray[np.complex64]:
    return np.asarray(scipy.fft.rfftn(images, s=shape, axes=(1, 2, 3)))


def _best_translations(
    fixed: _Fixed, mr: Prepared, turn: NDArray[np.float64], half_turn: int, edges: NDArray[np.float64], step_mm: float
) -> Iterator[Candidate]:
    turned_pose = pose(turn, centre=mr.grid.centre_lps)
    box = _box(mr.grid, step_mm, turned_pose)
    moving = _indicators(on_grid(mr, box, inverse(turned_pose)), edges)
    information = _information_at_every_shift(fixed, moving) * fixed.grid.voxel_ml / 1000
    for shift_kji in _peaks(information):
        signed = np.where(shift_kji >= np.array(fixed.grid.shape_kji), shift_kji - np.array(fixed.fft_shape), shift_kji)
        target = fixed.grid.to_lps(signed[::-1])
        turned_to_ct = pose(np.eye(3), target - np.asarray(box.origin_lps))
        yield Candidate(inverse(turned_to_ct @ turned_pose), float(information[tuple(shift_kji)]), half_turn)


def _information_at_every_shift(fixed: _Fixed, moving: NDArray[np.float32]) -> NDArray[np.float32]:
    """Overlap in voxels times mutual information in nats: a log likelihood ratio against independence; 0 where the
    overlap is too small. Shifts wrap around ``fft_shape``.
    """
    spectra = np.conj(_spectra(moving, fixed.fft_shape))
    overlap = _correlation(fixed.whole * spectra.sum(axis=0), fixed.fft_shape).ravel()
    enough = np.flatnonzero(overlap >= fixed.smallest)
    by_ct = np.zeros((len(fixed.spectra), len(enough)), dtype=np.float32)
    information = np.zeros(len(enough), dtype=np.float32)
    for spectrum in spectra:
        joint = _correlation(fixed.spectra * spectrum, fixed.fft_shape).reshape(len(fixed.spectra), -1)[:, enough]
        by_ct += joint
        information += _xlogx(joint).sum(axis=0) - _xlogx(joint.sum(axis=0))
    information += _xlogx(overlap[enough]) - _xlogx(by_ct).sum(axis=0)
    everywhere = np.zeros(overlap.shape, dtype=np.float32)
    everywhere[enough] = information
    return everywhere.reshape(fixed.fft_shape)


def _correlation(product: NDArray[np.complex64], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    return np.asarray(scipy.fft.irfftn(product, s=shape, axes=(-3, -2, -1)), dtype=np.float32)


def _xlogx(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(x * np.log(np.maximum(x, np.float32(1e-3))), dtype=np.float32)


def _peaks(information: NDArray[np.floating], count: int = 2, clear: int = 3) -> Iterator[NDArray[np.intp]]:
    """The highest shifts, each at least ``clear`` voxels from a higher one."""
    rest = information.copy()
    for _ in range(count):
        peak = np.array(np.unravel_index(int(rest.argmax()), rest.shape))
        if rest[tuple(peak)] <= 0:
            return
        yield peak
        around = [np.arange(p - clear, p + clear + 1) % n for p, n in zip(peak, rest.shape, strict=True)]
        rest[np.ix_(*around)] = 0


def _indicators(image: Prepared, edges: NDArray[np.float64]) -> NDArray[np.float32]:
    """One image per class, 1 where a valid voxel is of the class."""
    classes = np.searchsorted(edges, image.values.array_kji)
    return np.stack([(classes == n) & image.valid.array_kji for n in range(len(edges) + 1)]).astype(np.float32)


def _box(grid: Grid, step_mm: float, turn: Pose | None = None) -> Grid:
    """Axis-aligned grid of cubes around the (turned) grid."""
    corners = grid.corners_lps()
    if turn is not None:
        corners = corners @ turn[:3, :3].T + turn[:3, 3]
    low, high = corners.min(axis=0), corners.max(axis=0)
    size = np.maximum(np.ceil((high - low) / step_mm).astype(int), 1)
    i, j, k = (int(n) for n in size)
    x, y, z = (low + high - (size - 1) * step_mm) / 2
    return Grid((i, j, k), (step_mm, step_mm, step_mm), (float(x), float(y), float(z)))


def _distinct(ordered: list[Candidate], grid: Grid, step_mm: float, keep: int) -> tuple[Candidate, ...]:
    chosen: list[Candidate] = []
    centre = grid.centre_lps[None]
    for candidate in ordered:
        back = inverse(candidate.ct_to_mr)
        if all(
            mm_between(back, inverse(other.ct_to_mr), centre) > 3 * step_mm
            or degrees_between(back, inverse(other.ct_to_mr)) > 20
            for other in chosen
        ):
            chosen.append(candidate)
        if len(chosen) == keep:
            break
    return tuple(chosen)
