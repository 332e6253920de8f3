"""Several networks that answer as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of its members' probabilities, or logits, those of a cross-validation's folds say."""

    def __init__(self, members: Sequence[nn.Module], *, of_logits: bool = False) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.of_logits = of_logits

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, K, J, I) to log-probabilities, or logits, (B, classes, K, J, I)."""
        if self.of_logits:
            return torch.stack([member(image).float() for member in self.members]).mean(dim=0)
        return log_mean(torch.softmax(member(image).float(), dim=1) for member in self.members)


def log_mean(probabilities: Iterable[Tensor]) -> Tensor:
    """Logarithm of the mean, whose softmax is that mean again; summed up in the first one as the others come."""
    others = iter(probabilities)
    total, count = next(others), 1
    for other in others:
        total += other
        count += 1
    # The smallest normal number keeps the logarithm finite where all are 0.
    return total.div_(count).clamp_(min=torch.finfo(torch.float32).tiny).log_()
