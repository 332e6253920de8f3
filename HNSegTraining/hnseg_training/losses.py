"""Losses on sub-voxel logits, and on partially annotated patches."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hnseg.organs import ORGANS


def class_weights(power: float = 0.3) -> Tensor:
    """(31,) cross-entropy weights, (median volume ÷ organ volume)^power within 0.5…3; background 0.5."""
    volumes = np.array([organ.typical_ml for organ in ORGANS])
    weights = np.clip((np.median(volumes) / volumes) ** power, 0.5, 3.0)
    return torch.tensor([0.5, *weights], dtype=torch.float32)


def merge_unannotated(logits: Tensor, annotated: Tensor) -> Tensor:
    """Logits (…, classes) where organs that nobody drew join the background: the marginal loss of Shi et al. 2021.

    (doi:10.1016/j.media.2021.101979). An unlabelled organ is thus never pushed towards the background.
    """
    if bool(annotated.all()):
        return logits
    background = torch.logsumexp(logits[..., ~annotated | _first(annotated)], dim=-1, keepdim=True)
    others = logits[..., 1:].masked_fill(~annotated[1:], -1e4)
    return torch.cat([background, others], dim=-1)


def dice_cross_entropy(logits: Tensor, labels: Tensor, annotated: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """1 − mean soft Dice of the organs present, and weighted cross-entropy; logits (N, classes), labels (N,)."""
    classes = logits.shape[-1]
    log_p = F.log_softmax(merge_unannotated(logits, annotated), dim=-1)
    log_true = log_p.gather(1, labels[:, None])[:, 0]
    voxel_weights = weights[labels]
    cross_entropy = -(voxel_weights * log_true).sum() / voxel_weights.sum()
    overlap = torch.zeros(classes, device=logits.device).scatter_add(0, labels, log_true.exp())
    reference = torch.bincount(labels, minlength=classes)
    predicted = log_p.exp().sum(dim=0)
    present = (reference > 0) & annotated
    present[0] = False
    if not bool(present.any()):
        return logits.new_zeros(()), cross_entropy
    dice = 2 * overlap[present] / (reference[present] + predicted[present]).clamp_min(1e-6)
    return 1 - dice.mean(), cross_entropy


def _first(like: Tensor) -> Tensor:
    mask = torch.zeros_like(like)
    mask[0] = True
    return mask
