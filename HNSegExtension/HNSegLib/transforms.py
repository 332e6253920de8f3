"""Transform nodes ↔ SimpleITK transforms.

SimpleITK's resampling transforms map points of the fixed image to points of the moving one, in LPS; MRML nodes keep
that as their "from parent" side, in RAS. So the node of a CT→MR transform, as the MR's parent, puts the MR on the CT.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer

from hnseg.errors import GeometryMismatch
from HNSegLib.space import conjugated, to_vtk
from HNSegLib.volumes import matrix_between


def add_transform(scene: slicer.vtkMRMLScene, transform: sitk.Transform, name: str) -> slicer.vtkMRMLTransformNode:
    """A new node that moves the moving image onto the fixed one when it is set as the moving image's parent.

    Linear transforms become a ``vtkMRMLLinearTransformNode``, exactly; B-splines, displacement fields and composites a
    ``vtkMRMLTransformNode``, through Slicer's own reader. Outside the grid of a B-spline or field ITK and VTK differ by
    up to 1.5 mm.
    """
    if not transform.IsLinear():
        return _read_node(scene, transform, name)
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformFromParent(to_vtk(conjugated(_matrix_of(transform))))
    return node


def transform_of(
    node: slicer.vtkMRMLTransformNode, target: slicer.vtkMRMLTransformNode | None = None
) -> sitk.Transform:
    """The SimpleITK transform, fixed → moving in LPS, of a node and those above it up to ``target`` (None: the world).

    Linear chains are composed. A non-linear node must stand directly under ``target``; ``GeometryMismatch`` when it
    does not, or when ITK has no such transform (one that is known from its inverse only).
    """
    try:
        matrix = matrix_between(target, node, repr(node.GetName()))
    except GeometryMismatch:
        return _written(node, target)
    return _affine(conjugated(matrix))


def keep_registration(
    transform: sitk.Transform, mr: slicer.vtkMRMLScalarVolumeNode, segmentation: slicer.vtkMRMLSegmentationNode
) -> slicer.vtkMRMLTransformNode | None:
    """Keep where an MR lies on the CT (CT → MR points, LPS) with a segmentation, as a node; the MR is not moved yet.

    None, and nothing is kept, for an MR that has left the scene or stands under a transform: it is placed already.
    """
    scene = segmentation.GetScene()
    if mr.GetScene() is not scene or mr.GetParentTransformNode() is not None:
        return None
    node = registration_of(segmentation)
    if node is not None:
        scene.RemoveNode(node)
    node = add_transform(scene, transform, f"{mr.GetName()} on the CT")
    segmentation.SetNodeReferenceID(_REGISTRATION, node.GetID())
    segmentation.SetNodeReferenceID(_REGISTERED, mr.GetID())
    return node


def registration_of(segmentation: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLTransformNode | None:
    """The transform that ``keep_registration`` kept."""
    return segmentation.GetNodeReference(_REGISTRATION)


def put_on_ct(segmentation: slicer.vtkMRMLSegmentationNode, mr: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Show the MR where it was found to lie, by making that transform its parent; whether it is placed now.

    An MR that stands under a transform is placed by whoever put it there. False: nothing is known of this MR.
    """
    if mr.GetParentTransformNode() is not None:
        return True
    transform = registration_of(segmentation)
    if transform is None or segmentation.GetNodeReference(_REGISTERED) is not mr:
        return False
    mr.SetAndObserveTransformNodeID(transform.GetID())
    return True


_REGISTRATION, _REGISTERED = "HNSeg.Registration", "HNSeg.RegisteredMR"


def _matrix_of(transform: sitk.Transform) -> np.ndarray:
    """The 4×4 of a linear transform of any kind, from what it does to points."""
    origin = np.asarray(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, 3] = origin
    for axis, unit in enumerate(np.eye(3)):
        matrix[:3, axis] = np.asarray(transform.TransformPoint(tuple(unit))) - origin
    return matrix


def _affine(matrix_lps: np.ndarray) -> sitk.AffineTransform:
    return sitk.AffineTransform(matrix_lps[:3, :3].ravel().tolist(), matrix_lps[:3, 3].tolist())


def _read_node(scene: slicer.vtkMRMLScene, transform: sitk.Transform, name: str) -> slicer.vtkMRMLTransformNode:
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", name)
    storage = slicer.vtkMRMLTransformStorageNode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transform.h5"
        sitk.WriteTransform(transform, str(path))
        storage.SetFileName(str(path))
        if not storage.ReadData(node):
            scene.RemoveNode(node)
            kind = transform.GetName()
            raise GeometryMismatch(f"Slicer cannot read a transform of kind {kind}; make it a displacement field.")
    return node


def _written(node: slicer.vtkMRMLTransformNode, target: slicer.vtkMRMLTransformNode | None) -> sitk.Transform:
    refusal = (
        f"{node.GetName()!r} cannot become an ITK transform, got a non-linear one that is nested or known from its "
        "inverse only; harden it or convert it to a grid transform first."
    )
    if node.GetParentTransformNode() is not target:
        raise GeometryMismatch(refusal)
    storage = slicer.vtkMRMLTransformStorageNode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transform.h5"
        storage.SetFileName(str(path))
        try:
            if not storage.WriteData(node):
                raise GeometryMismatch(refusal)
            return sitk.ReadTransform(str(path))
        except RuntimeError as error:
            raise GeometryMismatch(refusal) from error
