"""Augmentation: never mirrors, never invents an MR, keeps image and labels together."""

import numpy as np
import torch

from hnseg_training.augmentation import (
    Intensity,
    ModalityLoss,
    apply_intensity,
    apply_modality_loss,
    draw_affine,
    draw_modality_loss,
    sample_affine,
)
from hnseg_training.config import AugmentationConfig


def test_no_affine_mirrors():
    config = AugmentationConfig(affine_probability=1.0, rotation_deg=45.0, zoom=0.5)
    matrices = [draw_affine(np.random.default_rng(seed), config) for seed in range(200)]
    assert min(np.linalg.det(matrix) for matrix in matrices) > 0


def test_the_identity_keeps_image_and_labels():
    image = torch.arange(2 * 5 * 6 * 7, dtype=torch.float32).reshape(2, 5, 6, 7)
    labels = (image[0] % 4).to(torch.uint8)
    patch, turned = sample_affine(
        image, labels, centre_kji=np.array([2.0, 2.5, 3.0]), matrix=np.eye(3), size_kji=(5, 6, 7), fill=torch.zeros(2)
    )
    torch.testing.assert_close(patch, image)
    assert torch.equal(turned, labels)


def test_a_quarter_turn_moves_image_and_labels_alike():
    labels = torch.zeros(9, 9, 9, dtype=torch.uint8)
    labels[2, 4, 6] = 3
    quarter = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])  # about k: source (j, i) = (−i, j) of the patch
    image, turned = sample_affine(
        labels[None].float(),
        labels,
        centre_kji=np.full(3, 4.0),
        matrix=quarter,
        size_kji=(9, 9, 9),
        fill=torch.zeros(1),
    )
    # source offset (0, 2) = quarter @ patch offset → patch offset (j, i) = (2, 0)
    assert turned[2, 6, 4] == 3
    assert int((turned == 3).sum()) == 1
    torch.testing.assert_close(image[0], turned.float())


def test_beyond_the_image_ct_is_air_and_labels_are_background():
    image, labels = torch.zeros(3, 4, 4, 4), torch.ones(4, 4, 4, dtype=torch.uint8)
    centre, fill = np.full(3, 1.5), torch.tensor([-1.0, 0.0, 0.0])
    patch, labels = sample_affine(image, labels, centre_kji=centre, matrix=np.eye(3), size_kji=(12, 12, 12), fill=fill)
    assert patch[0, 0, 0, 0] == -1.0
    assert labels[0, 0, 0] == 0
    assert int(labels.sum()) == 64


def test_a_dropped_mr_leaves_only_the_ct():
    image = torch.ones(4, 3, 3, 3)
    dropped = apply_modality_loss(image, ModalityLoss(True, 0, (0, 0, 0)), ct_channels=2)
    assert torch.equal(dropped[:2], image[:2])
    assert not dropped[2:].any()
    assert image.all(), "the input is never changed"


def test_intensity_never_writes_into_the_mr_where_it_is_not_valid():
    image = torch.ones(4, 4, 4, 4)
    image[2:, :2] = 0
    change = Intensity((1.1, 0.9, 1.2, 1.0), (0.1, -0.1, 0.3, 0.0), 0.2, (1.0, 1.0, 1.0))
    changed = apply_intensity(image, change, ct_channels=2, generator=torch.Generator().manual_seed(1))
    assert not changed[2, :2].any()
    assert torch.equal(changed[3], image[3])
    assert changed[:2].abs().max() <= 1.0


def test_the_mr_is_dropped_about_as_often_as_asked():
    rng = np.random.default_rng(0)
    config = AugmentationConfig(mr_dropout=0.35)
    dropped = sum(draw_modality_loss(rng, config, (8, 8, 8), 1.5).drop for _ in range(2000))
    assert 600 < dropped < 800
