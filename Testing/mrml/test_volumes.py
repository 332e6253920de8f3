"""Volume nodes against SimpleITK, which reads and writes the same files as Slicer."""

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk

from hnseg.errors import GeometryMismatch, UnsupportedImage
from hnseg.image.grid import Grid
from hnseg.image.itk import from_sitk, to_sitk
from hnseg.image.volume import Volume
from HNSegLib.volumes import add_volume, grid_of, is_bent, set_volume, volume_of


def linear(scene, matrix_ras, parent=None):
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    vtk_matrix = vtk.vtkMatrix4x4()
    vtk_matrix.DeepCopy(np.ravel(matrix_ras).tolist())
    node.SetMatrixTransformToParent(vtk_matrix)
    if parent is not None:
        node.SetAndObserveTransformNodeID(parent.GetID())
    return node


def bend(scene):
    """A grid transform that moves everything by (0, 0, 4) mm in RAS, yet is not linear for VTK."""
    image = vtk.vtkImageData()
    image.SetDimensions(4, 4, 4)
    image.AllocateScalars(vtk.VTK_DOUBLE, 3)
    for n in range(64):
        image.GetPointData().GetScalars().SetTuple3(n, 0, 0, -4)
    transform = slicer.vtkOrientedGridTransform()
    image.SetOrigin(-600, -600, -600)
    image.SetSpacing(400, 400, 400)
    transform.SetDisplacementGridData(image)
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    node.SetAndObserveTransformFromParent(transform)
    return node


def test_a_volume_survives_the_way_into_a_node_and_back(scene, volume):
    back = volume_of(add_volume(scene, volume, "CT"))
    np.testing.assert_array_equal(back.array_kji, volume.array_kji)
    assert back.array_kji.dtype == volume.array_kji.dtype
    assert back.grid.is_close(volume.grid, tolerance_mm=1e-9)


def test_slicer_reads_an_image_of_simpleitk_to_the_same_place(scene, volume, tmp_path):
    path = str(tmp_path / "image.nrrd")
    sitk.WriteImage(to_sitk(volume), path)
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(path)
    assert storage.ReadData(node)
    seen = volume_of(node)
    # Slicer's reader reverses the slices of left-handed images, so compare point by point.
    ijk = np.indices(volume.array_kji.shape)[::-1].reshape(3, -1).T
    there = seen.grid.to_ijk(volume.grid.to_lps(ijk))
    np.testing.assert_allclose(there, there.round(), atol=1e-6)
    i, j, k = there.round().astype(int).T
    np.testing.assert_array_equal(seen.array_kji[k, j, i], volume.array_kji.ravel())


def test_simpleitk_reads_a_node_that_slicer_wrote_to_the_same_place(scene, volume, tmp_path):
    path = str(tmp_path / "image.nrrd")
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(path)
    assert storage.WriteData(add_volume(scene, volume, "CT"))
    assert from_sitk(sitk.ReadImage(path)).grid.is_close(volume.grid, tolerance_mm=1e-6)


def test_voxel_one_two_zero_of_a_hand_worked_node_lies_where_slicer_shows_it(scene):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    set_volume(node, Volume(np.zeros((3, 5, 7), np.uint8), Grid((7, 5, 3), (2, 3, 4), (10, 20, 30))))
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    # LPS (10 + 2, 20 + 6, 30) is RAS (-12, -26, 30).
    assert matrix.MultiplyPoint((1, 2, 0, 1)) == (-12.0, -26.0, 30.0, 1.0)


def test_linear_transforms_above_a_volume_are_composed_into_its_grid(scene, volume, oblique):
    node = add_volume(scene, volume, "CT")
    turn, shift = np.eye(4), np.eye(4)
    turn[:3, :3] = oblique
    shift[:3, 3] = (5, -7, 11)
    outer = linear(scene, shift)
    node.SetAndObserveTransformNodeID(linear(scene, turn, outer).GetID())
    corner_ras = node.GetImageData() and _world_ras(node, (6, 4, 2))
    seen = volume_of(node)
    np.testing.assert_allclose(seen.grid.to_lps((6, 4, 2)) * (-1, -1, 1), corner_ras, atol=1e-6)
    assert grid_of(node) == seen.grid
    node.HardenTransform()
    assert volume_of(node).grid.is_close(seen.grid, tolerance_mm=1e-6)


