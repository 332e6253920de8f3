"""Every loss against MONAI's, and none of them knows what nobody drew."""

import numpy as np
import pytest
import torch
from monai.losses import GeneralizedDiceLoss

from hnseg.errors import ConfigError
from hnseg.organs import ORGANS, find_organ, find_organs
from hnseg_training.classes import to_classes
from hnseg_training.config import LOSS_TERMS, LossConfig
from hnseg_training.objective import Objective, adapted_weights, merge_classes

CLASSES = 5
ALL = torch.arange(CLASSES)


def example(seed=0, drawn=(0, 1, 2, 3, 4)):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(CLASSES, 4, 6, 5, generator=generator, dtype=torch.float32)
    labels = torch.tensor(drawn)[torch.randint(len(drawn), (4, 6, 5), generator=generator)]
    return logits, labels


def objective(term, planar=False, **settings):
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0, 1.5])
    return Objective(LossConfig(terms={term: 1.0}, **settings), weights, planar=planar)


def total(loss, logits, labels, merge=ALL, progress=0.0):
    return sum(loss(logits, labels, merge, progress).values())


@pytest.mark.parametrize("term", LOSS_TERMS)
@pytest.mark.parametrize("merge", [[0, 1, 0, 3, 4], [0, 1, 1, 3, 0]], ids=["undrawn", "union"])
def test_no_loss_depends_on_how_merged_classes_share_their_probability(term, merge):
    merge = torch.tensor(merge)
    logits, labels = example(drawn=sorted(set(merge.tolist())))
    p = logits.softmax(dim=0)
    given, taking = (0, 2) if merge[2] == 0 else (1, 2)
    moved = p.clone()
    moved[taking] += 0.9 * p[given]
    moved[given] *= 0.1
    loss = objective(term)
    torch.testing.assert_close(total(loss, logits, labels, merge), total(loss, moved.log(), labels, merge))
    _, everything = example()
    assert not torch.isclose(total(loss, logits, everything), total(loss, moved.log(), everything)), "else it matters"


@pytest.mark.parametrize("term", LOSS_TERMS)
def test_a_case_of_which_nobody_drew_anything_teaches_nothing(term):
    logits, labels = example(drawn=(0,))
    logits.requires_grad_()
    loss = total(objective(term), logits, labels, merge=torch.zeros(CLASSES, dtype=torch.int64))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert logits.grad.abs().max() < 1e-6


@pytest.mark.parametrize("term", LOSS_TERMS)
def test_every_loss_falls_along_its_gradient(term):
    logits, labels = example()
    loss = objective(term)
    values = []
    for _ in range(4):
        logits = logits.detach().requires_grad_()
        value = total(loss, logits, labels)
        value.backward()
        values.append(value.item())
        logits = logits - 0.05 * logits.grad / logits.grad.norm() * logits.numel() ** 0.5
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_cross_entropy_is_torch_s_weighted_one():
    logits, labels = example()
    loss = objective("cross_entropy")
    expected = torch.nn.functional.cross_entropy(logits[None], labels[None], weight=loss.class_weights)
    torch.testing.assert_close(total(loss, logits, labels), expected)


def test_the_focal_loss_is_the_weighted_mean_over_voxels_written_out():
    logits, labels = example()
    loss = objective("focal", gamma=1.5)
    p = logits.softmax(dim=0).gather(0, labels[None])[0]
    expected = (loss.class_weights[labels] * (1 - p) ** 1.5 * -p.log()).mean()
    torch.testing.assert_close(total(loss, logits, labels), expected)


def test_soft_dice_is_the_report_s_formula():
    logits, labels = example()
    p, y = logits.softmax(dim=0), torch.nn.functional.one_hot(labels, CLASSES).movedim(-1, 0)
    scores = [(2 * (p[n] * y[n]).sum() + 1) / (p[n].sum() + y[n].sum() + 1) for n in range(1, CLASSES)]
    torch.testing.assert_close(total(objective("soft_dice"), logits, labels), 1 - torch.stack(scores).mean())


def test_generalised_dice_is_monai_s():
    logits, labels = example()
    expected = GeneralizedDiceLoss(to_onehot_y=True, softmax=True)(logits[None], labels[None, None])
    torch.testing.assert_close(total(objective("generalised_dice"), logits, labels), expected)


