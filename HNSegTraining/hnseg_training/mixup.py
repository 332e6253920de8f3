"""Mixup of patches (Zhang et al. 2018, arXiv:1710.09412), evenly or with small organs preferred."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hnseg_training.config import LossConfig


@dataclass(frozen=True, slots=True)
class Mix:
    """Sample n becomes ``share`` of itself and 1 − ``share`` of sample ``partners[n]``."""

    share: float
    partners: tuple[int, ...]


def draw_mix(rng: np.random.Generator, config: LossConfig, labels: Tensor, class_weights: Tensor) -> Mix | None:
    """How a batch is mixed; None if it isn't.

    ``labels`` (B, K, J, I) classes. "weighted" draws each partner with a probability proportional to the largest of its
    classes' weights, so that patches with small organs are drawn more often.
    """
    if config.mixup == "none" or len(labels) < 2:
        return None
    share = float(rng.beta(config.mixup_alpha, config.mixup_alpha))
    if config.mixup == "plain":
        return Mix(share, tuple(int(n) for n in rng.permutation(len(labels))))
    rarity = np.array([float(class_weights[sample.unique()].max()) for sample in labels])
    chosen = rng.choice(len(labels), size=len(labels), p=rarity / rarity.sum())
    return Mix(share, tuple(int(n) for n in chosen))


def mixed(images: Tensor, mix: Mix) -> Tensor:
    """(B, C, K, J, I) blended as ``mix`` says."""
    return torch.lerp(images[list(mix.partners)], images, mix.share)
