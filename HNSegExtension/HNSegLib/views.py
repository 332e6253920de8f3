"""What the slice and 3D views show: an organ in the middle, surfaces, the MR over the CT. No Qt."""

from __future__ import annotations

import slicer

from HNSegLib.reviewing import centre_ras

_SURFACES = "Closed surface"
_SURFACE_NETS = ("Conversion method", "1")  # with "Joint smoothing" beside it, Slicer 5.12 makes empty surfaces


def jump_to(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> None:
    """All slice views to the middle of a segment; nothing for an empty one."""
    centre = centre_ras(segmentation_node, segment_id)
    if centre is not None:
        slices = slicer.vtkMRMLSliceNode
        slices.JumpAllSlices(segmentation_node.GetScene(), *centre, slices.CenteredJumpSlice)


def is_shown_in_3d(segmentation_node: slicer.vtkMRMLSegmentationNode) -> bool:
    """Whether the segments have surfaces."""
    return bool(segmentation_node.GetSegmentation().ContainsRepresentation(_SURFACES))


def show_in_3d(segmentation_node: slicer.vtkMRMLSegmentationNode, shown: bool) -> None:
    """Make the surfaces of all segments, or take them away: they follow every edit, which costs time."""
    segmentation = segmentation_node.GetSegmentation()
    if not shown:
        segmentation.RemoveRepresentation(_SURFACES)
        return
    segmentation.SetConversionParameter(*_SURFACE_NETS)
    segmentation_node.CreateClosedSurfaceRepresentation()
    segmentation_node.GetDisplayNode().SetVisibility3D(True)


def fade(ct: slicer.vtkMRMLScalarVolumeNode | None, mr: slicer.vtkMRMLScalarVolumeNode, opacity: float) -> None:
    """The MR over the CT in every slice view, with an opacity of 0…1."""
    scene = mr.GetScene()
    for n in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        layers = scene.GetNthNodeByClass(n, "vtkMRMLSliceCompositeNode")
        if ct is not None:
            layers.SetBackgroundVolumeID(ct.GetID())
        layers.SetForegroundVolumeID(mr.GetID())
        layers.SetForegroundOpacity(opacity)
