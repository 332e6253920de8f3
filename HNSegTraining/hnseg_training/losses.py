"""Losses on sub-voxel logits, and on partially annotated patches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hnseg.organs import ORGANS

_ROWS = 1 << 13


def class_weights(power: float = 0.4) -> Tensor:
    """(31,) cross-entropy weights, (median volume ÷ organ volume)^power within 0.5…5; background 0.5."""
    volumes = np.array([organ.typical_ml for organ in ORGANS])
    weights = np.clip((np.median(volumes) / volumes) ** power, 0.5, 5.0)
    return torch.tensor([0.5, *weights], dtype=torch.float32)


def dice_cross_entropy(logits: Tensor, labels: Tensor, merge: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """1 − mean soft Dice of the structures present, and weighted cross-entropy; logits (N, classes), labels (N,).

    ``merge`` (classes,) names the class that each class counts as: itself where somebody drew it, 0 where nobody did,
    and one member for all organs that were drawn as one structure. What is merged shares the sum of its probabilities
    (marginal loss, Shi et al. 2021, doi:10.1016/j.media.2021.101979), so no unlabelled organ is pushed down and the
    parts of a union are free to share it. ``labels`` are merged already. Without any structure present the Dice part
    is 0.
    """
    losses: tuple[Tensor, Tensor] = _DiceCrossEntropy.apply(logits, labels, merge, weights)  # type: ignore[no-untyped-call]
    return losses


class _DiceCrossEntropy(torch.autograd.Function):
    """The two losses with their gradient written out, a cache's worth of voxels at a time: no softmax is ever kept.

    With p the softmax, q its sums over merged classes, t_n = q at voxel n's label and Q_k the sum of q over voxels,
    both losses depend on q through t and Q alone: ∂L/∂q_nk = a_n·[k is n's label] + b_k, and p_c inherits from its q.
    The softmax's own rule gives ∂L/∂z = p·(∂L/∂p − Σ_c p·∂L/∂p).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, merge: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        sums = _membership(merge, weights)
        target, total = torch.empty_like(labels, dtype=weights.dtype), torch.zeros_like(weights)
        for z, here, out in _chunks(logits, labels, target):
            p = F.softmax(z.to(weights.dtype), dim=-1)
            q = p if sums is None else p @ sums
            out.copy_(q.gather(1, here[:, None])[:, 0])
            total += q.sum(dim=0)
        target.clamp_min_(1e-12)
        voxel_weights = weights[labels]
        cross_entropy = -(voxel_weights * target.log()).sum() / voxel_weights.sum()
        reference = torch.bincount(labels, minlength=len(weights))
        overlap = torch.zeros_like(weights).scatter_add(0, labels, target)
        present = reference > 0
        present[0] = False
        size = (reference + total).clamp_min(1e-6)
        structures = present.sum().clamp_min(1)
        dice = torch.where(present.any(), 1 - (2 * overlap / size)[present].sum() / structures, 0.0)
        ctx.save_for_backward(logits, labels, target, voxel_weights, merge, present, overlap, size)
        return dice, cross_entropy

    @staticmethod
    def backward(ctx: Any, dice_gradient: Tensor, entropy_gradient: Tensor) -> Any:
        logits, labels, target, voxel_weights, merge, present, overlap, size = ctx.saved_tensors
        sums = _membership(merge, size)
        share = dice_gradient * present / present.sum().clamp_min(1)
        per_class = share * 2 * overlap / size**2
        per_voxel = -entropy_gradient * voxel_weights / (voxel_weights.sum() * target) - (share * 2 / size)[labels]
        gradient = torch.empty_like(logits)
        for z, here, t, a, out in _chunks(logits, labels, target, per_voxel, gradient):
            p = F.softmax(z.to(size.dtype), dim=-1)
            of_p = per_class.repeat(len(z), 1).scatter_add_(1, here[:, None], a[:, None])
            of_p = of_p if sums is None else of_p.index_select(1, merge)
            of_p -= (a * t + p @ (per_class if sums is None else sums @ per_class))[:, None]
            out.copy_(of_p.mul_(p))
        return gradient, None, None, None


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors' rows, as many at a time as a CPU's cache holds; on other devices all at once."""
    rows = _ROWS if tensors[0].device.type == "cpu" else max(1, len(tensors[0]))
    return zip(*(torch.split(tensor, rows) for tensor in tensors), strict=True)


def _membership(merge: Tensor, like: Tensor) -> Tensor | None:
    """(classes, classes) that sums over the classes that count as one; None where each counts as itself."""
    if bool((merge == torch.arange(len(merge), device=merge.device)).all()):
        return None
    return F.one_hot(merge, len(merge)).to(like.dtype)
