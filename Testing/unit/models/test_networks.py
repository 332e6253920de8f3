"""Networks: sub-voxels in order, quick layers equal to plain ones, mistakes named."""

import copy

import pytest
import torch
from torch import nn

from hnseg.errors import ConfigError
from hnseg.models.networks import (
    SubpixelUNet,
    _norms_in_place,
    _quick_convolutions,
    build_network,
    pixel_shuffle,
    pixel_unshuffle,
)


def test_shuffle_undoes_unshuffle():
    image = torch.arange(2 * 3 * 4 * 6 * 4, dtype=torch.float32).reshape(2, 3, 4, 6, 4)
    folded = pixel_unshuffle(image, (2, 3, 4))
    assert folded.shape == (2, 72, 2, 2, 1)
    assert torch.equal(pixel_shuffle(folded, (2, 3, 4)), image)


def test_channels_of_one_subvoxel_stay_together():
    image = torch.zeros(1, 2, 2, 2, 2)
    image[0, 1, 0, 0, 1] = 7  # channel 1 of the second sub-voxel
    assert pixel_unshuffle(image, (2, 2, 2))[0, :, 0, 0, 0].tolist().index(7) == 1 * 2 + 1


def test_logits_have_the_size_of_the_image():
    network = SubpixelUNet(in_channels=4, out_channels=5, filters=(4, 4, 8), factor=(1, 2, 2))
    assert network.divisor == (4, 8, 8)
    assert network(torch.zeros(1, 4, 4, 16, 8)).shape == (1, 5, 4, 16, 8)


def test_voxel_logits_are_the_same_logits_in_another_order():
    torch.manual_seed(0)
    network = SubpixelUNet(in_channels=2, out_channels=3, filters=(4, 4, 8)).eval()
    image = torch.randn(2, 2, 8, 16, 8)
    logits = network(image)
    ordered = torch.stack([network.voxel_order(logits[:, c]) for c in range(3)], dim=-1)
    torch.testing.assert_close(network.voxel_logits(image), ordered)


@pytest.mark.filterwarnings("ignore")  # Dynamo's own
def test_compiling_reaches_the_layers_that_training_and_prediction_call():
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    network = SubpixelUNet(in_channels=2, out_channels=3, filters=(4, 4, 8), factor=(2, 2, 2)).eval()
    image = torch.randn(1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = network.voxel_logits(image)
    network.compile(backend=backend)
    torch.testing.assert_close(network.voxel_logits(image), expected)
    assert graphs
    compiled = len(graphs)
    network(image)
    assert len(graphs) == compiled, "prediction calls the same compiled layers"
    assert copy.deepcopy(network)(image).shape == (1, 3, 16, 16, 16)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_quick_layers_compute_what_the_plain_ones_do(kernel, batch):
    torch.manual_seed(1)
    plain = nn.Sequential(
        nn.Conv3d(6, 8, kernel, padding=kernel // 2), nn.InstanceNorm3d(8, affine=True), nn.Conv3d(8, 5, kernel)
    )
    quick = copy.deepcopy(plain)
    _norms_in_place(quick)
    _quick_convolutions(quick)
    assert list(quick.state_dict()) == list(plain.state_dict())
    assert type(quick[0]) is not nn.Conv3d
    ours, theirs = (torch.randn(batch, 6, 5, 6, 7, generator=torch.Generator().manual_seed(2)) for _ in range(2))
    ours.requires_grad_()
    theirs.requires_grad_()
    quick(ours).square().sum().backward()
    plain(theirs).square().sum().backward()
    torch.testing.assert_close(quick(ours), plain(theirs), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(quick[0].weight.grad, plain[0].weight.grad, rtol=1e-3, atol=1e-2)


def test_an_unknown_network_or_argument_is_named_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match="did you mean 'subpixel_unet'"):
        build_network("subpixl_unet")
    with pytest.raises(ConfigError, match="did you mean 'filters'"):
        build_network("subpixel_unet", in_channels=1, out_channels=2, filter=[4, 4, 8])


@pytest.mark.parametrize("name", ["nnunet", "subpixel_unet"])
def test_values_that_make_no_network_are_named(name):
    with pytest.raises(ConfigError, match=rf"{name}.* cannot be built with .*filters = \[4, 8\]: .* correct these"):
        build_network(name, in_channels=4, out_channels=3, filters=[4, 8])
