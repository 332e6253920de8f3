"""Learning rates at chosen steps, worked out by hand; mixup; transfer."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from hnseg.errors import ConfigError
from hnseg_training.config import CohortConfig, LossConfig, NetworkConfig, OptimisationConfig, TrainConfig
from hnseg_training.mixup import Mix, draw_mix, mixed
from hnseg_training.module import SegmentationModule, weights_by_class
from hnseg_training.schedule import optimiser, rate_share, scheduler
from hnseg_training.transfer import freeze, start


def rates(steps, **settings):
    config = OptimisationConfig(steps=100, learning_rate=0.1, warmup_steps=10, **settings)
    return [rate_share(step, settings=config) for step in steps]


def test_the_linear_schedule_warms_up_stays_and_falls():
    assert rates([0, 9, 50, 80, 100], decay_share=0.4) == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.0])


def test_the_cosine_ends_at_the_least_rate():
    assert rates([50, 100, 120], schedule="cosine", least_learning_rate=0.02) == pytest.approx([0.6, 0.2, 0.2])


def test_restarts_begin_anew():
    found = rates([20, 39, 40, 60], schedule="restarts", restart_steps=40)
    assert found[0] == pytest.approx(0.5)
    assert found[1] < 0.01
    assert found[2] == pytest.approx(1.0)
    assert found[3] == pytest.approx(0.5)


def test_the_plateau_divides_by_ten_when_nothing_gets_better():
    settings = OptimisationConfig(schedule="plateau", patience=1, validate_every=5, learning_rate=1.0)
    optimizer = optimiser([nn.Parameter(torch.zeros(1))], settings)
    plan = scheduler(optimizer, settings)
    found = []
    for loss in (1.0, 0.9, 0.95, 0.92, 0.91):
        plan["scheduler"].step(loss)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx([1.0, 1.0, 1.0, 0.1, 0.1])


def test_what_needs_a_validation_loss_says_so():
    with pytest.raises(ConfigError, match="set validate_every"):
        OptimisationConfig(schedule="plateau")
    with pytest.raises(ConfigError, match="name cohorts under validation"):
        TrainConfig(name="x", cohorts=(CohortConfig(),), optimisation=OptimisationConfig(validate_every=5))


def test_frozen_weights_are_not_optimised():
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    assert freeze(network, 0.5) == 2
    trained = optimiser(network.parameters(), OptimisationConfig()).param_groups[0]["params"]
    assert {id(p) for p in trained} == {id(p) for layer in network[3:] for p in layer.parameters()}


def test_a_start_from_other_organs_renews_the_last_layer_alone_and_only_if_asked():
    source = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 4))
    target = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    with pytest.raises(ConfigError, match=r"lack 2\.weight; use `transfer`"):
        start(target, source.state_dict(), partly=False)
    assert start(target, source.state_dict(), partly=True) == ("2.weight", "2.bias")
    assert torch.equal(target[1].weight, source[1].weight)


def test_a_head_takes_over_the_classes_that_both_networks_know():
    source, target = (nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2 * classes)) for classes in (4, 3))
    before, taught = target[1].weight.detach().clone().view(2, 3, 5), source[1].weight.view(2, 4, 5)
    known = {
        "source_classes": ["background", "Brainstem", "Eye_AL", "Eye_AR"],
        "by_class": {"1.weight": (0,), "1.bias": (0,)},
    }
    fresh = start(target, source.state_dict(), partly=True, classes=["background", "Eye_AR", "Pituitary"], **known)
    now = target[1].weight.view(2, 3, 5)
    assert fresh == ()
    assert torch.equal(now[:, 0], taught[:, 0])
    assert torch.equal(now[:, 1], taught[:, 3])
    assert torch.equal(now[:, 2], before[:, 2])


def test_a_head_for_as_many_other_classes_starts_anew():
    source, target = (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in range(2))
    before, names = target[1].weight.detach().clone(), ["background", "Lips", "Glottis"]
    taught = {"source_classes": ["background", "Glottis", "Brainstem"], "by_class": {"1.weight": (0,), "1.bias": (0,)}}
    with pytest.raises(ConfigError, match="are for other organs; use `transfer`"):
        start(target, source.state_dict(), partly=False, classes=names, **taught)
    start(target, source.state_dict(), partly=True, classes=names, **taught)
    assert torch.equal(target[0].weight, source[0].weight), "no head, though it has as many rows"
    assert torch.equal(target[1].weight[0], source[1].weight[0])
    assert torch.equal(target[1].weight[1], before[1])
    assert torch.equal(target[1].weight[2], source[1].weight[1])


def test_weights_from_class_to_class_go_by_both():
    source, target = nn.Conv3d(3, 3, 1, bias=False), nn.Conv3d(2, 2, 1, bias=False)
    before = target.weight.detach().clone()
    start(
        target, source.state_dict(), partly=True, by_class={"weight": (0, 1)},
        classes=["background", "Glottis"], source_classes=["background", "Brainstem", "Lips"],
    )  # fmt: skip
    assert target.weight[0, 0] == source.weight[0, 0]
    assert torch.equal(target.weight.flatten()[1:], before.flatten()[1:])


def test_weights_that_go_by_class_are_found_in_a_network():
    network = NetworkConfig("res3dunet", {"filters": [4, 8]})
    config = TrainConfig(name="x", organs=("Lips", "Glottis"), network=network)
    found = weights_by_class(config)
    assert set(found.values()) == {(0,), (1,), (0, 1)}, "the last upsampling, and a residual unit from class to class"
    shapes = {name: weight.shape for name, weight in SegmentationModule(config).network.state_dict().items()}
    assert all(shapes[name][axis] == 3 for name, axes in found.items() for axis in axes)


def test_a_start_from_an_unlike_network_is_refused():
    with pytest.raises(ConfigError, match="Only 0 of 2 weights fit"):
        start(nn.Linear(2, 3), nn.Linear(5, 5).state_dict(), partly=True)


def test_mixup_blends_images_with_the_drawn_share():
    images = torch.stack([torch.full((1, 1, 1, 2), value) for value in (0.0, 1.0, 4.0)])
    blended = mixed(images, Mix(0.75, (2, 1, 0)))
    assert blended[:, 0, 0, 0, 0].tolist() == [1.0, 1.0, 3.0]


def test_plain_mixup_gives_everyone_a_partner_and_weighted_prefers_small_organs():
    labels = torch.zeros(3, 2, 2, 2, dtype=torch.int64)
    labels[1, 0], labels[2, 0] = 1, 2
    weights = torch.tensor([0.5, 1.0, 4.0])
    draw = partial(draw_mix, labels=labels, class_weights=weights)
    rng = np.random.default_rng(0)
    plain = [draw(rng, LossConfig(mixup="plain")).partners for _ in range(20)]
    assert all(sorted(partners) == [0, 1, 2] for partners in plain)
    weighted = Counter(n for _ in range(200) for n in draw(rng, LossConfig(mixup="weighted")).partners)
    assert weighted[2] > 3 * weighted[1] > 3 * weighted[0] > 0
    assert draw(rng, LossConfig()) is None
    assert draw_mix(rng, LossConfig(mixup="plain"), labels[:1], weights) is None, "nobody to mix with"


def test_shares_follow_the_beta_distribution():
    labels = torch.zeros(2, 1, 1, 1, dtype=torch.int64)
    config = LossConfig(mixup="plain", mixup_alpha=0.2)
    rng = np.random.default_rng(1)
    shares = np.array([draw_mix(rng, config, labels, torch.ones(1)).share for _ in range(500)])
    assert abs(shares.mean() - 0.5) < 0.06
    assert ((shares < 0.1) | (shares > 0.9)).mean() > 0.5, "Beta(0.2, 0.2) is mostly one or the other"
