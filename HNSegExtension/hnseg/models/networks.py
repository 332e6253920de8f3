"""Networks by name: what a bundle's metadata asks for, and nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from hnseg.errors import ConfigError
from hnseg.plain import nearest


def pixel_unshuffle(image: Tensor, factor: Sequence[int]) -> Tensor:
    """(B, C, K·a, J·b, I·c) → (B, C·abc, K, J, I): each block of voxels becomes channels, sub-voxel major."""
    a, b, c = factor
    batch, channels, k, j, i = image.shape
    blocks = image.reshape(batch, channels, k // a, a, j // b, b, i // c, c)
    return blocks.permute(0, 3, 5, 7, 1, 2, 4, 6).reshape(batch, a * b * c * channels, k // a, j // b, i // c)


def pixel_shuffle(image: Tensor, factor: Sequence[int]) -> Tensor:
    """The inverse of ``pixel_unshuffle``."""
    a, b, c = factor
    batch, channels, k, j, i = image.shape
    blocks = image.reshape(batch, a, b, c, channels // (a * b * c), k, j, i)
    return blocks.permute(0, 4, 5, 1, 6, 2, 7, 3).reshape(batch, -1, k * a, j * b, i * c)


class SubpixelUNet(nn.Module):
    """MONAI's DynUNet between a pixel-unshuffle and a pixel-shuffle (Shi et al. 2016, arXiv:1609.05158).

    The convolutions run on a grid that is ``factor`` times coarser, with every input voxel kept as a channel and every
    output voxel predicted on its own: about eight times less work than a U-Net of the same width at full resolution.
    Input (B, C, K, J, I), logits (B, classes, K, J, I); K, J, I divisible by ``divisor``.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        filters: Sequence[int] = (32, 64, 128, 192),
        factor: Sequence[int] = (2, 2, 2),
    ) -> None:
        super().__init__()
        self.factor = tuple(factor)
        self.out_channels = out_channels
        subvoxels = factor[0] * factor[1] * factor[2]
        levels = len(filters)
        self.divisor = tuple(f * 2 ** (levels - 1) for f in factor)
        self.unet = DynUNet(
            spatial_dims=3,
            in_channels=in_channels * subvoxels,
            out_channels=out_channels * subvoxels,
            kernel_size=[3] * levels,
            strides=[1] + [2] * (levels - 1),
            upsample_kernel_size=[2] * (levels - 1),
            filters=list(filters),
            norm_name=("INSTANCE", {"affine": True}),
        )
        _norms_in_place(self.unet)
        _quick_convolutions(self.unet)

    def subvoxel_logits(self, image: Tensor) -> Tensor:
        """Logits before the shuffle, (B, subvoxels·classes, K/a, J/b, I/c): what the training loss works on."""
        logits: Tensor = self.unet(pixel_unshuffle(image, self.factor).contiguous(memory_format=torch.channels_last_3d))
        return logits

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the input's resolution."""
        return pixel_shuffle(self.subvoxel_logits(image), self.factor)


NETWORKS: dict[str, Callable[..., nn.Module]] = {"subpixel_unet": SubpixelUNet}


def build_network(name: str, **arguments: Any) -> nn.Module:
    """The network of that name. Unknown names and arguments raise ``ConfigError`` with the nearest known one."""
    if name not in NETWORKS:
        raise ConfigError(f"No network is called {name!r}; {nearest(name, NETWORKS)}")
    known = inspect.signature(NETWORKS[name]).parameters
    for argument in arguments:
        if argument not in known:
            raise ConfigError(f"The network {name!r} takes no {argument!r}; {nearest(argument, known)}")
    return NETWORKS[name](**arguments)


def _norms_in_place(module: nn.Module) -> None:
    """Instance norms as group norms of one channel each: the same values and weights, but torch computes them in
    channels-last layout without copying the image there and back.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.InstanceNorm3d):
            channels = child.num_features
            setattr(module, name, nn.GroupNorm(channels, channels, eps=child.eps, affine=True))
        else:
            _norms_in_place(child)


class _QuickConv3d(nn.Conv3d):
    """The same convolution, kept off torch's slow paths on a CPU.

    A 1×1×1 one is a matrix product over channels-last voxels; as a convolution torch would first copy the image to
    channels-first. For one small image torch leaves oneDNN for an im2col convolution that is several times slower
    (``use_mkldnn`` in ATen's Convolution.cpp: a batch of 1 whose size without the last axis is at most 20480); for two
    it never does.
    """

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, K, J, I) → (B, D, K', J', I')."""
        if self.kernel_size == (1, 1, 1) and self.stride == (1, 1, 1):
            voxels = F.linear(image.permute(0, 2, 3, 4, 1), self.weight.flatten(1), self.bias)
            return voxels.permute(0, 4, 1, 2, 3)
        if image.device.type != "cpu" or len(image) > 1 or image[..., 0].numel() > 20480:
            return super().forward(image)
        return super().forward(image.expand(2, *image.shape[1:]))[:1]


def _quick_convolutions(module: nn.Module) -> None:
    """Convolutions replaced by ``_QuickConv3d`` with the same parameters."""
    for name, child in module.named_children():
        if type(child) is nn.Conv3d:
            quick = _QuickConv3d(
                child.in_channels,
                child.out_channels,
                _triple(child.kernel_size),
                _triple(child.stride),
                child.padding if isinstance(child.padding, str) else _triple(child.padding),
                bias=child.bias is not None,
            )
            quick.weight, quick.bias = child.weight, child.bias
            setattr(module, name, quick)
        else:
            _quick_convolutions(child)


def _triple(values: Sequence[int]) -> tuple[int, int, int]:
    a, b, c = values
    return a, b, c
