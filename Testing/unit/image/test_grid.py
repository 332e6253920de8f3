"""Where voxels lie, against positions worked out by hand."""

import numpy as np
import pytest

from hnseg.errors import GeometryMismatch
from hnseg.image.grid import Grid


def test_an_index_lands_where_axes_and_spacing_put_it(oblique_grid):
    # 1 step along i: 1 mm · (0.8, 0.6, 0); 1 along j: 2 mm · (−0.6, 0.8, 0); 1 along k: 3 mm · z
    assert oblique_grid.to_lps((1, 0, 0)) == pytest.approx((10.8, -19.4, 30.0))
    assert oblique_grid.to_lps((0, 1, 0)) == pytest.approx((8.8, -18.4, 30.0))
    assert oblique_grid.to_lps((2, 1, 1)) == pytest.approx((10.4, -17.2, 33.0))


def test_points_come_back_to_their_indices_whatever_their_shape(oblique_grid):
    indices = np.array([[[0, 0, 0], [6, 4, 2]], [[1.5, -2, 7.25], [3, 3, 3]]])
    assert oblique_grid.to_ijk(oblique_grid.to_lps(indices)) == pytest.approx(indices)


def test_shape_is_the_size_reversed(oblique_grid):
    assert oblique_grid.size_ijk == (7, 5, 3)
    assert oblique_grid.shape_kji == (3, 5, 7)
    assert oblique_grid.voxels == 105
    assert oblique_grid.voxel_ml == pytest.approx(0.006)


def test_corners_are_voxel_edges_and_the_centre_is_in_their_middle():
    grid = Grid((2, 4, 1), (1, 2, 3), (100, 200, 300))
    low, high = grid.bounds_lps()
    assert low == pytest.approx((99.5, 199, 298.5))
    assert high == pytest.approx((101.5, 207, 301.5))
    assert grid.centre_lps == pytest.approx((100.5, 203, 300))
    assert grid.diagonal_mm == pytest.approx(np.sqrt(2**2 + 8**2 + 3**2))


def test_an_affine_gives_the_grid_that_it_came_from(oblique_grid):
    again = Grid.from_affine(oblique_grid.shape_kji, oblique_grid.ijk_to_lps)
    assert again.is_close(oblique_grid, tolerance_mm=1e-9)
    assert again.spacing_mm == pytest.approx(oblique_grid.spacing_mm)


def test_a_crop_starts_at_its_first_voxel_and_a_negative_start_pads(oblique_grid):
    crop = oblique_grid.cropped((2, 1, 1), (3, 2, 1))
    assert crop.size_ijk == (3, 2, 1)
    assert crop.origin_lps == pytest.approx((10.4, -17.2, 33.0))
    assert oblique_grid.cropped((-1, 0, 0), (8, 5, 3)).origin_lps == pytest.approx((9.2, -20.6, 30.0))


def test_another_spacing_keeps_the_outer_edge_and_covers_the_far_end(oblique_grid):
    coarse = oblique_grid.respaced((2.0, 2.0, 2.0))
    assert coarse.size_ijk == (4, 5, 5)  # 7 mm → 4, 10 mm → 5, 9 mm → 5
    assert coarse.to_lps((-0.5, -0.5, -0.5)) == pytest.approx(oblique_grid.to_lps((-0.5, -0.5, -0.5)))


def test_the_same_spacing_gives_the_same_grid(oblique_grid):
    assert oblique_grid.respaced(oblique_grid.spacing_mm).is_close(oblique_grid, tolerance_mm=1e-9)


def test_closeness_is_judged_at_the_far_corner():
    grid = Grid((100, 100, 100))
    turned = Grid((100, 100, 100), direction=(1, -1e-4, 0, 1e-4, 1, 0, 0, 0, 1))  # 0.01 mm at 100 mm
    assert not grid.is_close(turned)
    assert grid.is_close(turned, tolerance_mm=0.02)
    assert not grid.is_close(Grid((100, 100, 101)))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"size_ijk": (0, 5, 3)}, "sizes"),
        ({"size_ijk": (7, 5)}, "sizes"),
        ({"size_ijk": (7, 5, 3), "spacing_mm": (1, 0, 1)}, "spacing"),
        ({"size_ijk": (7, 5, 3), "spacing_mm": (1, -1, 1)}, "spacing"),
        ({"size_ijk": (7, 5, 3), "spacing_mm": (1, 1)}, "finite"),
        ({"size_ijk": (7, 5, 3), "origin_lps": (0, float("nan"), 0)}, "finite"),
        ({"size_ijk": (7, 5, 3), "direction": (1, 0.3, 0, 0, 1, 0, 0, 0, 1)}, "sheared"),
        ({"size_ijk": (7, 5, 3), "direction": (1, 0, 0, 0, 1, 0, 0, 0, 0)}, "orthogonal"),
    ],
)
def test_improper_grids_are_refused(arguments, word):
    with pytest.raises(GeometryMismatch, match=word):
        Grid(**arguments)


def test_a_singular_affine_is_refused():
    with pytest.raises(GeometryMismatch, match="affine"):
        Grid.from_affine((3, 5, 7), np.zeros((4, 4)))


def test_a_grids_matrices_cannot_be_written_to(oblique_grid):
    with pytest.raises(ValueError, match="read-only"):
        oblique_grid.ijk_to_lps[0, 0] = 2
