"""RRSE U-Net: squeeze-and-excitation normalisation and residual recurrent convolutions, for PET/CT and CT/MR.

SE normalisation and the upsampling pathway: Iantsen et al. 2021 (arXiv:2102.10446); recurrent residual blocks: Alom et
al. 2018 (arXiv:1802.06955).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_REDUCTION = 2
_NORMS: dict[str, type[nn.Module]] = {"instance": nn.InstanceNorm3d, "batch": nn.BatchNorm3d}


class SENorm(nn.Module):
    """Normalisation whose scale (sigmoid) and shift (tanh) are computed from the image's own channel means."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.norm = _NORMS[norm](channels, affine=False)
        self.scale = nn.Sequential(_excitation(channels), nn.Sigmoid())
        self.shift = nn.Sequential(_excitation(channels), nn.Tanh())

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, K, J, I) → the same shape."""
        squeezed = image.mean(dim=(2, 3, 4))[..., None, None, None]
        normalised: Tensor = self.norm(image) * self.scale(squeezed) + self.shift(squeezed)
        return normalised


class RecurrentBlock(nn.Module):
    """A convolution applied ``steps`` + 1 times, each time to the input plus its last output; residual."""

    def __init__(self, channels: int, norm: str, steps: int = 2) -> None:
        super().__init__()
        self.steps = steps
        self.layer = _layer(channels, channels, norm)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, K, J, I) → the same shape."""
        state = self.layer(image)
        for _ in range(self.steps):
            state = self.layer(image + state)
        result: Tensor = image + state
        return result


class ResidualBlock(nn.Module):
    """Two convolutions with SE normalisation beside a 1×1×1 one."""

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.body = nn.Sequential(_layer(in_channels, out_channels, norm), _layer(out_channels, out_channels, norm))
        self.shortcut = nn.Sequential(nn.Conv3d(in_channels, out_channels, 1), SENorm(out_channels, norm))

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, K, J, I) → (B, D, K, J, I)."""
        result: Tensor = self.body(image) + self.shortcut(image)
        return result


class RRSEUNet(nn.Module):
    """Residual U-Net with SE normalisation.

    ``recurrent``: where a recurrent block follows each level's convolutions. ``upsampling_pathway``: every decoder
    level's features, brought to full size, are added before the last convolution. ``norm``: what SE normalisation is
    built on. K, J, I are multiples of 2^(levels − 1).
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        filters: Sequence[int] = (16, 32, 64, 128, 256),
        recurrent: Literal["none", "encoder", "both"] = "encoder",
        upsampling_pathway: bool = True,
        norm: Literal["instance", "batch"] = "instance",
    ) -> None:
        super().__init__()
        self.divisor = (2 ** (len(filters) - 1),) * 3
        widths = [in_channels, *filters]
        self.encoder = nn.ModuleList(
            _level(widths[n], widths[n + 1], norm, recurrent=recurrent != "none") for n in range(len(filters))
        )
        ups = list(reversed(filters))
        self.ups = nn.ModuleList(nn.ConvTranspose3d(a, b, 2, stride=2) for a, b in pairwise(ups))
        self.decoder = nn.ModuleList(_level(2 * b, b, norm, recurrent=recurrent == "both") for b in ups[1:])
        self.pathway = nn.ModuleList(
            nn.Conv3d(width, filters[0], 1) for width in (ups[1:-1] if upsampling_pathway else [])
        )
        self.head = nn.Conv3d(filters[0], out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, K, J, I) → logits (B, classes, K, J, I)."""
        features = []
        for n, level in enumerate(self.encoder):
            image = level(F.max_pool3d(image, 2) if n else image)
            features.append(image)
        decoded = []
        for up, level, skip in zip(self.ups, self.decoder, reversed(features[:-1]), strict=True):
            image = level(torch.cat([up(image), skip], dim=1))
            decoded.append(image)
        for bring, coarse in zip(self.pathway, decoded, strict=False):  # no pathway: nothing to bring
            image = image + F.interpolate(bring(coarse), size=image.shape[2:], mode="trilinear", align_corners=False)
        logits: Tensor = self.head(image)
        return logits


def _excitation(channels: int) -> nn.Module:
    inner = max(1, channels // _REDUCTION)
    return nn.Sequential(nn.Conv3d(channels, inner, 1), nn.ReLU(), nn.Conv3d(inner, channels, 1))


def _layer(in_channels: int, out_channels: int, norm: str) -> nn.Module:
    return nn.Sequential(nn.Conv3d(in_channels, out_channels, 3, padding=1), nn.ReLU(), SENorm(out_channels, norm))


def _level(in_channels: int, out_channels: int, norm: str, *, recurrent: bool) -> nn.Module:
    block = ResidualBlock(in_channels, out_channels, norm)
    return nn.Sequential(block, RecurrentBlock(out_channels, norm)) if recurrent else block
