"""Augmentation of patches: sample, then apply. Left and right are different organs: a mirror swaps them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from hnseg.organs import ORGANS, swap_sides
from hnseg_training.config import AugmentationConfig

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Intensity:
    """Contrast and brightness by channel, noise deviation, and how coarse (1 = unchanged) the CT becomes."""

    contrast: tuple[float, ...]
    brightness: tuple[float, ...]
    noise: float
    coarser_kji: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ModalityLoss:
    """What befalls the MR: left out, cut below a slice, shifted (voxels), or turned about the middle."""

    drop: bool
    cut_below: int
    shift_kji: tuple[int, int, int]
    turn: Matrix | None = None


def draw_affine(
    rng: np.random.Generator, config: AugmentationConfig, spacing_kji: Matrix | None = None
) -> Matrix | None:
    """A 3×3 matrix from patch to source offsets (voxels, kji), or None. Its determinant is positive: no mirror.

    The turn is one of the patient (mm), so with unequal ``spacing_kji`` the matrix is none by itself.
    """
    if rng.random() >= config.affine_probability:
        return None
    angles = rng.uniform(-config.rotation_deg, config.rotation_deg, 3) * ((1, 0, 0) if config.in_plane else (1, 1, 1))
    zoom = np.exp(rng.uniform(-config.zoom, config.zoom, 3) * 0.4 + rng.uniform(-config.zoom, config.zoom) * 0.6)
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * zoom
    return _in_voxels(turn, np.ones(3) if spacing_kji is None else spacing_kji)


def draw_bend(
    rng: np.random.Generator, config: AugmentationConfig, size_kji: tuple[int, int, int], spacing_kji: Matrix
) -> Tensor | None:
    """Elastic or grid distortion, or None: displacements (3, knots…) in voxels (k, j, i) on a lattice."""
    elastic, either = config.elastic_probability, config.elastic_probability + config.grid_probability
    chance = rng.random() if either else 1.0
    if chance < elastic:
        return draw_elastic(rng, config, size_kji, spacing_kji)
    return draw_grid_distortion(rng, config, size_kji) if chance < either else None


def draw_elastic(
    rng: np.random.Generator, config: AugmentationConfig, size_kji: tuple[int, int, int], spacing_kji: Matrix
) -> Tensor:
    """Smooth displacements (3, knots…) in voxels (k, j, i) on a coarse lattice over the patch."""
    knots = np.maximum(np.ceil(np.asarray(size_kji) * spacing_kji / config.elastic_knots_mm), 1).astype(int) + 2
    moves_mm = rng.normal(0.0, config.elastic_mm, (3, *knots))
    return torch.as_tensor(moves_mm / spacing_kji[:, None, None, None], dtype=torch.float32)


def draw_grid_distortion(
    rng: np.random.Generator, config: AugmentationConfig, size_kji: tuple[int, int, int]
) -> Tensor:
    """Displacements (3, cells + 1, …) in voxels (k, j, i): along each axis cells widen and narrow, the ends stay."""
    cells = config.grid_cells
    regular = np.linspace(0.0, 1.0, cells + 1)
    moves = np.zeros((3, cells + 1, cells + 1, cells + 1))
    for axis in range(1 if config.in_plane else 0, 3):
        widths = 1.0 + rng.uniform(-config.grid_limit, config.grid_limit, cells)
        knots = np.append(0.0, np.cumsum(widths)) / widths.sum()
        along = [-1 if n == axis else 1 for n in range(3)]
        moves[axis] = ((knots - regular) * (size_kji[axis] - 1)).reshape(along)
    return torch.as_tensor(moves, dtype=torch.float32)


def draw_intensity(rng: np.random.Generator, config: AugmentationConfig, channels: int) -> Intensity:
    """Intensity changes; each channel has its own."""
    coarser = tuple(rng.uniform(1.0, 2.5, 3)) if rng.random() < config.blur_probability else (1.0, 1.0, 1.0)
    return Intensity(
        contrast=tuple(np.exp(rng.uniform(-config.contrast, config.contrast, channels))),
        brightness=tuple(rng.uniform(-config.brightness, config.brightness, channels)),
        noise=float(rng.uniform(0, config.noise)),
        coarser_kji=(float(coarser[0]), float(coarser[1]), float(coarser[2])),
    )


def draw_modality_loss(
    rng: np.random.Generator, config: AugmentationConfig, size_kji: tuple[int, int, int], spacing_kji: Matrix
) -> ModalityLoss:
    """Whether the MR is missing, cut or misaligned; shift and turn are the patient's (mm)."""
    k, j, i = (int(rng.integers(-reach, reach + 1)) for reach in np.rint(config.mr_shift_mm / spacing_kji).astype(int))
    cut = int(rng.integers(0, size_kji[0])) if rng.random() < config.mr_cut_probability else 0
    drop = bool(rng.random() < config.mr_dropout)
    return ModalityLoss(drop, cut, (k, j, i), _small_turn(rng, config.mr_turn_deg, spacing_kji))


def _small_turn(rng: np.random.Generator, degrees: float, spacing_kji: Matrix) -> Matrix | None:
    if not degrees:
        return None
    turn = Rotation.from_euler("xyz", rng.uniform(-degrees, degrees, 3), degrees=True).as_matrix()
    return _in_voxels(turn, spacing_kji)


