"""The published systems' networks: sizes, what they see of their input, and the claims of their descriptions."""

import pytest
import torch
from torch import nn

from hnseg.errors import ConfigError
from hnseg.models.architectures.planar import Planar
from hnseg.models.architectures.rrse_unet import RecurrentBlock, SENorm
from hnseg.models.networks import NETWORKS, build_network

SMALL = {
    "subpixel_unet": {"filters": [4, 8, 8]},
    "unet2d": {"filters": [4, 4, 8, 8, 8], "slices": 3},
    "resunet2d": {"filters": [4, 8, 8]},
    "vgg16_unet": {"filters": [4, 4, 8, 8, 8, 8], "decoder_filters": [4, 4, 8, 8, 8]},
    "resnet18_unet": {"filters": [4, 4, 8, 8], "decoder_filters": [8, 8, 4, 4, 4]},
    "res3dunet": {"filters": [4, 8, 8]},
    "unetr": {"patch_kji": [32, 64, 32], "filters": 4, "hidden": 24, "mlp": 32, "heads": 2},
    "rrse_unet": {"filters": [4, 8, 8]},
    "nnunet": {"filters": [4, 8, 8], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]},
    "fusion_unet": {"filters": [4, 8, 8]},
}


def image(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def test_every_network_has_an_example_here():
    assert set(SMALL) == set(NETWORKS)


@pytest.mark.parametrize("name", SMALL)
def test_logits_have_the_size_of_an_anisotropic_patch_and_every_weight_learns(name):
    network = build_network(name, in_channels=4, out_channels=5, **SMALL[name])
    patch = (32, 64, 32)
    assert all(n % d == 0 for n, d in zip(patch, network.divisor, strict=True))
    logits = network(image(1, 4, *patch))
    assert logits.shape == (1, 5, *patch)
    logits.square().sum().backward()
    idle = [key for key, weight in network.named_parameters() if weight.grad is None]
    assert not [key for key in idle if "vit" not in key], "MONAI's ViT holds a last norm that UNETR does not use"


def test_the_planar_u_net_has_the_widths_of_the_report():
    with torch.device("meta"):
        network = build_network("unet2d", in_channels=4, out_channels=31, slices=3)
    widths = {layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)}
    assert widths == {64, 128, 256, 512, 1024, 31}
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def test_two_and_a_half_dimensions_see_the_neighbours_and_nothing_beyond():
    class Mean(nn.Module):
        def forward(self, planes):
            return planes.mean(dim=1, keepdim=True)

    volume = torch.arange(5.0).reshape(1, 1, 5, 1, 1).expand(2, 1, 5, 2, 3)
    seen = Planar(Mean(), slices=3, divisor_ji=1)(volume)
    assert seen.shape == (2, 1, 5, 2, 3)
    expected = torch.tensor([1 / 3, 1, 2, 3, 11 / 3])  # the end slices are repeated
    torch.testing.assert_close(seen[1, 0, :, 1, 2], expected)


def test_an_even_number_of_slices_is_refused():
    with pytest.raises(ConfigError, match="odd number of slices, got 2"):
        build_network("unet2d", in_channels=1, out_channels=2, slices=2)


def test_batches_of_a_planar_network_stay_apart():
    network = build_network("resunet2d", in_channels=2, out_channels=3, filters=[4, 8, 8], slices=3).eval()
    volumes = image(2, 2, 3, 16, 8)
    torch.testing.assert_close(network(volumes)[1:], network(volumes[1:]))


@pytest.mark.parametrize("fusion", ["early", "late", "layer"])
def test_each_fusion_sees_both_modalities(fusion):
    torch.manual_seed(0)
    network = build_network("fusion_unet", in_channels=4, out_channels=3, fusion=fusion, filters=[4, 8, 8]).eval()
    given = image(1, 4, 8, 8, 8).requires_grad_()
    network(given).square().sum().backward()
    assert all(given.grad[0, channel].abs().max() > 0 for channel in range(4))


def test_late_fusion_keeps_the_modalities_apart_until_the_last_convolution():
    network = build_network("fusion_unet", in_channels=4, out_channels=3, fusion="late", filters=[4, 8, 8]).eval()
    with torch.no_grad():
        network.head.weight[:, 4:] = 0  # what comes from the MR's decoder
        with_mr = image(1, 4, 8, 8, 8)
        without = with_mr.clone()
        without[:, 2:] = 0
        assert torch.equal(network(with_mr), network(without))


def test_squeeze_and_excitation_scales_within_0_and_1_and_shifts_within_1():
    norm = SENorm(3, "instance")
    given = image(2, 3, 4, 5, 6) * 7 + 2
    shift = norm.shift(given.mean(dim=(2, 3, 4))[..., None, None, None])
    plain = nn.InstanceNorm3d(3)(given)
    scale = (norm(given) - shift) / plain
    assert scale.min() > 0
    assert scale.max() < 1
    assert shift.abs().max() < 1


def test_a_recurrent_block_reuses_one_convolution():
    block = RecurrentBlock(4, "instance", steps=2)
    assert sum(isinstance(layer, nn.Conv3d) and layer.kernel_size == (3, 3, 3) for layer in block.modules()) == 1
    state = block.layer(given := image(1, 4, 4, 4, 4))
    for _ in range(2):
        state = block.layer(given + state)
    torch.testing.assert_close(block(given), given + state)


def test_the_upsampling_pathway_adds_a_convolution_for_each_coarser_level():
    counts = []
    for pathway in (False, True):
        network = build_network(
            "rrse_unet", in_channels=2, out_channels=3, filters=[2, 4, 4, 8], upsampling_pathway=pathway
        )
        counts.append(len(network.pathway))
        assert network(image(1, 2, 8, 8, 16)).shape == (1, 3, 8, 8, 16)
    assert counts == [0, 2]
