"""2D and 2.5D networks on volumes: each slice is segmented from itself and its neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnseg.errors import ConfigError


class Planar(nn.Module):
    """A 2D network applied to every slice k, with ``slices`` neighbouring ones (odd) as channels.

    ``network``: (N, slices·C, J, I) → (N, classes, J, I). Input (B, C, K, J, I), logits (B, classes, K, J, I).
    Beyond the first and last slice the end one is repeated. ``divisor``: what K, J and I must be multiples of.
    """

    def __init__(self, network: nn.Module, *, slices: int, divisor_ji: int) -> None:
        super().__init__()
        self.network = network
        self.slices = slices
        self.divisor = (1, divisor_ji, divisor_ji)

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the input's resolution."""
        batch, _, depth, height, width = image.shape
        reach = self.slices // 2
        padded = F.pad(image, (0, 0, 0, 0, reach, reach), mode="replicate") if reach else image
        stacked = torch.cat([padded[:, :, n : n + depth] for n in range(self.slices)], dim=1)
        planes = stacked.transpose(1, 2).reshape(batch * depth, -1, height, width)
        logits: Tensor = self.network(planes)
        return logits.reshape(batch, depth, -1, height, width).transpose(1, 2)


def check_slices(slices: int) -> None:
    """``ConfigError`` unless the number of slices is odd, so that there is a middle one."""
    if slices < 1 or slices % 2 == 0:
        raise ConfigError(f"A 2.5D network sees an odd number of slices, got {slices}; 1 is 2D, 3 is usual.")
