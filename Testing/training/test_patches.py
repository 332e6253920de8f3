"""Patches: reproducible by number, organs equally often, partial annotation carried along."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hnseg.organs import ORGANS
from hnseg_training.augmentation import draw_affine
from hnseg_training.cases import open_case
from hnseg_training.config import AugmentationConfig, CohortConfig, OptimisationConfig, PatchConfig, TrainConfig
from hnseg_training.patches import PatchDataset, cut
from hnseg_training.sources import merge_of

PLAIN = AugmentationConfig(affine_probability=0.0, elastic_probability=0.0, mirror_probability=0.0)


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


def middles(config, folders, count):
    """The labels on which that many patches were centred."""
    config = dataclasses.replace(config, augmentation=PLAIN)
    patches = PatchDataset(config, [folders])
    drawn = (patches.draw(np.random.default_rng(n))["labels"] for n in range(count))
    return Counter(int(labels[tuple(n // 2 for n in labels.shape)]) for labels in drawn)


def test_a_tiny_organ_is_chosen_as_often_as_a_large_one(tmp_path, config):
    chosen = middles(config, [write_case(tmp_path / "a")], 400)
    assert 150 < chosen[1] < 250
    assert 150 < chosen[2] < 250


def test_an_organ_that_few_cases_show_is_chosen_as_often_as_one_that_all_show(tmp_path, config):
    common = [write_case(tmp_path / str(n), small=1) for n in range(9)]
    chosen = middles(config, [*common, write_case(tmp_path / "rare", big=2, small=2)], 300)
    assert 110 < chosen[1] < 190
    assert chosen[1] + chosen[2] == 300


def test_cohorts_are_drawn_by_their_share(tmp_path, config):
    config = TrainConfig(name="t", patch=config.patch, cohorts=(CohortConfig(share=3.0), CohortConfig(share=1.0)))
    folders = [[write_case(tmp_path / "a", annotated=(1, 2))], [write_case(tmp_path / "b", annotated=(2,))]]
    stream = iter(PatchDataset(config, folders))
    both_drawn = sum(int(next(stream)["merge"][1]) == 1 for _ in range(80))
    assert 48 <= both_drawn <= 72


def test_undrawn_organs_count_as_background_and_the_parts_of_a_union_as_its_first():
    merge = merge_of((5, 30), [(22, 3, 21)])
    assert {label: int(kind) for label, kind in enumerate(merge) if kind} == {5: 5, 30: 30, 3: 22, 21: 22, 22: 22}


@pytest.mark.filterwarnings("ignore:.*fork.*")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_holds_the_same_patches_however_many_workers_and_wherever_training_went_on(tmp_path, config, workers):
    config = dataclasses.replace(config, optimisation=OptimisationConfig(batch_size=2))
    folders = [[write_case(tmp_path / "a"), write_case(tmp_path / "b")]]

    def images(skip, workers):
        loader = DataLoader(PatchDataset(config, folders, skip=skip), batch_size=2, num_workers=workers)
        return [batch["image"] for batch, _ in zip(loader, range(5), strict=False)]

    whole = images(0, 0)
    for again, before in zip(images(2, workers), whole[2:], strict=False):
        assert torch.equal(again, before)


def test_processes_together_draw_what_one_draws(tmp_path, config):
    folders = [[write_case(tmp_path / "a"), write_case(tmp_path / "b")]]
    one = [patch["image"] for patch, _ in zip(PatchDataset(config, folders), range(6), strict=False)]
    for rank in range(2):
        part = zip(PatchDataset(config, folders, process=(rank, 2)), range(3), strict=False)
        for (patch, _), expected in zip(part, one[rank::2], strict=True):
            assert torch.equal(patch["image"], expected)


def test_only_trained_organs_draw_patches(tmp_path, config):
    config = dataclasses.replace(config, organs=(ORGANS[1].name,))
    assert middles(config, [write_case(tmp_path / "a")], 50).keys() == {2}


def test_a_turn_is_one_of_the_patient_where_voxels_are_not_cubes():
    config = AugmentationConfig(affine_probability=1.0, rotation_deg=30.0, zoom=0.0)
    spacing = np.array([3.0, 1.0, 2.0])
    matrix = draw_affine(np.random.default_rng(2), config, spacing)
    turn = matrix * spacing[:, None] / spacing
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    assert not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-2)


def test_an_elastic_patch_reads_beyond_its_own_box(tmp_path, config):
    case = open_case(write_case(tmp_path / "a"))
    shift = torch.zeros(3, 2, 2, 2)
    shift[0] = 4.0
    centre = np.array([10.0, 10.0, 8.0])
    moved, _ = cut(case, centre, None, (8, 8, 8), shift)
    plain, _ = cut(case, centre + np.array([4.0, 0, 0]), np.eye(3), (8, 8, 8))
    torch.testing.assert_close(moved, plain)
