"""Encoder and decoder of a 3D U-Net, from MONAI's blocks."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.blocks import Convolution
from monai.networks.nets.basic_unet import UpCat
from torch import Tensor, nn

ACTIVATION = ("LeakyReLU", {"negative_slope": 0.01, "inplace": True})
NORMS: dict[str, tuple[str, dict[str, bool]]] = {
    "instance": ("instance", {"affine": True}),
    "batch": ("batch", {}),
}


class Encoder(nn.Module):
    """``convolutions[n]`` convolutions at level n, max pooling between levels; gives every level's features."""

    def __init__(self, in_channels: int, filters: Sequence[int], convolutions: Sequence[int], *, norm: str) -> None:
        super().__init__()
        widths = [in_channels, *filters]
        self.levels = nn.ModuleList(
            nn.Sequential(
                *([nn.MaxPool3d(2)] if n else []),
                *(_convolution(widths[n] if first == 0 else filters[n], filters[n], norm) for first in range(count)),
            )
            for n, count in enumerate(convolutions)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, K, J, I) → features (B, filters[n], K/2ⁿ, J/2ⁿ, I/2ⁿ), finest first."""
        features = [image]
        for level in self.levels:
            features.append(level(features[-1]))
        return features[1:]


class Decoder(nn.Module):
    """From the coarsest features to the finest, with a skip connection at each level.

    ``filters``: widths of the features; ``outputs``: widths after each level of the decoder; both finest first.
    """

    def __init__(self, filters: Sequence[int], outputs: Sequence[int], *, norm: str) -> None:
        super().__init__()
        inner = [*outputs[1:], filters[-1]]
        self.levels = nn.ModuleList(
            UpCat(3, inner[n], filters[n], outputs[n], ACTIVATION, NORMS[norm], bias=True, dropout=0.0)
            for n in reversed(range(len(outputs)))
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features, finest first → (B, outputs[0], K, J, I)."""
        image = features[-1]
        for level, skip in zip(self.levels, reversed(features[:-1]), strict=True):
            image = level(image, skip)
        return image


def _convolution(in_channels: int, out_channels: int, norm: str) -> nn.Module:
    block: nn.Module = Convolution(3, in_channels, out_channels, act=ACTIVATION, norm=NORMS[norm])
    return block
