"""Tracing masks and filling polygons: each other's inverse, with the mask's area."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hnseg.dicomrt.contours import Outline, contains, fill, keyhole, signed_area, simplify, trace

HAIR = 0.002


def blobs(seed):
    """Islands, holes, islands in holes, single pixels, pixels that touch at corners, and all of it at the border."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(
        rng.standard_normal((rng.integers(1, 25), rng.integers(1, 35))), rng.choice([0, 0.6, 1.5])
    )
    return noise > rng.uniform(-0.2, 0.4) * noise.std()


def polygons_of(outlines):
    return [polygon for outline in outlines for polygon in (outline.outer, *outline.holes)]


def test_a_single_pixel_becomes_its_square():
    mask = np.zeros((4, 5), bool)
    mask[1, 3] = True
    (outline,) = trace(mask)
    assert outline.holes == ()
    low, high = outline.outer.min(axis=0), outline.outer.max(axis=0)
    np.testing.assert_allclose([*low, *high], [0.5, 2.5, 1.5, 3.5], atol=2 * HAIR)
    assert signed_area(outline.outer) == pytest.approx(1.0, abs=0.02)


def test_a_hole_belongs_to_the_island_around_it_and_an_island_in_it_stands_alone():
    mask = np.zeros((11, 13), bool)
    mask[1:10, 1:12] = True
    mask[3:8, 3:10] = False
    mask[5, 6] = True
    outlines = sorted(trace(mask), key=lambda outline: -signed_area(outline.outer))
    assert [len(outline.holes) for outline in outlines] == [1, 0]
    assert signed_area(outlines[0].outer) == pytest.approx(9 * 11, abs=0.1)
    assert signed_area(outlines[0].holes[0]) == pytest.approx(-5 * 7, abs=0.1)


def test_an_empty_slice_has_no_outline():
    assert trace(np.zeros((3, 4), bool)) == ()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_filling_what_was_traced_gives_the_mask_back(seed):
    mask = blobs(seed)
    outlines = trace(mask)
    np.testing.assert_array_equal(fill(polygons_of(outlines), mask.shape), mask)
    np.testing.assert_array_equal(fill([keyhole(outline) for outline in outlines], mask.shape), mask)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_polygons_have_the_masks_area(seed):
    mask = blobs(seed)
    polygons = polygons_of(trace(mask))
    area = sum(signed_area(polygon) for polygon in polygons)
    assert abs(area - mask.sum()) <= HAIR * sum(map(len, polygons)) + 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.05]))
def test_fewer_points_within_the_tolerance_still_give_the_mask_back(seed, tolerance_mm):
    mask = blobs(seed)
    pixel = (0.56, 0.7)
    thinner = [
        Outline(
            *(simplify(polygon, tolerance=tolerance_mm, pixel=pixel) for polygon in (outline.outer,)), outline.holes
        )
        for outline in trace(mask)
    ]
    np.testing.assert_array_equal(fill([keyhole(outline) for outline in thinner], mask.shape), mask)
    for before, after in zip(trace(mask), thinner, strict=True):
        assert len(after.outer) <= len(before.outer)
        assert _farthest(before.outer * pixel, after.outer * pixel) <= tolerance_mm + 1e-9


def _farthest(points, polygon):
    """The largest distance of any point from the polygon's edges."""
    start, end = polygon[np.newaxis], np.roll(polygon, -1, axis=0)[np.newaxis]
    along = end - start
    share = ((points[:, np.newaxis] - start) * along).sum(-1) / (along**2).sum(-1)
    nearest = start + np.clip(share, 0, 1)[..., np.newaxis] * along
    return float(np.linalg.norm(points[:, np.newaxis] - nearest, axis=-1).min(axis=1).max())


def test_points_on_straight_runs_go_and_corners_stay():
    mask = np.zeros((8, 12), bool)
    mask[2:6, 2:10] = True
    (outline,) = trace(mask)
    assert len(simplify(outline.outer, tolerance=0.0)) == 4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_vertices_rounded_to_pixels_land_on_the_masks_side(seed):
    mask = blobs(seed)
    for polygon in polygons_of(trace(mask)):
        rows, columns = np.rint(polygon).astype(int).T
        assert mask[rows, columns].all()


def test_filling_leaves_out_what_is_outside_the_slice():
    square = np.array([[-5.5, -5.5], [-5.5, 1.5], [2.5, 1.5], [2.5, -5.5]])
    expected = np.zeros((5, 4), bool)
    expected[:3, :2] = True
    np.testing.assert_array_equal(fill([square], (5, 4)), expected)
    assert not fill([square + 100], (5, 4)).any()
    assert not fill([square - 1e9], (5, 4)).any()


def test_a_point_is_inside_by_the_even_odd_rule():
    triangle = np.array([[0.0, 0.0], [0.0, 6.0], [4.0, 0.0]])
    assert contains(triangle, (1.0, 1.0))
    assert not contains(triangle, (3.0, 5.0))
