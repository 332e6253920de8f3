"""Classes that nothing taught take no voxel, and give theirs to the background."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hnseg.inference.untrained import without_untrained

LABELS = ("background", "Brainstem", "Lips", "Parotid_L")


class Fixed(nn.Module):
    """The same probabilities everywhere."""

    def forward(self, image: Tensor) -> Tensor:
        logits = torch.tensor([0.3, 0.4, 0.25, 0.05]).log() + 7.0
        return logits[None, :, None, None, None].expand(len(image), -1, *image.shape[2:])


def test_an_untrained_class_adds_its_probability_to_the_background() -> None:
    network = without_untrained(Fixed(), LABELS, ("Brainstem", "Parotid_L"))
    p = torch.softmax(network(torch.zeros(2, 1, 1, 2, 3)), dim=1)
    assert p.shape == (2, 4, 1, 2, 3)
    np.testing.assert_allclose(p[1, :, 0, 1, 2], [0.55, 0.4, 0.0, 0.05], atol=1e-6)


@pytest.mark.parametrize("trained", [(), LABELS[1:]])
def test_a_network_that_was_taught_everything_stays_as_it_is(trained: tuple[str, ...]) -> None:
    network = Fixed()
    assert without_untrained(network, LABELS, trained) is network
