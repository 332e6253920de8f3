"""The loss against its own definition, written out with autograd."""

import torch

from hnseg_training.losses import class_weights, dice_cross_entropy


def plain_loss(logits, labels, annotated, weights):
    p = torch.softmax(logits, dim=-1)
    merged = torch.cat([(p[:, ~annotated].sum(1) + p[:, 0])[:, None], p[:, 1:] * annotated[1:]], dim=1)
    target = merged[torch.arange(len(labels)), labels]
    cross_entropy = -(weights[labels] * target.log()).sum() / weights[labels].sum()
    scores = []
    for organ in range(1, p.shape[1]):
        here = labels == organ
        if annotated[organ] and here.any():
            scores.append(2 * p[here, organ].sum() / (here.sum() + p[:, organ].sum()))
    return 1 - torch.stack(scores).mean(), cross_entropy


def example(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(50, 5, generator=generator, dtype=torch.float64)
    annotated = torch.tensor([True, True, False, True, True])
    labels = torch.tensor([0, 1, 3])[torch.randint(3, (50,), generator=generator)]
    return logits, labels, annotated, torch.tensor([0.5, 1.0, 2.0, 3.0, 1.0], dtype=torch.float64)


def test_values_and_gradients_equal_the_plain_definition():
    for all_drawn in (False, True):
        logits, labels, annotated, weights = example()
        annotated = annotated | all_drawn
        ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        dice, entropy = dice_cross_entropy(ours, labels, annotated, weights)
        expected_dice, expected_entropy = plain_loss(plain, labels, annotated, weights)
        (2 * dice + 3 * entropy).backward()
        (2 * expected_dice + 3 * expected_entropy).backward()
        torch.testing.assert_close(dice, expected_dice)
        torch.testing.assert_close(entropy, expected_entropy)
        torch.testing.assert_close(ours.grad, plain.grad)


def test_an_organ_that_nobody_drew_is_never_pushed_towards_the_background():
    logits, labels, annotated, weights = example()
    labels = torch.zeros_like(labels)
    logits = torch.zeros_like(logits)
    logits[:, 2] = 5.0
    logits.requires_grad_()
    sum(dice_cross_entropy(logits, labels, annotated, weights)).backward()
    assert (logits.grad[:, 2] < 0).all(), (
        "descent raises the undrawn organ's logit where the voxel is not a drawn organ"
    )
    assert (logits.grad[:, [1, 3, 4]] > 0).all(), "drawn organs are pushed down"


def test_without_organs_the_dice_part_is_zero():
    logits, labels, annotated, weights = example()
    dice, entropy = dice_cross_entropy(logits, torch.zeros_like(labels), annotated, weights)
    assert float(dice) == 0.0
    assert float(entropy) > 0.0


def test_small_organs_weigh_more_than_large_ones():
    weights = class_weights()
    assert weights.shape == (31,)
    assert weights[8] > weights[30] > weights[7]  # cochlea > cord > oral cavity
