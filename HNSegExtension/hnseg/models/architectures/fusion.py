"""CT and MR fused early, late or layer by layer (Zhang et al. 2021, doi:10.1016/j.imavis.2020.104042)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from hnseg.models.architectures.blocks import Decoder, Encoder

Fusion = Literal["early", "late", "layer"]


class FusionUNet(nn.Module):
    """A U-Net that meets the MR's channels at its input (early), at every level (layer) or at its output (late).

    ``ct_channels``: how many of ``in_channels`` belong to the CT; the rest is the MR with its valid mask. Early: one
    encoder and one decoder. Layer: an encoder each, whose features are joined level by level for one decoder. Late: an
    encoder and a decoder each; a convolution weighs their last features against each other.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        ct_channels: int = 2,
        fusion: Fusion = "layer",
        filters: Sequence[int] = (32, 64, 128, 256),
        norm: str = "instance",
    ) -> None:
        super().__init__()
        self.parts = [in_channels] if fusion == "early" else [ct_channels, in_channels - ct_channels]
        self.late = fusion == "late"
        joined = 2 if fusion == "layer" else 1
        self.divisor = (2 ** (len(filters) - 1),) * 3
        self.encoders = nn.ModuleList(Encoder(part, filters, [2] * len(filters), norm=norm) for part in self.parts)
        self.decoders = nn.ModuleList(
            Decoder([joined * width for width in filters], filters[:-1], norm=norm)
            for _ in (self.parts if self.late else [in_channels])
        )
        self.head = nn.Conv3d(filters[0] * len(self.decoders), out_channels, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, K, J, I) → logits (B, classes, K, J, I)."""
        streams = [
            encode(part) for encode, part in zip(self.encoders, torch.split(image, self.parts, dim=1), strict=True)
        ]
        if not self.late:
            streams = [[torch.cat(level, dim=1) for level in zip(*streams, strict=True)]]
        decoded = [decode(features) for decode, features in zip(self.decoders, streams, strict=True)]
        logits: Tensor = self.head(torch.cat(decoded, dim=1))
        return logits