def _world_ras(node, ijk):
    matrix, general = vtk.vtkMatrix4x4(), vtk.vtkGeneralTransform()
    node.GetIJKToRASMatrix(matrix)
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(node.GetParentTransformNode(), None, general)
    return general.TransformPoint(matrix.MultiplyPoint((*ijk, 1))[:3])


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64])
def test_every_scalar_type_of_slicer_keeps_its_values(scene, kind):
    grid = Grid((2, 3, 4))
    extremes = np.array([np.finfo(kind).min if np.issubdtype(kind, np.floating) else np.iinfo(kind).min, 0, 1, 7])
    array = np.resize(extremes.astype(kind), grid.shape_kji)
    seen = volume_of(add_volume(scene, Volume(array, grid), "v")).array_kji
    assert seen.dtype == kind
    np.testing.assert_array_equal(seen, array)


def test_a_mask_becomes_bytes(scene):
    array = np.indices((2, 3, 4)).sum(axis=0) % 2 == 1
    node = add_volume(scene, Volume(array, Grid((4, 3, 2))), "mask", "vtkMRMLLabelMapVolumeNode")
    seen = volume_of(node).array_kji
    assert seen.dtype == np.uint8
    np.testing.assert_array_equal(seen, array)


def test_the_volume_is_a_copy_so_that_painting_the_node_leaves_it_alone(scene):
    node = add_volume(scene, Volume(np.zeros((2, 2, 2), np.int16), Grid((2, 2, 2))), "v")
    taken = volume_of(node)
    node.GetImageData().GetPointData().GetScalars().Fill(9)
    assert taken.array_kji.max() == 0


def test_an_image_whose_extent_does_not_begin_at_zero_lies_where_slicer_shows_it(scene, volume):
    node = add_volume(scene, volume, "v")
    node.GetImageData().SetExtent(10, 16, 20, 24, 30, 32)
    np.testing.assert_allclose(grid_of(node).origin_lps, volume.grid.to_lps((10, 20, 30)), atol=1e-9)


def test_a_non_linear_transform_is_refused_with_a_remedy(scene, volume):
    node = add_volume(scene, volume, "Bent CT")
    node.SetAndObserveTransformNodeID(bend(scene).GetID())
    assert is_bent(node)
    with pytest.raises(GeometryMismatch, match=r"'Bent CT'.*harden"):
        volume_of(node)


def test_a_non_linear_transform_is_resampled_on_purpose_and_the_node_stays(scene):
    # A block at k = 4…7 of 1 mm slices; the transform lifts it by 4 mm.
    array = np.zeros((16, 12, 12), np.int16)
    array[4:8, 3:9, 3:9] = 100
    node = add_volume(scene, Volume(array, Grid((12, 12, 16))), "CT")
    before = volume_of(node)
    node.SetAndObserveTransformNodeID(bend(scene).GetID())
    count = scene.GetNumberOfNodes()
    seen = volume_of(node, resample=True)
    kept = np.argwhere(seen.array_kji > 50)[:, ::-1]
    centre = seen.grid.to_lps(kept).mean(axis=0)
    np.testing.assert_allclose(centre, (5.5, 5.5, 9.5), atol=0.3)
    assert scene.GetNumberOfNodes() == count
    node.SetAndObserveTransformNodeID(None)
    np.testing.assert_array_equal(volume_of(node).array_kji, before.array_kji)


def test_sheared_axes_are_refused(scene, volume):
    node = add_volume(scene, volume, "v")
    shear = np.eye(4)
    shear[0, 1] = 0.2
    node.SetAndObserveTransformNodeID(linear(scene, shear).GetID())
    with pytest.raises(GeometryMismatch, match="shear"):
        volume_of(node)


def test_a_node_without_an_image_is_refused(scene):
    with pytest.raises(UnsupportedImage, match="holds no image"):
        volume_of(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))


def test_a_colour_image_is_refused(scene):
    node = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    image = vtk.vtkImageData()
    image.SetDimensions(2, 2, 2)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    node.SetAndObserveImageData(image)
    with pytest.raises(UnsupportedImage, match="one value a voxel, got 3"):
        volume_of(node)
