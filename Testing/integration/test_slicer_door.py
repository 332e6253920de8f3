"""The Slicer door end to end, without Qt: nodes → real worker process → real engine → segments of a real scene."""

import time

import numpy as np
import pytest
import slicer
from vtk.util.numpy_support import vtk_to_numpy

from hnseg.image.files import read_volume
from hnseg.jobs.client import Worker
from hnseg.jobs.request import SegmentRequest
from hnseg.jobs.segment import run_segment
from hnseg.organs import ORGANS
from HNSegLib.choices import Choices
from HNSegLib.desk import WorkerDesk
from HNSegLib.effect_logic import EffectLogic
from HNSegLib.segmenting import SegmentJob
from HNSegLib.volumes import add_volume


@pytest.fixture
def scene():
    scene = slicer.vtkMRMLScene()
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(scene)
    yield scene
    logic.SetMRMLScene(None)


def labels_of(segmentation, grid):
    """All segments as one label array on a grid whose lattice they share, by Slicer's own extents."""
    array = np.zeros(grid.shape_kji, np.uint8)
    inner = segmentation.GetSegmentation()
    for n in range(inner.GetNumberOfSegments()):
        segment = inner.GetNthSegment(n)
        image = segment.GetRepresentation("Binary labelmap")
        if image.GetNumberOfPoints() == 0:
            continue
        i0, i1, j0, j1, k0, k1 = image.GetExtent()
        values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
        array[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1][values == segment.GetLabelValue()] = segment.GetLabelValue()
    return array


def test_slicer_gives_the_same_voxels_as_the_command_line(scene, ct, mr, images, tmp_path):
    ct_node, mr_node = add_volume(scene, ct, "CT"), add_volume(scene, mr, "MR")
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Plan")
    views = []
    desk = WorkerDesk(Worker)
    try:
        effect = EffectLogic(SegmentJob(desk), show=views.append, save_state_for_undo=lambda: None)
        effect.apply(ct_node, mr_node, segmentation, Choices(device="cpu", mr_registered=True))
        deadline = time.monotonic() + 240
        while effect.busy:
            assert time.monotonic() < deadline, views[-1]
            effect.tick(segmentation)
            time.sleep(0.02)
    finally:
        desk.close()
    assert not views[-1].failed, views[-1].text
    inner = segmentation.GetSegmentation()
    assert [inner.GetNthSegment(n).GetName() for n in range(30)] == [organ.name for organ in ORGANS]

    request = SegmentRequest(
        ct=str(images / "ct.nrrd"), mr=str(images / "mr.nrrd"), transform=str(images / "identity.tfm"),
        output=str(tmp_path / "labels.nrrd"), device="cpu",
    )  # fmt: skip
    run_segment(request)
    expected = read_volume(request.output).array_kji
    assert len(np.unique(expected)) > 5
    np.testing.assert_array_equal(labels_of(segmentation, ct.grid), expected)
