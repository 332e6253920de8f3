"""3D U-Net with a ResNet18 as its encoder (He et al. 2016, doi:10.1109/CVPR.2016.90)."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets.flexible_unet import UNetDecoder
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn


class ResNetUNet(nn.Module):
    """MONAI's ResNet, untrained, and the decoder of its FlexibleUNet, whose encoders have one width only.

    ``filters``: widths of the four residual stages; ``decoder_filters``: of the decoder's levels, coarsest first. Input
    (B, C, K, J, I) with K, J, I multiples of 32.
    """

    divisor = (32, 32, 32)

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        filters: Sequence[int] = (64, 128, 256, 512),
        decoder_filters: Sequence[int] = (256, 128, 64, 32, 16),
    ) -> None:
        super().__init__()
        self.encoder = ResNet(
            "basic", [2, 2, 2, 2], list(filters), 3, in_channels, 7, 2, shortcut_type="B", feed_forward=False
        )
        widths = [in_channels, filters[0], *filters]
        self.decoder = UNetDecoder(
            3, widths, decoder_filters, ("relu", {"inplace": True}), ("batch", {}), 0.0, False, "nontrainable",
            pre_conv=None, interp_mode="nearest", align_corners=None, is_pad=False,
        )  # fmt: skip
        self.head = nn.Conv3d(decoder_filters[-1], out_channels, kernel_size=3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the input's resolution."""
        net = self.encoder
        features = [image, net.act(net.bn1(net.conv1(image)))]
        deeper = net.maxpool(features[-1])
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            deeper = stage(deeper)
            features.append(deeper)
        logits: Tensor = self.head(self.decoder(features, skip_connect=4))
        return logits
