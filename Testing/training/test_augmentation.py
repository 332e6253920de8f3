"""Augmentation: never mirrors, never invents an MR, keeps image and labels together."""

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hnseg.organs import find_organ
from hnseg_training.artefacts import Streaks, apply_bias, apply_streaks, streak_field
from hnseg_training.augmentation import (
    Intensity,
    ModalityLoss,
    apply_intensity,
    apply_modality_loss,
    draw_affine,
    draw_bend,
    draw_elastic,
    draw_grid_distortion,
    draw_modality_loss,
    mirror,
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
    dropped = sum(draw_modality_loss(rng, config, (8, 8, 8), np.full(3, 1.5)).drop for _ in range(2000))
    assert 600 < dropped < 800


def test_a_shifted_mr_takes_its_mask_along_and_nothing_comes_in_at_the_other_end():
    image = torch.zeros(4, 3, 5, 7)
    image[2] = torch.arange(1.0, 4)[:, None, None]
    image[3] = 1
    up = apply_modality_loss(image, ModalityLoss(False, 0, (1, 0, -2)), ct_channels=2)
    assert up[2, :, 0, 0].tolist() == [0, 1, 2]
    assert up[3, :, 0, 0].tolist() == [0, 1, 1]
    assert up[3, 1, 0].tolist() == [1, 1, 1, 1, 1, 0, 0]
    down = apply_modality_loss(image, ModalityLoss(False, 0, (-1, 0, 0)), ct_channels=2)
    assert down[2, :, 0, 0].tolist() == [2, 3, 0]
    alone = apply_modality_loss(image[:, :1], ModalityLoss(False, 0, (1, 0, 0)), ct_channels=2)
    assert not alone.any(), "a single slice has left the patch"


def test_the_mr_is_shifted_and_turned_in_mm():
    spacing = np.array([3.0, 1.0, 2.0])
    config = AugmentationConfig(mr_shift_mm=4.0, mr_turn_deg=20.0)
    drawn = [draw_modality_loss(np.random.default_rng(n), config, (8, 8, 8), spacing) for n in range(100)]
    assert np.abs([loss.shift_kji for loss in drawn]).max(axis=0).tolist() == [1, 4, 2]
    turn = drawn[0].turn * spacing[:, None] / spacing
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    assert not np.allclose(drawn[0].turn @ drawn[0].turn.T, np.eye(3), atol=1e-2)


def sides(shape=(6, 8, 10)):
    """A left organ at large i (+x) that is bright, and a right one at small i that is dim."""
    left, right = find_organ("Parotid_L").label, find_organ("Parotid_R").label
    labels = torch.zeros(shape, dtype=torch.uint8)
    labels[1:3, 2:5, 7:9] = left
    labels[3:5, 3:6, 1:3] = right
    image = torch.zeros(4, *shape)
    image[0] = (labels == left) * 0.5 + (labels == right) * 0.25
    return image, labels, left, right


def test_a_mirror_swaps_left_and_right_in_labels_and_in_what_was_drawn():
    image, labels, left, right = sides()
    merge = torch.arange(31)
    merge[right] = 0
    turned, swapped, now = mirror(image, labels, merge)
    assert (swapped == left).nonzero()[:, 2].float().mean() > (swapped == right).nonzero()[:, 2].float().mean()
    assert (turned[0][swapped == right] == 0.5).all(), "what was the left organ's tissue is on the right now"
    assert now[left] == 0
    assert now[right] == right
    for again, before in zip(mirror(turned, swapped, now), (image, labels, merge), strict=True):
        assert torch.equal(again, before)


def test_elastic_displacements_move_image_and_labels_alike():
    labels = torch.zeros(12, 12, 12, dtype=torch.uint8)
    labels[4:8, 3:6, 5:9] = 7
    config = AugmentationConfig(elastic_probability=1.0, elastic_mm=4.0, elastic_knots_mm=8.0)
    displacement = draw_elastic(np.random.default_rng(4), config, (12, 12, 12), np.array([3.0, 1.5, 1.5]))
    image, moved = sample_affine(
        labels[None].float(),
        labels,
        centre_kji=np.full(3, 5.5),
        matrix=np.eye(3),
        size_kji=(12, 12, 12),
        fill=torch.zeros(1),
        displacement=displacement,
    )
    assert not torch.equal(moved, labels)
    assert ((image[0] > 3.5) == (moved == 7)).float().mean() > 0.98


def test_no_elastic_displacement_folds():
    config = AugmentationConfig(elastic_probability=1.0)
    for seed in range(30):
        field = draw_elastic(np.random.default_rng(seed), config, (48, 64, 64), np.full(3, 1.5))
        smooth = torch.nn.functional.interpolate(field[None], size=(48, 64, 64), mode="trilinear", align_corners=True)
        for axis in range(3):
            assert smooth[0, axis].diff(dim=axis).min() > -1.0, "neighbours would change places"


def test_grid_distortion_widens_cells_along_each_axis_keeps_the_ends_and_never_folds():
    config = AugmentationConfig(grid_probability=1.0, grid_cells=4, grid_limit=0.9)
    size = (9, 13, 17)
    for seed in range(20):
        field = draw_grid_distortion(np.random.default_rng(seed), config, size)
        smooth = torch.nn.functional.interpolate(field[None], size=size, mode="trilinear", align_corners=True)[0]
        for axis, n in enumerate(size):
            lines = smooth[axis].movedim(axis, 0) + torch.arange(n)[:, None, None]
            torch.testing.assert_close(lines[[0, -1], 0, 0], torch.tensor([0.0, n - 1.0]))
            assert torch.allclose(lines, lines[:, :1, :1], atol=1e-4), "the grid's lines stay straight"
            steps = lines[:, 0, 0].diff().reshape(4, -1)
            assert steps.min() > 0
            assert steps.std(dim=1).max() < 1e-4
            assert steps.std(dim=0).min() > 0.05


def test_grid_distortion_in_plane_leaves_slices_where_they_are():
    config = AugmentationConfig(grid_probability=1.0, in_plane=True)
    field = draw_grid_distortion(np.random.default_rng(0), config, (8, 64, 64))
    assert not field[0].any()
    assert field[1].abs().max() > 1


def test_a_patch_is_bent_in_one_way_or_the_other_as_often_as_asked():
    config = AugmentationConfig(elastic_probability=0.25, grid_probability=0.25, elastic_knots_mm=10.0, grid_cells=3)
    rng = np.random.default_rng(0)
    bends = [draw_bend(rng, config, (12, 12, 12), np.full(3, 2.0)) for _ in range(2000)]
    kinds = [None if bend is None else tuple(bend.shape) for bend in bends]
    assert 430 < kinds.count((3, 5, 5, 5)) < 570
    assert 430 < kinds.count((3, 4, 4, 4)) < 570
    assert draw_bend(rng, AugmentationConfig(), (12, 12, 12), np.full(3, 2.0)) is None


def test_streaks_leave_from_the_metal_and_stay_in_its_slices():
    streaks = Streaks((5.0, 10.0, 12.0), (0.0, 2.0), (0.1, 0.1), (400.0, -300.0), reach=8.0, thickness=1.5)
    field = streak_field(streaks, (11, 24, 26))
    assert field[5, 10, 16] > 100, "along angle 0, towards +i"
    assert abs(field[5, 2, 12]) < 1
    assert field[5].abs().max() > 50 * field[0].abs().max()


def test_streaks_change_each_window_by_the_same_hu_and_never_the_mr():
    image = torch.zeros(4, 5, 12, 12)
    streaks = Streaks((2.0, 6.0, 6.0), (0.5,), (0.2,), (20.0,), reach=20.0, thickness=3.0)
    changed = apply_streaks(image, streaks, ((-200.0, 200.0), (-1000.0, 2000.0)))
    torch.testing.assert_close(changed[0] * 200, changed[1] * 1500)
    assert changed[0].max() > 0.05
    assert not changed[2:].any()


def test_a_bias_field_brightens_the_mr_unevenly_and_never_where_it_is_not_valid():
    image = torch.zeros(4, 6, 7, 8)
    image[3, :4] = 1
    config = AugmentationConfig(bias_probability=1.0, bias=0.5)
    changed = apply_bias(image, np.random.default_rng(1), config)
    assert changed[2, :4].std() > 0.05
    assert not changed[2, 4:].any()
    assert not changed[:2].any()
    assert torch.equal(apply_bias(image, np.random.default_rng(1), config), changed)


def test_a_turned_mr_keeps_a_mask_of_zeros_and_ones():
    image = torch.ones(4, 8, 9, 10)
    turn = Rotation.from_euler("xyz", [10, -5, 20], degrees=True).as_matrix()
    turned = apply_modality_loss(image, ModalityLoss(False, 0, (0, 0, 0), turn), ct_channels=2)
    assert torch.equal(turned[:2], image[:2])
    assert set(turned[3].unique().tolist()) == {0.0, 1.0}
    assert not turned[2][turned[3] == 0].any()
