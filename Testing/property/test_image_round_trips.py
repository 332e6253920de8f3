"""What goes into a file comes out of it, on any grid: oblique, left-handed, anisotropic, far from the origin."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hnseg.image.files import read_volume, write_volume
from hnseg.image.grid import Grid
from hnseg.image.orient import canonical, oriented_like
from hnseg.image.segmentation import Segmentation, read_segmentation, write_segmentation
from hnseg.image.volume import Volume
from hnseg.organs import ORGANS

DTYPES = (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64)

# The folder is the same for all examples of a test; each overwrites its file.
in_a_folder = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def rotation(axis, degrees):
    """Rodrigues' formula."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = math.radians(degrees)
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


@st.composite
def grids(draw):
    axis = draw(st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1))
    signs = draw(st.tuples(*[st.sampled_from((-1, 1))] * 3))
    order = draw(st.permutations(range(3)))
    axes = (rotation(axis, draw(st.floats(-180, 180))) * signs)[:, order]
    return Grid(
        draw(st.tuples(*[st.integers(2, 6)] * 3)),
        draw(st.tuples(*[st.floats(0.2, 8)] * 3)),
        draw(st.tuples(*[st.floats(-1500, 1500)] * 3)),
        tuple(axes.ravel()),
    )


@st.composite
def volumes(draw):
    grid = draw(grids())
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    if dtype.kind == "f":
        elements = st.floats(-1e4, 1e4, width=dtype.itemsize * 8)
    else:
        elements = st.integers(np.iinfo(dtype).min, np.iinfo(dtype).max)
    return Volume(draw(hnp.arrays(dtype, grid.shape_kji, elements=elements)), grid)


def nifti_tolerance_mm(grid):
    """NIfTI-1 holds the affine, the offsets and the quaternion in single precision: each relative to 2⁻²³.

    The quaternion's three stored components also carry the fourth, √(1 − a² − b² − c²), which near zero loses half the
    digits: hence the root of the precision times the grid's length.
    """
    single = 2.0**-23
    return 4 * single * np.abs(grid.corners_lps()).max() + math.sqrt(single) * grid.diagonal_mm


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@given(volume=volumes())
@in_a_folder
def test_nrrd_and_mha_keep_values_type_and_place(volume, ending, tmp_path):
    write_volume(volume, tmp_path / f"image{ending}")
    again = read_volume(tmp_path / f"image{ending}")
    assert again.array_kji.dtype == volume.array_kji.dtype
    assert np.array_equal(again.array_kji, volume.array_kji)
    assert again.grid.is_close(volume.grid, tolerance_mm=1e-9)
    assert np.allclose(again.grid.spacing_mm, volume.grid.spacing_mm, rtol=1e-14)


@given(volume=volumes())
@in_a_folder
def test_nifti_keeps_values_and_type_and_the_place_to_single_precision(volume, tmp_path):
    write_volume(volume, tmp_path / "image.nii")
    again = read_volume(tmp_path / "image.nii")
    assert again.array_kji.dtype == volume.array_kji.dtype
    assert np.array_equal(again.array_kji, volume.array_kji)
    assert again.grid.is_close(volume.grid, tolerance_mm=nifti_tolerance_mm(volume.grid))


@given(volume=volumes())
@in_a_folder
def test_a_second_nifti_round_trip_changes_nothing_more(volume, tmp_path):
    write_volume(volume, tmp_path / "a.nii")
    once = read_volume(tmp_path / "a.nii")
    write_volume(once, tmp_path / "b.nii")
    again = read_volume(tmp_path / "b.nii")
    assert again.grid.is_close(once.grid, tolerance_mm=nifti_tolerance_mm(volume.grid))


@given(volume=volumes())
@settings(deadline=None, derandomize=True)
def test_turning_to_canonical_axes_and_back_is_exact(volume):
    turned = canonical(volume)
    assert np.linalg.det(turned.grid.axes) > 0
    assert sorted(turned.array_kji.ravel()) == sorted(volume.array_kji.ravel())
    back = oriented_like(turned, volume.grid)
    assert back.grid == volume.grid
    assert np.array_equal(back.array_kji, volume.array_kji)


@given(grid=grids(), data=st.data())
@settings(deadline=None, derandomize=True)
def test_points_and_indices_are_each_others_inverse(grid, data):
    points = data.draw(hnp.arrays(np.float64, (4, 3), elements=st.floats(-2000, 2000)))
    assert np.allclose(grid.to_lps(grid.to_ijk(points)), points, atol=1e-7)


@st.composite
def mask_sets(draw):
    grid = draw(grids())
    organs = draw(st.lists(st.sampled_from(ORGANS), min_size=1, max_size=6, unique=True))
    mask = hnp.arrays(np.bool_, grid.shape_kji)
    return {organ.name: Volume(draw(mask), grid) for organ in organs}


@given(masks=mask_sets())
@in_a_folder
def test_overlapping_masks_survive_stacking_and_slicers_file(masks, tmp_path):
    stacked = Segmentation.from_masks(masks)
    write_segmentation(stacked, tmp_path / "x.seg.nrrd")
    again = read_segmentation(tmp_path / "x.seg.nrrd")
    assert again.segments == stacked.segments
    assert again.grid.is_close(stacked.grid, tolerance_mm=1e-9)
    for name, mask in masks.items():
        assert np.array_equal(stacked.mask(name).array_kji, mask.array_kji)
        assert np.array_equal(again.mask(name).array_kji, mask.array_kji)


@given(masks=mask_sets())
@settings(deadline=None, derandomize=True)
def test_every_voxel_gets_the_label_of_its_smallest_organ(masks):
    labels = Segmentation.from_masks(masks).to_labels().array_kji
    by_priority = sorted((organ for organ in ORGANS if organ.name in masks), key=lambda organ: organ.priority)
    expected = np.select([masks[o.name].array_kji for o in by_priority], [o.label for o in by_priority], 0)
    assert np.array_equal(labels, expected)


@given(masks=mask_sets())
@settings(deadline=None, derandomize=True)
def test_segments_of_a_layer_never_overlap(masks):
    stacked = Segmentation.from_masks(masks)
    assert len(stacked.layers) <= len(masks)
    for number, layer in enumerate(stacked.layers):
        inside = sum(masks[s.name].array_kji.astype(int) for s in stacked.segments if s.layer == number)
        assert np.max(inside) <= 1
        assert np.array_equal(inside == 1, layer.array_kji > 0)
