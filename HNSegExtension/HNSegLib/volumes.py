"""Volume nodes ↔ the engine's volumes.

A node's place in the patient is its IJK→RAS AND the transforms above it. Linear ones are composed into the grid,
exactly. Non-linear ones (a deformable registration, or the acquisition transform of an irregular DICOM series) cannot
be a grid: they are refused, or the image is resampled when the caller asks for that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from hnseg.errors import GeometryMismatch, UnsupportedImage
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from HNSegLib.space import Matrix, flipped_rows, from_vtk, to_vtk


def volume_of(node: slicer.vtkMRMLVolumeNode, *, resample: bool = False) -> Volume:
    """A copy of the node's voxels where they lie in the world.

    Under a non-linear transform the image is resampled by Slicer (its interpolation, its background) when ``resample``
    is set, and refused otherwise. Raises ``UnsupportedImage`` for a node without a scalar image, ``GeometryMismatch``
    for sheared axes and for non-linear transforms.
    """
    image, ijk_to_world_ras = _in_world(node, resample=resample)
    array = _voxels(image, node.GetName())
    return Volume(array, Grid.from_affine(array.shape, flipped_rows(ijk_to_world_ras) @ _to_first_voxel(image)))


def grid_of(node: slicer.vtkMRMLVolumeNode) -> Grid:
    """Where the node's voxels lie in the world, without copying them; raises as ``volume_of`` does."""
    image, ijk_to_world_ras = _in_world(node, resample=False)
    ni, nj, nk = image.GetDimensions()
    return Grid.from_affine((nk, nj, ni), flipped_rows(ijk_to_world_ras) @ _to_first_voxel(image))


def is_bent(node: slicer.vtkMRMLTransformableNode) -> bool:
    """Whether a non-linear transform stands between the node and the world."""
    parent = node.GetParentTransformNode()
    return parent is not None and not parent.IsTransformToWorldLinear()


def likely_ct(scene: slicer.vtkMRMLScene) -> slicer.vtkMRMLScalarVolumeNode | None:
    """The scene's first volume that holds air in HU; None when there is none."""
    count = scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    nodes = (scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode") for n in range(count))
    return next((node for node in nodes if _holds_air(node)), None)


def add_volume(
    scene: slicer.vtkMRMLScene, volume: Volume, name: str, node_class: str = "vtkMRMLScalarVolumeNode"
) -> slicer.vtkMRMLVolumeNode:
    """A new volume node in the world, with display and without parent transform. Booleans become uint8."""
    node = scene.AddNewNodeByClass(node_class, name)
    set_volume(node, volume)
    node.CreateDefaultDisplayNodes()
    return node


def set_volume(node: slicer.vtkMRMLVolumeNode, volume: Volume) -> None:
    """Give the node a copy of the voxels, placed in the node's own space: its parent transform is not undone."""
    image = vtk.vtkImageData()
    image.SetDimensions(*volume.grid.size_ijk)
    image.GetPointData().SetScalars(scalars_of(volume.array_kji))
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(to_vtk(flipped_rows(volume.grid.ijk_to_lps)))


def scalars_of(array_kji: NDArray[Any]) -> vtk.vtkDataArray:
    """A VTK array with a copy of the values, i running fastest. Booleans become uint8."""
    flat = np.ascontiguousarray(array_kji.astype(np.uint8) if array_kji.dtype == bool else array_kji).ravel()
    return numpy_support.numpy_to_vtk(flat, deep=True)


def matrix_between(
    source: slicer.vtkMRMLTransformNode | None, target: slicer.vtkMRMLTransformNode | None, what: str
) -> Matrix:
    """4×4 that takes RAS points under ``source`` to RAS points under ``target`` (None: the world).

    ``GeometryMismatch`` naming ``what`` when a transform on the way is not linear.
    """
    general = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, general)
    linear = vtk.vtkTransform()
    if not slicer.vtkMRMLTransformNode.IsGeneralTransformLinear(general, linear):
        raise GeometryMismatch(
            f"{what} stands under a non-linear transform, got no single grid for it; harden the transform first."
        )
    return from_vtk(linear.GetMatrix())


def _holds_air(node: slicer.vtkMRMLScalarVolumeNode) -> bool:
    image = node.GetImageData()
    return image is not None and image.GetNumberOfPoints() > 0 and image.GetScalarRange()[0] <= _AIR_HU


_AIR_HU = -500.0


def _in_world(node: slicer.vtkMRMLVolumeNode, *, resample: bool) -> tuple[vtk.vtkImageData, Matrix]:
    image = node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise UnsupportedImage(f"{node.GetName()!r} holds no image; load one or choose another volume.")
    if resample and is_bent(node):
        return _resampled(node)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return image, matrix_between(node.GetParentTransformNode(), None, repr(node.GetName())) @ from_vtk(matrix)


def _resampled(node: slicer.vtkMRMLVolumeNode) -> tuple[vtk.vtkImageData, Matrix]:
    """The image as hardening its transforms leaves it. A passing copy is hardened; the node itself stays."""
    scene = node.GetScene()
    copy = scene.AddNewNodeByClass(node.GetClassName(), f"{node.GetName()} resampled")
    try:
        copy.SetHideFromEditors(True)
        copy.SetAndObserveImageData(node.GetImageData())
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        copy.SetIJKToRASMatrix(matrix)
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        copy.HardenTransform()
        copy.GetIJKToRASMatrix(matrix)
        return copy.GetImageData(), from_vtk(matrix)
    finally:
        scene.RemoveNode(copy)


def _voxels(image: vtk.vtkImageData, name: str) -> NDArray[Any]:
    if image.GetNumberOfScalarComponents() != 1:
        got = image.GetNumberOfScalarComponents()
        raise UnsupportedImage(f"{name!r} must have one value a voxel, got {got}; extract one channel first.")
    ni, nj, nk = image.GetDimensions()
    return np.array(numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())).reshape(nk, nj, ni)


def _to_first_voxel(image: vtk.vtkImageData) -> Matrix:
    """MRML counts i, j, k from the image's extent, a grid from zero."""
    shift = np.eye(4)
    shift[:3, 3] = np.asarray(image.GetExtent())[::2]
    return shift
