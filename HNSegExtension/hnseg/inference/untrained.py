"""Classes that a network has and that nothing taught it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn


class UntrainedAsBackground(nn.Module):
    """A network whose untrained classes count as background, as they did in training.

    There, nothing tells an organ that nobody drew from the background: only the sum of their probabilities is learnt.
    """

    def __init__(self, network: nn.Module, untrained: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self._untrained = list(untrained)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, K, J, I) to logits (B, classes, K, J, I), those of untrained classes −∞."""
        logits: Tensor = self.network(image).float().clone()
        logits[:, 0] = torch.logsumexp(logits[:, [0, *self._untrained]], dim=1)
        logits[:, self._untrained] = -torch.inf
        return logits


def without_untrained(network: nn.Module, labels: Sequence[str], trained: Collection[str]) -> nn.Module:
    """The network, with its classes (background first) that are not ``trained`` as background; empty means all are."""
    untrained = [n for n, name in enumerate(labels) if n and trained and name not in trained]
    return UntrainedAsBackground(network, untrained) if untrained else network
