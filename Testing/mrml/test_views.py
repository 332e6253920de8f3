"""What the views show, on real MRML nodes."""

import numpy as np
import pytest

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from HNSegLib.segments import import_labels
from HNSegLib.views import fade, is_shown_in_3d, jump_to, show_in_3d
from HNSegLib.volumes import add_volume, likely_ct

GRID = Grid((40, 35, 6), (1.0, 2.0, 3.0), (-20.0, 15.0, 100.0))


@pytest.fixture
def plan(scene):
    """Parotid_L: i 20…23, j 10…12, k 1…2."""
    array = np.zeros(GRID.shape_kji, np.uint8)
    array[1:3, 10:13, 20:24] = 27
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Plan")
    node.CreateDefaultDisplayNodes()
    import_labels(Volume(array, GRID), node)
    return node


def test_surfaces_come_and_go(plan):
    assert not is_shown_in_3d(plan)
    show_in_3d(plan, True)
    assert is_shown_in_3d(plan)
    surface = plan.GetSegmentation().GetSegment("Parotid_L").GetRepresentation("Closed surface")
    # RAS of the outermost voxels' middles; smoothing takes something off.
    assert surface.GetBounds() == pytest.approx((-3, 0, -39, -35, 103, 106), abs=1.0)
    show_in_3d(plan, False)
    assert not is_shown_in_3d(plan)


def test_surface_nets_with_joint_smoothing_are_empty_in_slicer_still(plan):
    """When this fails, Slicer has mended it, and joint smoothing may be used: it takes a third of the time."""
    for name in ("Conversion method", "Joint smoothing"):
        plan.GetSegmentation().SetConversionParameter(name, "1")
    plan.CreateClosedSurfaceRepresentation()
    surface = plan.GetSegmentation().GetSegment("Parotid_L").GetRepresentation("Closed surface")
    assert surface.GetNumberOfPoints() == 0


def test_jumping_brings_a_segments_middle_into_every_slice_view(plan, scene):
    slices = scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    slices.SetFieldOfView(100, 100, 1)
    jump_to(plan, "Parotid_L")
    matrix = slices.GetSliceToRAS()
    # LPS (-20 + 21.5, 15 + 2·11, 100 + 3·1.5)
    assert [matrix.GetElement(axis, 3) for axis in range(3)] == pytest.approx((-1.5, -37, 104.5), abs=3.1)


def test_an_empty_segment_moves_no_view(plan, scene):
    slices = scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    before = [slices.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)]
    jump_to(plan, "Lips")
    assert [slices.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)] == before


def test_the_mr_lies_over_the_ct_in_every_slice_view(scene):
    ct, mr = (add_volume(scene, Volume(np.zeros((2, 3, 4), np.int16), Grid((4, 3, 2))), name) for name in ("CT", "T1"))
    layers = [scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode") for _ in range(2)]
    fade(ct, mr, 0.4)
    assert [one.GetForegroundOpacity() for one in layers] == [0.4, 0.4]
    assert {one.GetBackgroundVolumeID() for one in layers} == {ct.GetID()}
    assert {one.GetForegroundVolumeID() for one in layers} == {mr.GetID()}


def test_the_likely_ct_is_the_volume_that_holds_air(scene):
    assert likely_ct(scene) is None
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow")
    add_volume(scene, Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), Grid((4, 3, 2))), "T1")
    assert likely_ct(scene) is None
    ct = add_volume(scene, Volume(np.full((2, 3, 4), -1000, np.int16), Grid((4, 3, 2))), "CT")
    assert likely_ct(scene) is ct
