"""Metrics against answers worked out by hand, on asymmetric masks with anisotropic spacing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hnseg.evaluation import metrics
from hnseg.evaluation.surfaces import element_areas, surface_distances
from hnseg.image.grid import Grid

SPACING = (1.0, 2.0, 3.0)  # i, j, k
SHAPE = (9, 8, 7)


def mask(*voxels_kji, shape=SHAPE):
    array = np.zeros(shape, bool)
    for voxel in voxels_kji:
        array[voxel] = True
    return array


def box(start, stop, shape=SHAPE):
    array = np.zeros(shape, bool)
    array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return array


def turned(angle_degrees=30.0):
    c, s = np.cos(np.radians(angle_degrees)), np.sin(np.radians(angle_degrees))
    return Grid(SHAPE[::-1], SPACING, (-100.0, 40.0, 700.0), (c, -s, 0, s, c, 0, 0, 0, 1))


def test_dsc_and_iou_count_voxels():
    a, b = mask((1, 1, 1), (1, 1, 2), (1, 1, 3)), mask((1, 1, 3), (1, 1, 4))
    assert metrics.dsc(a, b) == pytest.approx(2 / 5)
    assert metrics.iou(a, b) == pytest.approx(1 / 4)


def test_two_empty_masks_have_no_dsc_and_one_empty_mask_has_zero():
    assert np.isnan(metrics.dsc(mask(), mask()))
    assert np.isnan(metrics.iou(mask(), mask()))
    assert metrics.dsc(mask((1, 1, 1)), mask()) == 0.0
    assert metrics.iou(mask(), mask((1, 1, 1))) == 0.0


@pytest.mark.parametrize(("step_kji", "expected_mm"), [((0, 0, 2), 2.0), ((0, 2, 0), 4.0), ((2, 0, 0), 6.0)])
def test_single_voxels_apart_are_their_surfaces_distance_apart_in_mm(step_kji, expected_mm):
    distances = surface_distances(mask((3, 3, 3)), mask(tuple(np.add((3, 3, 3), step_kji))), SPACING)
    assert metrics.hausdorff(distances) == expected_mm
    # Half of each voxel's eight corners face the other voxel, one voxel nearer.
    assert metrics.mean_surface_distance(distances) == pytest.approx(0.75 * expected_mm)
    assert metrics.directed_mean_distances(distances) == pytest.approx((0.75 * expected_mm,) * 2)


def test_surface_dsc_is_the_share_of_area_within_the_tolerance():
    distances = surface_distances(mask((3, 3, 3)), mask((3, 3, 5)), SPACING)
    assert metrics.surface_dsc(distances, tolerance_mm=0.999) == 0.0
    assert metrics.surface_dsc(distances, tolerance_mm=1.0) == pytest.approx(0.5)
    assert metrics.surface_dsc(distances, tolerance_mm=2.0) == pytest.approx(1.0)


def test_equal_masks_are_at_distance_zero_even_when_they_touch_the_border():
    whole = np.ones(SHAPE, bool)
    distances = surface_distances(whole, whole.copy(), SPACING)
    assert metrics.hausdorff(distances) == 0.0
    assert metrics.mean_surface_distance(distances) == 0.0
    assert metrics.surface_dsc(distances, tolerance_mm=0.0) == 1.0


def test_one_empty_mask_is_infinitely_far_and_two_have_no_distance():
    one = surface_distances(mask(), mask((1, 1, 1)), SPACING)
    assert metrics.hausdorff(one) == metrics.hd95(one) == np.inf
    assert metrics.mean_surface_distance(one) == np.inf
    assert metrics.surface_dsc(one, tolerance_mm=5.0) == 0.0
    none = surface_distances(mask(), mask(), SPACING)
    assert np.isnan([metrics.hd95(none), metrics.mean_surface_distance(none)]).all()
    assert np.isnan(metrics.surface_dsc(none, tolerance_mm=5.0))


def test_hd95_is_a_percentile_of_area_not_of_elements():
    # A plate in the i-j plane, 3 mm thick, whose prediction has one voxel more on top: the bump is less than 5 % of
    # the area seen from the prediction and is not seen from the reference, so HD95 is 0 and HD is the bump's height.
    plate, bumped = box((2, 1, 1), (3, 21, 31), (6, 24, 34)), box((2, 1, 1), (3, 21, 31), (6, 24, 34))
    bumped[3, 10, 10] = True
    distances = surface_distances(bumped, plate, SPACING)
    assert metrics.hd95(distances) == 0.0
    assert metrics.hausdorff(distances) == 3.0


def test_the_area_of_a_flat_face_is_that_of_the_pixel():
    lower_half = 0b1111  # bits are corners in k, j, i order; the first four have k = 0
    areas = element_areas((3.0, 2.0, 1.0))
    assert areas[lower_half] == pytest.approx(2.0 * 1.0)
    assert areas[0] == areas[255] == 0.0
    # One voxel inside: a triangle through the three half-edges, half the cross product of (a, -b, 0) and (a, 0, -c).
    a, b, c = 1.5, 1.0, 0.5
    assert areas[1] == pytest.approx(0.5 * np.linalg.norm(np.cross((a, -b, 0), (a, 0, -c))))


def test_the_surface_is_the_same_from_either_side():
    areas = element_areas((3.0, 2.0, 1.0))
    np.testing.assert_allclose(areas, areas[::-1], atol=1e-12)


def test_added_path_length_counts_missing_contour_voxels():
    reference, prediction = box((2, 1, 1), (4, 6, 6)), box((2, 1, 1), (4, 6, 5))
    # Per slice: a 5×5 square's ring of 16 against a 5×4 block's ring of 14. The block's right side lies in column 4,
    # the square's in column 5: 5 voxels of the reference are missing. Two slices; mean in-plane spacing √(1·2).
    assert metrics.added_path_length(prediction, reference, SPACING) == pytest.approx(2 * 5 * np.sqrt(2.0))
    assert metrics.added_path_length(prediction, reference, SPACING, tolerance_mm=1.0) == 0.0
    assert metrics.added_path_length(reference, reference, SPACING) == 0.0
    assert metrics.added_path_length(mask(), reference, SPACING) == pytest.approx(2 * 16 * np.sqrt(2.0))
    assert metrics.added_path_length(prediction, mask(), SPACING) == 0.0


def test_volume_and_its_error_are_signed_and_in_millilitres():
    grid = turned()
    reference, prediction = box((0, 0, 0), (2, 2, 2)), box((0, 0, 0), (2, 2, 3))
    assert metrics.volume_ml(reference, grid) == pytest.approx(8 * 6 / 1000)
    assert metrics.relative_volume_error(prediction, reference) == pytest.approx(0.5)
    assert metrics.relative_volume_error(mask(), reference) == -1.0
    assert np.isnan(metrics.relative_volume_error(prediction, mask()))


def test_the_centroid_shift_is_in_the_patients_axes_on_an_oblique_grid():
    shift = metrics.centroid_shift_mm(mask((3, 3, 5)), mask((3, 3, 3)), turned(30.0))
    assert shift == pytest.approx((2 * np.cos(np.pi / 6), 2 * np.sin(np.pi / 6), 0.0))
    assert np.isnan(metrics.centroid_shift_mm(mask(), mask((1, 1, 1)), turned())).all()


def test_boundary_voxel_distances_run_between_voxel_centres():
    to_reference, to_prediction = metrics.voxel_surface_distances(mask((3, 3, 3)), mask((3, 3, 5)), SPACING)
    assert to_reference.tolist() == to_prediction.tolist() == [2.0]
    assert metrics.voxel_surface_distances(mask((3, 3, 3)), mask(), SPACING)[0].tolist() == [np.inf]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_symmetric_metrics_do_not_depend_on_the_order(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random(SHAPE) < 0.2, rng.random(SHAPE) < 0.2
    there, back = surface_distances(a, b, SPACING), surface_distances(b, a, SPACING)
    assert metrics.dsc(a, b) == metrics.dsc(b, a)
    assert metrics.hd95(there) == pytest.approx(metrics.hd95(back))
    assert metrics.mean_surface_distance(there) == pytest.approx(metrics.mean_surface_distance(back))
    assert metrics.surface_dsc(there, tolerance_mm=1) == pytest.approx(metrics.surface_dsc(back, tolerance_mm=1))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_distances_are_those_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((4, 5, 6)) < 0.15, rng.random((4, 5, 6)) < 0.15
    a[1, 1, 1] = b[3, 3, 3] = True

    def corners(m):
        padded = np.pad(m, 1).astype(int)
        total = sum(padded[k : k + 5, j : j + 6, i : i + 7] for k in (0, 1) for j in (0, 1) for i in (0, 1))
        return np.argwhere((total > 0) & (total < 8)) * SPACING[::-1]

    expected = np.linalg.norm(corners(b)[:, None] - corners(a)[None], axis=2).min(axis=1)
    np.testing.assert_allclose(surface_distances(a, b, SPACING).from_reference_mm, expected, atol=1e-12)
