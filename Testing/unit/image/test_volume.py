"""Arrays that know where they lie."""

import numpy as np
import pytest
import SimpleITK as sitk

from hnseg.errors import GeometryMismatch, UnsupportedImage
from hnseg.image.grid import Grid
from hnseg.image.itk import from_sitk, to_sitk
from hnseg.image.orient import canonical, oriented_like
from hnseg.image.resample import resample
from hnseg.image.volume import Volume


def value_at(volume, point_lps):
    i, j, k = np.rint(volume.grid.to_ijk(point_lps)).astype(int)
    return volume.array_kji[k, j, i]


def test_an_array_of_another_shape_is_refused(oblique_grid):
    with pytest.raises(GeometryMismatch, match=r"\(7, 5, 3\).*\(3, 5, 7\)"):
        Volume(np.zeros((7, 5, 3)), oblique_grid)


@pytest.mark.parametrize("shape", [(5, 7), (1, 3, 5, 7)])
def test_an_array_that_is_not_3d_is_refused(oblique_grid, shape):
    with pytest.raises(UnsupportedImage, match=f"{len(shape)}D"):
        Volume(np.zeros(shape), oblique_grid)


def test_a_crop_shows_the_same_voxels_at_the_same_places(oblique):
    crop = oblique.cropped((2, 1, 1), (3, 2, 2))
    assert crop.array_kji.shape == (2, 2, 3)
    assert crop.array_kji[0, 0, 0] == oblique.array_kji[1, 1, 2]
    point = oblique.grid.to_lps((4, 2, 2))
    assert value_at(crop, point) == value_at(oblique, point)
    assert np.shares_memory(crop.array_kji, oblique.array_kji)


@pytest.mark.parametrize(("start", "size"), [((-1, 0, 0), (3, 3, 3)), ((5, 0, 0), (3, 3, 3)), ((0, 0, 1), (7, 5, 3))])
def test_a_crop_that_leaves_the_grid_is_refused(oblique, start, size):
    with pytest.raises(GeometryMismatch, match="leaves the grid"):
        oblique.cropped(start, size)


def test_itk_sees_every_voxel_where_the_grid_says(oblique):
    image = to_sitk(oblique)
    assert image.GetSize() == (7, 5, 3)
    assert image.GetPixel(6, 1, 2) == oblique.array_kji[2, 1, 6]
    assert image.TransformIndexToPhysicalPoint((6, 1, 2)) == pytest.approx(oblique.grid.to_lps((6, 1, 2)))
    assert from_sitk(image).grid == oblique.grid


def test_booleans_become_bytes_in_itk(oblique):
    image = to_sitk(oblique.with_array(oblique.array_kji > 0))
    assert image.GetPixelID() == sitk.sitkUInt8


def test_values_from_itk_are_a_copy(oblique):
    image = to_sitk(oblique)
    volume = from_sitk(image)
    volume.array_kji[0, 0, 0] = 999
    assert image.GetPixel(0, 0, 0) == oblique.array_kji[0, 0, 0]


def test_resampling_to_the_same_grid_is_the_volume_itself(oblique):
    assert resample(oblique, oblique.grid) is oblique


def test_nearest_resampling_onto_a_crop_copies_its_voxels(oblique):
    crop = oblique.cropped((2, 1, 1), (3, 2, 2))
    assert np.array_equal(resample(oblique, crop.grid, interpolation="nearest").array_kji, crop.array_kji)


def test_linear_resampling_halfway_between_two_voxels_is_their_mean(oblique):
    values = oblique.with_array(oblique.array_kji.astype(np.float32))
    half = Grid((1, 1, 1), (1, 1, 1), tuple(oblique.grid.to_lps((2.5, 1, 1))), oblique.grid.direction)
    expected = (float(values.array_kji[1, 1, 2]) + float(values.array_kji[1, 1, 3])) / 2
    assert resample(values, half).array_kji.item() == pytest.approx(expected)


def test_outside_the_volume_is_the_fill_value(oblique):
    far = Grid((2, 2, 2), origin_lps=(500, 500, 500))
    assert (resample(oblique, far, fill=-1000).array_kji == -1000).all()


def test_the_transform_maps_points_of_the_new_grid_to_points_of_the_volume(oblique):
    move = sitk.TranslationTransform(3, (2.4, 1.8, 0.0))  # three voxels along i
    moved = resample(oblique, oblique.grid, interpolation="nearest", transform=move, fill=-1)
    assert np.array_equal(moved.array_kji[:, :, :4], oblique.array_kji[:, :, 3:])
    assert (moved.array_kji[:, :, 4:] == -1).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_resampling_keeps_the_value_type(oblique, dtype):
    volume = oblique.with_array(oblique.array_kji.astype(dtype))
    assert resample(volume, oblique.grid.respaced((2, 2, 2))).array_kji.dtype == dtype


DIRECTIONS = {
    "head first supine": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "feet first supine": (-1, 0, 0, 0, 1, 0, 0, 0, -1),
    "sagittal storage": (0, 0, -1, 1, 0, 0, 0, -1, 0),
    "left-handed": (1, 0, 0, 0, 1, 0, 0, 0, -1),
    "oblique": (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1),
}


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_canonical_axes_run_to_left_posterior_superior_and_move_no_voxel(direction):
    grid = Grid((7, 5, 3), (1, 2, 3), (10, -20, 30), direction)
    volume = Volume(np.arange(105).reshape(3, 5, 7), grid)
    turned = canonical(volume)
    assert (np.diag(turned.grid.axes) > 0.7).all()
    assert np.linalg.det(turned.grid.axes) > 0
    for index in ((0, 0, 0), (6, 4, 2), (1, 3, 2)):
        point = grid.to_lps(index)
        assert value_at(turned, point) == value_at(volume, point)


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_turning_to_canonical_and_back_is_exact(direction):
    volume = Volume(np.arange(105).reshape(3, 5, 7), Grid((7, 5, 3), (1, 2, 3), (10, -20, 30), direction))
    back = oriented_like(canonical(volume), volume.grid)
    assert back.grid == volume.grid
    assert np.array_equal(back.array_kji, volume.array_kji)
