"""The loss against its own definition, written out with autograd."""

import pytest
import torch

from hnseg_training.losses import class_weights, dice_cross_entropy


def plain_loss(logits, labels, merge, weights):
    p = torch.softmax(logits, dim=-1)
    merged = torch.stack([p[:, merge == kind].sum(1) for kind in range(p.shape[1])], dim=1)
    target = merged[torch.arange(len(labels)), labels]
    cross_entropy = -(weights[labels] * target.log()).sum() / weights[labels].sum()
    scores = []
    for organ in range(1, p.shape[1]):
        here = labels == organ
        if here.any():
            scores.append(2 * merged[here, organ].sum() / (here.sum() + merged[:, organ].sum()))
    return 1 - torch.stack(scores).mean(), cross_entropy


ALL_DRAWN = torch.arange(6)
NOBODY_DREW_2 = torch.tensor([0, 1, 0, 3, 4, 5])
TWO_DRAWN_AS_ONE = torch.tensor([0, 1, 0, 3, 3, 5])  # 3 and 4 are one structure, 2 is undrawn


def example(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 3])[torch.randint(3, (50,), generator=generator)]
    return logits, labels, torch.tensor([0.5, 1.0, 2.0, 3.0, 1.0, 4.0], dtype=torch.float64)


@pytest.mark.parametrize("merge", [ALL_DRAWN, NOBODY_DREW_2, TWO_DRAWN_AS_ONE])
def test_values_and_gradients_equal_the_plain_definition(merge):
    logits, labels, weights = example()
    ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    dice, entropy = dice_cross_entropy(ours, labels, merge, weights)
    expected_dice, expected_entropy = plain_loss(plain, labels, merge, weights)
    (2 * dice + 3 * entropy).backward()
    (2 * expected_dice + 3 * expected_entropy).backward()
    torch.testing.assert_close(dice, expected_dice)
    torch.testing.assert_close(entropy, expected_entropy)
    torch.testing.assert_close(ours.grad, plain.grad)


def test_an_organ_that_nobody_drew_is_never_pushed_towards_the_background():
    logits, labels, weights = example()
    labels = torch.zeros_like(labels)
    logits = torch.zeros_like(logits)
    logits[:, 2] = 5.0
    logits.requires_grad_()
    sum(dice_cross_entropy(logits, labels, NOBODY_DREW_2, weights)).backward()
    assert (logits.grad[:, 2] < 0).all(), (
        "descent raises the undrawn organ's logit where the voxel is not a drawn organ"
    )
    assert (logits.grad[:, [1, 3, 4, 5]] > 0).all(), "drawn organs are pushed down"


def test_the_parts_of_a_union_share_it_as_the_network_likes():
    logits, labels, weights = example()
    labels = torch.full_like(labels, 3)
    logits.requires_grad_()
    sum(dice_cross_entropy(logits, labels, TWO_DRAWN_AS_ONE, weights)).backward()
    assert (logits.grad[:, [3, 4]] < 0).all(), "descent raises both parts"
    ratio = logits.grad[:, 3] / logits.grad[:, 4]
    torch.testing.assert_close(ratio, (logits[:, 3] - logits[:, 4]).detach().exp(), msg="neither is preferred")


def test_without_organs_the_dice_part_is_zero():
    logits, labels, weights = example()
    dice, entropy = dice_cross_entropy(logits, torch.zeros_like(labels), NOBODY_DREW_2, weights)
    assert float(dice) == 0.0
    assert float(entropy) > 0.0


def test_small_organs_weigh_more_than_large_ones():
    weights = class_weights()
    assert weights.shape == (31,)
    assert weights[8] > weights[30] > weights[7]  # cochlea > cord > oral cavity
