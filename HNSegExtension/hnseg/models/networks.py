"""Networks by name: what a bundle's metadata asks for, and nothing else."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.networks.nets import UNETR, BasicUNet, DynUNet, UNet
from monai.utils import OptionalImportError
from torch import Tensor, nn

from hnseg.errors import ConfigError
from hnseg.models.architectures.fusion import FusionUNet
from hnseg.models.architectures.planar import Planar, check_slices
from hnseg.models.architectures.resnet_unet import ResNetUNet
from hnseg.models.architectures.rrse_unet import RRSEUNet
from hnseg.models.architectures.vgg_unet import VGGUNet
from hnseg.plain import nearest

INSTANCE = ("INSTANCE", {"affine": True})


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
            norm_name=INSTANCE,
        )
        _norms_in_place(self.unet)
        _quick_convolutions(self.unet)

    def compile(self, *args: Any, **settings: Any) -> None:
        """As a module's own; of the layers that ``forward`` and ``voxel_logits`` share."""
        self.unet.skip_layers.compile(*args, **settings)

    def voxel_logits(self, image: Tensor) -> Tensor:
        """Logits (B, voxels, classes) in the order of ``voxel_order``: what losses want, without a copy of them."""
        head = self.unet.output_block.conv.conv
        features = self.unet.skip_layers(self._blocks(image)).permute(0, 2, 3, 4, 1)
        logits = nn.functional.linear(features, head.weight.flatten(1), head.bias)
        return logits.reshape(len(image), -1, self.out_channels)

    def voxel_order(self, values: Tensor) -> Tensor:
        """(B, K, J, I) values of voxels as (B, voxels), block by block."""
        return pixel_unshuffle(values[:, None], self.factor).permute(0, 2, 3, 4, 1).flatten(1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the input's resolution."""
        return pixel_shuffle(self.unet(self._blocks(image)), self.factor)

    def _blocks(self, image: Tensor) -> Tensor:
        return pixel_unshuffle(image, self.factor).contiguous(memory_format=torch.channels_last_3d)


def unet2d(
    *,
    in_channels: int,
    out_channels: int,
    filters: Sequence[int] = (64, 128, 256, 512, 1024),
    slices: int = 1,
    norm: str = "batch",
) -> nn.Module:
    """MONAI's plain U-Net of five levels on slices (Falk et al. 2019); with ``slices`` 3 a 2.5D one."""
    check_slices(slices)
    network = BasicUNet(2, in_channels * slices, out_channels, features=(*filters, filters[0]), norm=norm)
    return Planar(network, slices=slices, divisor_ji=16)


def resunet2d(
    *,
    in_channels: int,
    out_channels: int,
    filters: Sequence[int] = (32, 64, 128, 256, 512),
    residual_units: int = 2,
    slices: int = 1,
    norm: str = "batch",
) -> nn.Module:
    """MONAI's U-Net with residual units (Kerfoot et al. 2019) on slices; 0 units make it plain."""
    check_slices(slices)
    strides = [2] * (len(filters) - 1)
    network = UNet(2, in_channels * slices, out_channels, filters, strides, num_res_units=residual_units, norm=norm)
    return Planar(network, slices=slices, divisor_ji=2 ** len(strides))


def res3dunet(
    *,
    in_channels: int,
    out_channels: int,
    filters: Sequence[int] = (32, 64, 128, 256),
    residual_units: int = 2,
    norm: str = "instance",
) -> nn.Module:
    """MONAI's U-Net with residual units in 3D."""
    strides = [2] * (len(filters) - 1)
    network = UNet(3, in_channels, out_channels, filters, strides, num_res_units=residual_units, norm=norm)
    return _divisible(network, 2 ** len(strides))


def unetr(
    *,
    in_channels: int,
    out_channels: int,
    patch_kji: Sequence[int],
    filters: int = 16,
    hidden: int = 768,
    mlp: int = 3072,
    heads: int = 12,
) -> nn.Module:
    """MONAI's UNETR (Hatamizadeh et al. 2022, arXiv:2103.10504) for patches of exactly ``patch_kji``."""
    try:
        network = UNETR(in_channels, out_channels, patch_kji, filters, hidden_size=hidden, mlp_dim=mlp, num_heads=heads)
    except OptionalImportError as error:
        raise ConfigError("MONAI's UNETR needs einops, which is not installed; run `pip install einops`.") from error
    for block in network.vit.blocks:
        block.norm_cross_attn.requires_grad_(False)  # MONAI builds and never uses it; DDP would wait for its gradient
    return _divisible(network, 16)


def nnunet(
    *,
    in_channels: int,
    out_channels: int,
    filters: Sequence[int] = (32, 64, 128, 256, 320, 320),
    strides: Sequence[Sequence[int]] = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
    kernels: Sequence[Sequence[int]] | None = None,
    trans_bias: bool = False,
) -> nn.Module:
    """MONAI's DynUNet, laid out as nnU-Net plans its 3D full-resolution network (Isensee et al. 2021).

    ``kernels``: sizes per level, None is 3 throughout. ``trans_bias``: transposed convolutions have a bias, as in
    nnU-Net v2.
    """
    sizes = kernels or [(3, 3, 3)] * len(filters)
    network = DynUNet(
        3, in_channels, out_channels, sizes, strides, strides[1:], filters, norm_name=INSTANCE, trans_bias=trans_bias
    )
    _norms_in_place(network)
    _quick_convolutions(network)
    k, j, i = (math.prod(axis) for axis in zip(*strides, strict=True))
    return _divisible(network, (k, j, i))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "subpixel_unet": SubpixelUNet,
    "unet2d": unet2d,
    "resunet2d": resunet2d,
    "vgg16_unet": VGGUNet,
    "resnet18_unet": ResNetUNet,
    "res3dunet": res3dunet,
    "unetr": unetr,
    "rrse_unet": RRSEUNet,
    "nnunet": nnunet,
    "fusion_unet": FusionUNet,
}


