"""The mirror: left and right change places, and the mean is that of both views."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hnseg.inference.mirror import Mirrored, other_side
from hnseg.organs import BY_NAME

LEFT, RIGHT, STEM = (BY_NAME[name].label for name in ("Parotid_L", "Parotid_R", "Brainstem"))
LABELS = (0, RIGHT, STEM, LEFT)


class Lopsided(nn.Module):
    """A random convolution: what it says of a window and of its mirror image differ."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, len(LABELS), 3, padding=1)
        generator = torch.Generator().manual_seed(4)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.conv(image)
        return logits


def image() -> Tensor:
    return torch.randn(2, 2, 3, 5, 7, generator=torch.Generator().manual_seed(1))


def test_partners_change_places_and_a_lone_side_stays() -> None:
    assert other_side(LABELS) == [0, 3, 2, 1]
    assert other_side((0, LEFT, STEM)) == [0, 1, 2]


def test_the_answer_is_the_mean_of_both_views_with_sides_swapped() -> None:
    network, window = Lopsided(), image()
    with torch.inference_mode():
        direct = torch.softmax(network(window), dim=1)
        turned = torch.softmax(network(window.flip(-1)), dim=1).flip(-1)[:, [0, 3, 2, 1]]
        answer = torch.softmax(Mirrored(network, LABELS)(window), dim=1)
    torch.testing.assert_close(answer, (direct + turned) / 2)


def test_a_mirrored_patient_gets_the_mirrored_answer_on_the_other_side() -> None:
    network, window = Mirrored(Lopsided(), LABELS), image()
    with torch.inference_mode():
        straight, mirrored = network(window).argmax(dim=1), network(window.flip(-1)).argmax(dim=1).flip(-1)
    torch.testing.assert_close(mirrored, torch.tensor([0, 3, 2, 1])[straight])
    assert (straight == 1).any()
    assert (straight == 3).any()


def test_impossible_classes_stay_finite() -> None:
    network = nn.Conv3d(2, len(LABELS), 1)
    with torch.inference_mode():
        network.weight.zero_()
        network.bias.copy_(torch.tensor([500.0, 0.0, 0.0, 0.0]))
        assert torch.isfinite(Mirrored(network, LABELS)(image())).all()
