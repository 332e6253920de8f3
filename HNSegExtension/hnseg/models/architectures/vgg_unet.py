"""3D U-Net with an encoder in the style of VGG16 (Simonyan and Zisserman 2014, arXiv:1409.1556)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hnseg.models.architectures.blocks import Decoder, Encoder

_CONVOLUTIONS = (2, 2, 3, 3, 3)


class VGGUNet(nn.Module):
    """VGG16's five stages in 3D, two centre convolutions below the last pooling, and a U-Net decoder.

    ``filters``: widths of the five stages and of the centre; ``decoder_filters``: of the five decoder levels, finest
    first. Input (B, C, K, J, I) with K, J, I multiples of 32.
    """

    divisor = (32, 32, 32)

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        filters: Sequence[int] = (64, 128, 256, 512, 512, 512),
        decoder_filters: Sequence[int] = (16, 32, 64, 128, 256),
        norm: str = "batch",
    ) -> None:
        super().__init__()
        self.encoder = Encoder(in_channels, filters, (*_CONVOLUTIONS, 2), norm=norm)
        self.decoder = Decoder(filters, decoder_filters, norm=norm)
        self.head = nn.Conv3d(decoder_filters[0], out_channels, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the input's resolution."""
        logits: Tensor = self.head(self.decoder(self.encoder(image)))
        return logits
