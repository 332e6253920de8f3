"""The rolling slab against sums over the whole volume."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from hnseg.inference.slab import NEGLIGIBLE, RollingSlab
from hnseg.inference.tiles import importance

CPU = torch.device("cpu")
SHAPE = (19, 45, 70)
PATCH = (7, 24, 31)
STARTS = list(product((0, 4, 8, 12), (0, 12, 21), (0, 15, 30, 39)))
"""Windows at places that no tile begins at."""


def windows(classes: int, gap: float, seed: int = 0) -> list[Tensor]:
    """Logits of each window: noise, and one class above the others in boxes that cross the windows' borders."""
    generator = torch.Generator().manual_seed(seed)
    winner = torch.randint(0, classes, (3, 3, 5), generator=generator)
    for axis, size in enumerate((7, 15, 14)):
        winner = winner.repeat_interleave(size, axis)
    found = []
    for k, j, i in STARTS:
        here = winner[k : k + PATCH[0], j : j + PATCH[1], i : i + PATCH[2]]
        noise = torch.randn((classes, *PATCH), generator=generator)
        found.append(noise.scatter_add_(0, here[None], torch.full((1, *PATCH), gap)))
    return found


def whole(logits: list[Tensor], of_logits: bool) -> np.ndarray:
    """Means (C, K, J, I) with everything held at once, in double precision."""
    weight = torch.from_numpy(importance(PATCH)).double()
    total = torch.zeros((len(logits[0]), *SHAPE), dtype=torch.float64)
    weights = torch.zeros(SHAPE, dtype=torch.float64)
    for (k, j, i), window in zip(STARTS, logits, strict=True):
        values = window.double() if of_logits else window.double().softmax(dim=0)
        box = (slice(k, k + PATCH[0]), slice(j, j + PATCH[1]), slice(i, i + PATCH[2]))
        total[(slice(None), *box)] += values * weight
        weights[box] += weight
    return (total / weights).numpy()


def streamed(slab: RollingSlab, logits: list[Tensor]) -> np.ndarray:
    """Means as the slab gives them."""
    weight = torch.from_numpy(importance(PATCH))
    given: list[tuple[int, Tensor]] = []
    for start, window in zip(STARTS, logits, strict=True):
        given += slab.finish_before(start[0])
        slab.add(window, weight, start)
    given += slab.finish_before(SHAPE[0])
    assert [index for index, _ in given] == list(range(SHAPE[0]))
    return torch.stack([values for _, values in given], dim=1).numpy()


@pytest.mark.parametrize("of_logits", [False, True])
def test_where_every_class_counts_means_are_those_of_the_whole_volume(of_logits: bool) -> None:
    logits = windows(40, gap=1.0)
    found = streamed(RollingSlab(40, PATCH[0], SHAPE[1:], CPU, of_logits=of_logits), logits)
    np.testing.assert_allclose(found, whole(logits, of_logits), rtol=1e-5, atol=1e-6)


def test_negligible_classes_are_too_low_by_less_than_that_and_the_others_exact() -> None:
    logits = windows(12, gap=14.0)
    found, expected = streamed(RollingSlab(12, PATCH[0], SHAPE[1:], CPU), logits), whole(logits, of_logits=False)
    dropped = (found == 0) & (expected > 0)
    assert 0.3 < dropped.mean() < 0.95
    assert expected[dropped].max() < NEGLIGIBLE
    assert (expected - found).max() < NEGLIGIBLE
    assert (found - expected).max() < 1e-6
    np.testing.assert_array_equal(found.argmax(axis=0), expected.argmax(axis=0))


def held(slab: RollingSlab) -> int:
    """Tiles in use."""
    return int((slab._row >= 0).sum())


def test_what_is_held_follows_the_volume_and_not_the_number_of_classes() -> None:
    few, many = (RollingSlab(classes, PATCH[0], SHAPE[1:], CPU) for classes in (12, 120))
    weight, most = torch.from_numpy(importance(PATCH)), {}
    for slab, classes in ((few, 12), (many, 120)):
        for start, window in zip(STARTS, windows(12, gap=20.0), strict=True):
            list(slab.finish_before(start[0]))
            unused = torch.full((classes - 12, *PATCH), -10.0)
            slab.add(torch.cat([window, unused]), weight, start)
            most[classes] = max(most.get(classes, 0), held(slab))
        list(slab.finish_before(SHAPE[0]))
        assert held(slab) == 0
    assert 0 < most[120] == most[12]
    assert len(many._pool.sums) == len(few._pool.sums)


def test_a_voxel_that_no_window_saw_is_background() -> None:
    slab = RollingSlab(3, PATCH[0], SHAPE[1:], CPU)
    slab.add(torch.randn((3, *PATCH)), torch.ones(PATCH), (0, 10, 20))
    _, values = next(slab.finish_before(1))
    seen = np.zeros(SHAPE[1:], bool)
    seen[10:34, 20:51] = True
    np.testing.assert_array_equal(values[:, ~torch.from_numpy(seen)].T.numpy(), [[1, 0, 0]] * int((~seen).sum()))
    np.testing.assert_allclose(values[:, torch.from_numpy(seen)].sum(dim=0), 1, rtol=1e-6)


def test_what_lies_in_the_padding_is_dropped() -> None:
    slab = RollingSlab(2, 3, (20, 17), CPU)
    logits = torch.randn((2, 5, 24, 31))
    slab.add(logits, torch.ones((5, 24, 31)), (0, 0, 0))
    for k, values in slab.finish_before(3):
        np.testing.assert_allclose(values, logits.softmax(dim=0)[:, k, :20, :17], rtol=1e-5)


def test_what_is_not_a_number_does_not_pass_for_background() -> None:
    slab = RollingSlab(3, PATCH[0], SHAPE[1:], CPU)
    logits = torch.zeros((3, *PATCH))
    logits[:, 0, 5, 7] = torch.nan
    slab.add(logits, torch.ones(PATCH), (0, 0, 0))
    _, values = next(slab.finish_before(1))
    assert values[:, 5, 7].isnan().all()
    assert values.isnan().sum() == 3
