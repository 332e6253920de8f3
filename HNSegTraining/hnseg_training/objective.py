"""What training minimises: a weighted sum of MONAI's losses, each of which knows that some organs were not drawn.

Organs that nobody drew are merged with the background, and organs that were drawn as one with each other, before any
loss sees them: its logits are the logarithms of the merged classes' probabilities (marginal loss, Shi et al. 2021,
doi:10.1016/j.media.2021.101979). So no loss can push an undrawn organ down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from monai.losses import BoundaryLoss, DiceLoss, FocalLoss, GeneralizedDiceLoss
from torch import Tensor, nn

from hnseg_training.config import LossConfig
from hnseg_training.losses import dice_cross_entropy

Term = Callable[[Tensor, Tensor, Tensor], Tensor]


def merge_classes(logits: Tensor, labels: Tensor, merge: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities (1, D, …) of the D classes told apart, labels (1, 1, …) among them, and which they are.

    ``logits`` (C, …), ``labels`` (…), both of one sample; ``merge`` (C,): the class that each class counts as.
    """
    kept, group = torch.unique(merge, return_inverse=True)
    log_p = logits.log_softmax(dim=0)
    if len(kept) < len(merge):
        log_p = torch.stack([log_p[group == n].logsumexp(dim=0) for n in range(len(kept))])
    return log_p[None], torch.searchsorted(kept, labels)[None, None], kept


class Objective(nn.Module):
    """The loss of one sample, as the configuration says.

    ``class_weights`` (C,) multiplies the entropies. With ``planar`` the slices are samples of their own for the losses
    that measure in space, as for a network that sees slices.
    """

    class_weights: Tensor

    def __init__(self, config: LossConfig, class_weights: Tensor, *, planar: bool) -> None:
        super().__init__()
        self.config = config
        self.planar = planar
        self.register_buffer("class_weights", class_weights)
        self.dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, smooth_nr=1.0, smooth_dr=1.0)
        self.generalised_dice = GeneralizedDiceLoss(to_onehot_y=True, softmax=True)
        self.surface = BoundaryLoss(include_background=False, to_onehot_y=True, softmax=True)
        self.terms: Mapping[str, Term] = {
            "cross_entropy": self._cross_entropy,
            "focal": self._focal,
            "soft_dice": lambda log_p, labels, kept: self.dice(log_p, labels),
            "generalised_dice": lambda log_p, labels, kept: self.generalised_dice(log_p, labels),
            "boundary": self._boundary,
        }

    @property
    def measures_in_space(self) -> bool:
        """Whether a term depends on where voxels lie."""
        return "boundary" in self.weights(0.5)

    def forward(self, logits: Tensor, labels: Tensor, merge: Tensor, progress: float) -> dict[str, Tensor]:
        """Each term, weighted, by name; their sum is the loss.

        ``logits`` (C, K, J, I), ``labels`` (K, J, I) int64 classes, merged already, ``merge`` (C,); ``progress`` in
        0…1 is how much of the training is done.
        """
        found: dict[str, Tensor] = {}
        merged: tuple[Tensor, Tensor, Tensor] | None = None
        for name, weight in self.weights(progress).items():
            if name == "dice_cross_entropy":
                flat = logits.flatten(1).transpose(0, 1)
                dice, entropy = dice_cross_entropy(flat, labels.flatten(), merge, self.class_weights)
                found |= {"dice_loss": weight * dice, "cross_entropy": weight * entropy}
            elif weight:
                merged = merged or merge_classes(logits.float(), labels, merge)
                told = len(merged[2]) > 1  # else nobody drew anything, and there is nothing to learn
                found[name] = weight * self.terms[name](*merged) if told else 0.0 * logits.sum()
        return found

    def weights(self, progress: float) -> dict[str, float]:
        """The terms' weights when ``progress`` of the training is done, on a line from ``terms`` to ``final_terms``."""
        first = self.config.terms
        last = self.config.final_terms or first
        names = dict.fromkeys((*first, *last))
        return {name: (1 - progress) * first.get(name, 0.0) + progress * last.get(name, 0.0) for name in names}

    def _cross_entropy(self, log_p: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        return nn.functional.nll_loss(log_p, labels[:, 0], weight=self.class_weights[kept])

    def _focal(self, log_p: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        """MONAI's mean is over voxels and classes; times the classes it is one over voxels, as cross-entropy's is."""
        focal = FocalLoss(
            to_onehot_y=True, use_softmax=True, gamma=self.config.gamma, weight=self.class_weights[kept]
        ).to(log_p.device)
        loss: Tensor = focal(log_p, labels) * len(kept)
        return loss

    def _boundary(self, log_p: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        if self.planar:
            log_p, labels = log_p[0].transpose(0, 1), labels[0].transpose(0, 1)
        loss: Tensor = self.surface(log_p, labels)
        return loss


def adapted_weights(weights: Tensor, dice: Tensor) -> Tensor:
    """Class weights (C,) multiplied by 1.5 − DSC (C,; nan where an organ was not seen), with their mean kept.

    An organ that is perfect keeps a third of the weight of one that fails; organs that were not seen keep theirs.
    """
    factor = torch.where(dice.isnan(), torch.ones_like(dice), 1.5 - dice)
    adapted = weights * factor
    return adapted * (weights.mean() / adapted.mean())
