"""What scanners add to images: metal streaks in the CT, a bias field in the MR."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.transforms import RandBiasField
from torch import Tensor

from hnseg_training.config import AugmentationConfig

_MR_MEAN = 2.0
"""How many deviations the MR's tissue lies above zero signal; a bias field multiplies the signal, not the z-score."""


@dataclass(frozen=True, slots=True)
class Streaks:
    """Beams from a metal part at ``centre_kji`` (voxels): angle (radians), width (radians) and HU of each.

    They fade over ``reach`` voxels along the beam and over ``thickness`` slices.
    """

    centre_kji: tuple[float, float, float]
    angles: tuple[float, ...]
    widths: tuple[float, ...]
    hu: tuple[float, ...]
    reach: float
    thickness: float


def draw_streaks(
    rng: np.random.Generator, config: AugmentationConfig, size_kji: tuple[int, int, int]
) -> Streaks | None:
    """Where and how strong, or None."""
    if not config.streak_probability or rng.random() >= config.streak_probability:
        return None
    k, j, i = (float(rng.uniform(0, n)) for n in size_kji)
    beams = int(rng.integers(6, 14))
    return Streaks(
        centre_kji=(k, j, i),
        angles=tuple(rng.uniform(-np.pi, np.pi, beams)),
        widths=tuple(rng.uniform(0.03, 0.12, beams)),
        hu=tuple(rng.normal(0.0, config.streak_hu, beams)),
        reach=float(rng.uniform(0.2, 0.6)) * max(size_kji[1:]),
        thickness=float(rng.uniform(1.0, 4.0)),
    )


def streak_field(streaks: Streaks, size_kji: tuple[int, int, int]) -> Tensor:
    """HU that the streaks add to each voxel, (K, J, I)."""
    k, j, i = (torch.arange(n) - c for n, c in zip(size_kji, streaks.centre_kji, strict=True))
    angle = torch.atan2(j[:, None], i[None, :])
    plane = torch.zeros(size_kji[1:])
    for direction, width, hu in zip(streaks.angles, streaks.widths, streaks.hu, strict=True):
        off = torch.remainder(angle - direction + np.pi, 2 * np.pi) - np.pi
        plane += hu * torch.exp(-((off / width) ** 2))
    plane *= torch.exp(-torch.hypot(*torch.meshgrid(j, i, indexing="ij")) / streaks.reach)
    return torch.exp(-((k / streaks.thickness) ** 2))[:, None, None] * plane


def apply_streaks(image: Tensor, streaks: Streaks, windows_hu: tuple[tuple[float, float], ...]) -> Tensor:
    """(C, K, J, I) with the streaks added to the CT's windows, which stay within −1…1."""
    k, j, i = image.shape[1:]
    field = streak_field(streaks, (k, j, i))
    changed = image.clone()
    for channel, (low, high) in enumerate(windows_hu):
        changed[channel] = (changed[channel] + field * (2.0 / (high - low))).clamp(-1.0, 1.0)
    return changed


def apply_bias(image: Tensor, rng: np.random.Generator, config: AugmentationConfig) -> Tensor:
    """(C, K, J, I) whose MR, with ``bias_probability``, gets MONAI's bias field; invalid voxels stay 0."""
    if not config.bias_probability or rng.random() >= config.bias_probability:
        return image
    bias = RandBiasField(prob=1.0, coeff_range=(-config.bias, config.bias)).set_random_state(int(rng.integers(2**31)))
    changed = image.clone()
    changed[-2] = (torch.as_tensor(bias(changed[-2:-1] + _MR_MEAN))[0] - _MR_MEAN) * changed[-1]
    return changed