def _divisible(network: nn.Module, divisor: int | tuple[int, int, int]) -> nn.Module:
    """The network, which now says what K, J and I must be multiples of."""
    network.divisor = (divisor,) * 3 if isinstance(divisor, int) else divisor  # type: ignore[assignment]
    return network


def build_network(name: str, **arguments: Any) -> nn.Module:
    """The network of that name.

    Raises ``ConfigError`` for an unknown name or argument, with the nearest known one, and for values that do not make
    a network.
    """
    if name not in NETWORKS:
        raise ConfigError(f"No network is called {name!r}; {nearest(name, NETWORKS)}")
    known = inspect.signature(NETWORKS[name]).parameters
    for argument in arguments:
        if argument not in known:
            raise ConfigError(f"The network {name!r} takes no {argument!r}; {nearest(argument, known)}")
    try:
        return NETWORKS[name](**arguments)
    except (ValueError, TypeError, AssertionError, IndexError) as error:
        given = ", ".join(f"{argument} = {value}" for argument, value in arguments.items())
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ConfigError(f"The network {name!r} cannot be built with {given}: {reason}; correct these.") from error


class _NormInPlace(nn.GroupNorm):
    """In training on a CPU in float32 also under autocast: its bfloat16 gradient takes three times as long."""

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, …) → the same shape and type."""
        return super().forward(image.float() if _is_trained_on_cpu(image) else image).to(image.dtype)


def _is_trained_on_cpu(image: Tensor) -> bool:
    return image.device.type == "cpu" and torch.is_grad_enabled()


def _norms_in_place(module: nn.Module) -> None:
    """Instance norms as group norms of one channel each: the same values and weights, but torch computes them in
    channels-last layout without copying the image there and back.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.InstanceNorm3d):
            channels = child.num_features
            setattr(module, name, _NormInPlace(channels, channels, eps=child.eps, affine=True))
        else:
            _norms_in_place(child)


class _QuickConv3d(nn.Conv3d):
    """The same convolution, kept off torch's slow paths on a CPU.

    A 1×1×1 one is a matrix product over channels-last voxels; as a convolution torch would first copy the image to
    channels-first. Its result is channels-first, which the pixel-shuffle reads several times faster. For one small
    image torch leaves oneDNN for an im2col convolution that is several times slower (``use_mkldnn`` in ATen's
    Convolution.cpp: float32, a batch of 1 whose size without the last axis is at most 20480); for two it never does.
    """

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, K, J, I) → (B, D, K', J', I')."""
        if self.kernel_size == (1, 1, 1) and self.stride == (1, 1, 1):
            product = torch.matmul(self.weight.flatten(1), image.flatten(2))
            if self.bias is not None:
                product += self.bias.to(product.dtype)[:, None]
            return product.view(len(image), -1, *image.shape[2:])
        if not _leaves_onednn(image):
            return super().forward(image)
        return super().forward(image.expand(2, *image.shape[1:]))[:1]


def _leaves_onednn(image: Tensor) -> bool:
    short = torch.is_autocast_enabled("cpu") or image.dtype != torch.float32
    return image.device.type == "cpu" and not short and len(image) == 1 and image[..., 0].numel() <= 20480


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
