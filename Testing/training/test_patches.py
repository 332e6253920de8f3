"""Patches: reproducible by number, organs equally often, partial annotation carried along."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from hnseg_training.cases import open_case
from hnseg_training.config import CohortConfig, PatchConfig, TrainConfig
from hnseg_training.patches import PatchDataset, draw_centre
from hnseg_training.sources import merge_of


def write_case(folder, *, annotated=(1, 2), big=1, small=2):
    """A case with a large and a tiny organ; CT channel 0 holds the k index, so that geometry can be checked."""
    shape = (24, 20, 16)
    labels = np.zeros(shape, np.uint8)
    labels[2:20, 2:18, 2:10] = big
    labels[21, 15, 13] = small
    image = np.zeros((4, *shape), np.float16)
    image[0] = (np.arange(shape[0]) / 100)[:, None, None]
    folder.mkdir(parents=True)
    np.save(folder / "image.npy", image)
    np.save(folder / "labels.npy", labels)
    points = {str(label): np.argwhere(labels == label).astype(np.int32) for label in (0, big, small)}
    np.savez(folder / "points.npz", **points)
    (folder / "case.json").write_text(json.dumps({"name": folder.name, "annotated": annotated, "unions": []}))
    return folder


@pytest.fixture
def config():
    return TrainConfig(name="test", patch=PatchConfig(size_kji=(16, 16, 16), organ_share=1.0, jitter=0.0))


def test_the_same_number_gives_the_same_patch(tmp_path, config):
    folders = [[write_case(tmp_path / "a"), write_case(tmp_path / "b")]]
    first = [next(iter(PatchDataset(config, folders, skip=n))) for n in (0, 1, 2)]
    stream = iter(PatchDataset(config, folders))
    for patch in first:
        again = next(stream)
        assert torch.equal(patch["image"], again["image"])
        assert torch.equal(patch["labels"], again["labels"])
    assert not torch.equal(first[0]["image"], first[1]["image"])


def test_a_tiny_organ_is_chosen_as_often_as_a_large_one(tmp_path, config):
    case = open_case(write_case(tmp_path / "a"))
    rng = np.random.default_rng(0)
    chosen = Counter(int(case.labels[tuple(draw_centre(rng, case, config).astype(int))]) for _ in range(400))
    assert 150 < chosen[1] < 250
    assert 150 < chosen[2] < 250


def test_cohorts_are_drawn_by_their_share(tmp_path, config):
    config = TrainConfig(name="t", patch=config.patch, cohorts=(CohortConfig(share=3.0), CohortConfig(share=1.0)))
    folders = [[write_case(tmp_path / "a", annotated=(1, 2))], [write_case(tmp_path / "b", annotated=(2,))]]
    stream = iter(PatchDataset(config, folders))
    both_drawn = sum(int(next(stream)["merge"][1]) == 1 for _ in range(80))
    assert 48 <= both_drawn <= 72


def test_undrawn_organs_count_as_background_and_the_parts_of_a_union_as_its_first():
    merge = merge_of((5, 30), [(22, 3, 21)])
    assert {label: int(kind) for label, kind in enumerate(merge) if kind} == {5: 5, 30: 30, 3: 22, 21: 22, 22: 22}