def test_the_boundary_loss_grows_with_the_distance_of_what_is_wrong():
    labels = torch.zeros(1, 16, 12, dtype=torch.int64)
    labels[0, 6:10, 4:8] = 1

    def of(j):
        logits = torch.zeros(CLASSES, 1, 16, 12)
        logits[1, 0, j, 5] = 8.0
        return float(total(objective("boundary", planar=True), logits, labels))

    assert of(7) < of(11) < of(14)


def test_slices_are_measured_on_their_own_for_a_planar_network():
    logits, labels = example()
    by_slice = [total(objective("boundary"), logits[:, k : k + 1], labels[k : k + 1]) for k in range(4)]
    torch.testing.assert_close(
        total(objective("boundary", planar=True), logits, labels), torch.stack(by_slice).mean(), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("term", LOSS_TERMS)
def test_short_logits_are_summed_in_full_precision(term):
    logits, labels = example()
    short = logits.bfloat16()
    value = total(objective(term), short, labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, total(objective(term), short.float(), labels))


def test_weights_move_from_the_first_terms_to_the_last():
    config = LossConfig(terms={"cross_entropy": 1.0, "focal": 0.0}, final_terms={"focal": 2.0})
    loss = Objective(config, torch.ones(CLASSES), planar=False)
    assert loss.weights(0.0) == {"cross_entropy": 1.0, "focal": 0.0}
    assert loss.weights(0.25) == {"cross_entropy": 0.75, "focal": 0.5}
    assert loss.weights(1.0) == {"cross_entropy": 0.0, "focal": 2.0}


def test_organs_that_validate_badly_weigh_more_and_the_mean_stays():
    dice = torch.tensor([float("nan"), 0.9, 0.2, float("nan"), 0.6])
    weights = adapted_weights(torch.ones(5), dice)
    assert weights[2] > weights[3] == weights[0] > weights[4] > weights[1]
    assert float(weights.mean()) == pytest.approx(1.0)


def test_an_unknown_loss_is_named_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match="'focl'; did you mean 'focal'"):
        LossConfig(terms={"focl": 1.0})


def test_merging_keeps_a_probability():
    logits, labels = example(drawn=(0, 1, 3))
    log_p, merged, kept = merge_classes(logits, labels, torch.tensor([0, 1, 0, 3, 3]))
    assert kept.tolist() == [0, 1, 3]
    torch.testing.assert_close(log_p.exp().sum(dim=1), torch.ones(1, 4, 6, 5))
    assert torch.equal(kept[merged[0, 0]], labels)


def every_label_drawn():
    return torch.arange(len(ORGANS) + 1)


def test_classes_of_all_organs_are_their_labels():
    labels = torch.arange(31)
    classes, merge = to_classes(labels, every_label_drawn(), ORGANS)
    assert torch.equal(classes, labels)
    assert torch.equal(merge, labels)


def test_other_organs_are_background_and_undrawn_ones_unknown():
    left, right, cord = (find_organ(name).label for name in ("Parotid_L", "Parotid_R", "SpinalCord"))
    drawn = every_label_drawn()
    drawn[right] = 0
    classes, merge = to_classes(torch.tensor([0, left, cord]), drawn, find_organs(["Parotid_L", "Parotid_R"]))
    assert classes.tolist() == [0, 1, 0]
    assert merge.tolist() == [0, 1, 0], "the right one may be in the background"


def test_a_union_of_which_only_a_part_is_told_counts_as_not_drawn():
    parts = [find_organ(name).label for name in ("Larynx_SG", "Glottis", "Arytenoid")]
    merge = every_label_drawn()
    merge[parts] = parts[0]
    for told in (["Larynx_SG"], ["Glottis"], ["Larynx_SG", "Glottis"]):
        classes, merged = to_classes(torch.tensor(parts[:1]), merge, find_organs([*told, "SpinalCord"]))
        assert classes.tolist() == [0]
        assert merged.tolist() == [0] * (len(told) + 1) + [len(told) + 1]
    classes, merged = to_classes(torch.tensor(parts[:1]), merge, find_organs(["Larynx_SG", "Glottis", "Arytenoid"]))
    assert merged.tolist() == [0, *np.full(3, int(classes[0])).tolist()]
    assert int(classes[0]) == 3, "Larynx_SG is the third by label"