def _in_voxels(matrix_mm: Matrix, spacing_kji: Matrix) -> Matrix:
    """The same map of the patient (mm) between voxel offsets."""
    return np.asarray(matrix_mm * spacing_kji / spacing_kji[:, None])


def mirror(image: Tensor, labels: Tensor, merge: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The patch as its mirror image across x, with left and right organs' labels swapped.

    ``image`` (C, K, J, I), ``labels`` (K, J, I), ``merge`` (31,): the label that each label counts as; axis I is x.
    """
    swap = torch.tensor([swap_sides(label) for label in range(len(ORGANS) + 1)])
    swapped = swap[merge[swap]]  # a swap is its own inverse
    return image.flip(-1), swap[labels.flip(-1).long()].to(labels.dtype), swapped


def apply_intensity(image: Tensor, change: Intensity, *, ct_channels: int, generator: torch.Generator) -> Tensor:
    """(C, K, J, I) with changed values; the last channel (MR valid) is kept and masks the MR."""
    changed = image.clone()
    if max(change.coarser_kji) > 1.0:
        changed[:ct_channels] = _coarsened(changed[:ct_channels], change.coarser_kji)
    for channel in range(image.shape[0] - 1):
        changed[channel] = changed[channel] * change.contrast[channel] + change.brightness[channel]
    noise = torch.randn(changed[:-1].shape, generator=generator)
    changed[:-1] += change.noise * noise
    changed[:ct_channels].clamp_(-1.0, 1.0)
    changed[ct_channels:-1] *= changed[-1:]
    return changed


def apply_modality_loss(image: Tensor, loss: ModalityLoss, *, ct_channels: int) -> Tensor:
    """(C, K, J, I) with the MR channels dropped, cut below slice ``cut_below``, shifted or turned."""
    changed = image.clone()
    if loss.drop:
        changed[ct_channels:] = 0
        return changed
    if loss.turn is not None:
        changed[ct_channels:] = _turned_mr(changed[ct_channels:], loss.turn)
    if any(loss.shift_kji):
        changed[ct_channels:] = _shifted(changed[ct_channels:], loss.shift_kji)
    changed[ct_channels:, : loss.cut_below] = 0
    return changed


def _shifted(mr: Tensor, shift_kji: tuple[int, int, int]) -> Tensor:
    """The MR moved by whole voxels; what comes in from beyond the patch is 0, and so is its valid mask."""
    moved = torch.zeros_like(mr)
    size = mr.shape[1:]
    target = tuple(slice(max(0, by), n + min(0, by)) for by, n in zip(shift_kji, size, strict=True))
    source = tuple(slice(max(0, -by), n + min(0, -by)) for by, n in zip(shift_kji, size, strict=True))
    if all(abs(by) < n for by, n in zip(shift_kji, size, strict=True)):
        moved[(slice(None), *target)] = mr[(slice(None), *source)]
    return moved


def _turned_mr(mr: Tensor, turn: Matrix) -> Tensor:
    """The MR with its valid mask, which stays one of zeros and ones."""
    k, j, i = mr.shape[1:]
    centre = (np.array([k, j, i]) - 1) / 2
    nothing = torch.zeros((k, j, i), dtype=torch.uint8)
    turned, _ = sample_affine(
        mr, nothing, centre_kji=centre, matrix=turn, size_kji=(k, j, i), fill=torch.zeros(len(mr))
    )
    valid = (turned[-1] > 0.999).to(mr.dtype)
    return torch.cat([turned[:-1] * valid, valid[None]])


def sample_affine(
    image: Tensor,
    labels: Tensor,
    *,
    centre_kji: Matrix,
    matrix: Matrix,
    size_kji: tuple[int, int, int],
    fill: Tensor,
    displacement: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A patch around ``centre_kji``, turned by ``matrix``: image linear, labels nearest, ``fill`` outside.

    ``displacement``: of ``draw_bend``; it moves where each voxel is read, after the turn.
    """
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in size_kji]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    source = offsets @ torch.as_tensor(matrix.T, dtype=torch.float32) + torch.as_tensor(centre_kji, dtype=torch.float32)
    if displacement is not None:
        smooth = F.interpolate(displacement[None], size=size_kji, mode="trilinear", align_corners=True)[0]
        source = source + smooth.permute(1, 2, 3, 0)
    extent = torch.tensor(image.shape[1:], dtype=torch.float32)
    normalised = ((2 * source + 1) / extent - 1).flip(-1)[None]
    inside = (normalised.abs() <= 1).all(dim=-1)
    shift = fill[:, None, None, None]
    turned = F.grid_sample((image - shift)[None], normalised, mode="bilinear", align_corners=False)[0] + shift
    nearest = F.grid_sample(labels[None, None].float(), normalised, mode="nearest", align_corners=False)[0, 0]
    return turned, torch.where(inside[0], nearest, torch.zeros(())).to(torch.uint8)


def _coarsened(image: Tensor, factor_kji: tuple[float, float, float]) -> Tensor:
    size = image.shape[1:]
    smaller = [max(1, round(n / f)) for n, f in zip(size, factor_kji, strict=True)]
    small = F.interpolate(image[None], size=smaller, mode="trilinear", align_corners=False)
    return F.interpolate(small, size=size, mode="trilinear", align_corners=False)[0]
