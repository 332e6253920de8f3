"""Test-time augmentation: each window is also seen in a mirror, where left organs are right ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hnseg.models.ensemble import log_mean
from hnseg.organs import swap_sides


class Mirrored(nn.Module):
    """A network whose answer is the mean over a window and its left-right mirror image, twice the work.

    The working grid's i axis runs nearest to the patient's left, so the mirror is a flip of the last axis. In the
    mirrored answer the classes of paired organs change places. ``labels``: the label of each class. Returns the
    logarithm of the mean probability, whose softmax is that mean.
    """

    def __init__(self, network: nn.Module, labels: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self._other_side = other_side(labels)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, K, J, I) to log-probabilities (B, classes, K, J, I)."""
        seen = torch.softmax(self.network(image).float(), dim=1)
        mirrored = torch.softmax(self.network(image.flip(-1)).float(), dim=1)
        return log_mean((seen, mirrored.flip(-1)[:, self._other_side]))


def other_side(labels: Sequence[int]) -> list[int]:
    """For each class its partner's; itself where it has none, or where the model does not know the partner."""
    known = {label: n for n, label in enumerate(labels)}
    return [known.get(swap_sides(label), n) for n, label in enumerate(labels)]
