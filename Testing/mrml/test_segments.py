"""Labels into a real segmentation node, and one real undo back."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk

from hnseg.errors import GeometryMismatch, UnsupportedImage
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.organs import BY_NAME, ORGANS
from hnseg.terminology import CONTEXT, STATUS_TAG, TERMINOLOGY_TAG
from HNSegLib.merging import MergePolicy, Status
from HNSegLib.segments import (
    MODEL_TAG,
    existing_segments,
    import_labels,
    set_status,
    status_of,
    volumes_ml,
)
from HNSegLib.space import flipped_rows, from_vtk
from HNSegLib.volumes import add_volume

PAROTID, CORD, EYE = BY_NAME["Parotid_L"], BY_NAME["SpinalCord"], BY_NAME["Eye_AL"]


@pytest.fixture
def labels(oblique):
    """All 30 organs, organ n as n voxels in a row, away from the borders."""
    grid = Grid((40, 35, 6), (1, 2, 3), (11.5, -23.25, 100.125), tuple((oblique * (1, 1, -1)).ravel()))
    array = np.zeros(grid.shape_kji, np.uint8)
    for organ in ORGANS:
        array[3, organ.label + 1, 4 : 4 + organ.label] = organ.label
    return Volume(array, grid)


@pytest.fixture
def node(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Plan")
    node.CreateDefaultDisplayNodes()
    return node


def segment_named(node, name):
    return node.GetSegmentation().GetSegment(node.GetSegmentation().GetSegmentIdBySegmentName(name))


def points_lps(node, name):
    """World positions of a segment's voxels, worked out from Slicer's own representation."""
    segment = segment_named(node, name)
    image = segment.GetRepresentation("Binary labelmap")
    matrix, general = vtk.vtkMatrix4x4(), vtk.vtkGeneralTransform()
    image.GetImageToWorldMatrix(matrix)
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(node.GetParentTransformNode(), None, general)
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    value = segment.GetLabelValue()
    found = []
    for k in range(k0, k1 + 1):
        for j in range(j0, j1 + 1):
            for i in range(i0, i1 + 1):
                if image.GetScalarComponentAsDouble(i, j, k, 0) == value:
                    found.append(general.TransformPoint(matrix.MultiplyPoint((i, j, k, 1))[:3]))
    return np.array(found).reshape(-1, 3) * (-1, -1, 1)


def expected_lps(labels, label):
    return labels.grid.to_lps(np.argwhere(labels.array_kji == label)[:, ::-1])


def test_thirty_organs_become_thirty_segments_in_label_order(labels, node):
    report = import_labels(labels, node)
    segmentation = node.GetSegmentation()
    names = [segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())]
    assert names == [organ.name for organ in ORGANS]
    assert [organ for organ, _ in report.written] == list(ORGANS)
    assert not report.kept
    assert not report.empty


def test_every_organ_lies_where_its_labels_lie(labels, node):
    import_labels(labels, node)
    for organ in ORGANS:
        np.testing.assert_allclose(points_lps(node, organ.name), expected_lps(labels, organ.label), atol=1e-6)


def test_segments_carry_label_colour_status_and_model(labels, node):
    import_labels(labels, node, tags={"Parotid_L": {MODEL_TAG: "hnseg-phantom|1.0"}})
    segment = segment_named(node, "Parotid_L")
    assert segment.GetLabelValue() == 27
    np.testing.assert_allclose(segment.GetColor(), (31 / 255, 45 / 255, 172 / 255))
    assert status_of(segment) is Status.NOT_STARTED
    tag = vtk.reference("")
    assert segment.GetTag(MODEL_TAG, tag)
    assert str(tag) == "hnseg-phantom/1.0"


def test_all_organs_share_one_cropped_layer(labels, node):
    import_labels(labels, node)
    assert node.GetSegmentation().GetNumberOfLayers() == 1
    # Organs 1…30 lie in slice 3, rows 2…31, columns 4…33.
    assert segment_named(node, "Lips").GetRepresentation("Binary labelmap").GetExtent() == (4, 33, 2, 31, 3, 3)


@pytest.mark.parametrize("organ", ORGANS, ids=lambda organ: organ.name)
def test_slicer_reads_the_terminology_of_each_organ(labels, node, organ):
    import_labels(labels, node, organs=[organ])
    tag = vtk.reference("")
    assert segment_named(node, organ.name).GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag)
    entry = slicer.vtkSlicerTerminologyEntry()
    logic = slicer.vtkSlicerTerminologiesModuleLogic
    assert logic.DeserializeTerminologyEntry(str(tag), entry)
    assert logic.SerializeTerminologyEntry(entry) == str(tag)
    assert entry.GetCategoryObject().GetCodeMeaning() == "Anatomical Structure"
    assert entry.GetTypeObject().GetCodeValue() == organ.sct_code
    side = entry.GetTypeModifierObject().GetCodeMeaning()
    assert (side or None) == (organ.side.meaning if organ.side else None)


def test_organs_that_are_absent_get_empty_segments_and_are_reported(labels, node):
    array = np.where(labels.array_kji == PAROTID.label, 0, labels.array_kji)
    report = import_labels(labels.with_array(array), node)
    assert report.empty == (PAROTID,)
    assert node.GetSegmentation().GetNumberOfSegments() == 30
    assert len(points_lps(node, "Parotid_L")) == 0


def test_a_result_without_any_organ_gives_thirty_empty_segments(labels, node):
    report = import_labels(labels.with_array(np.zeros_like(labels.array_kji)), node)
    assert len(report.empty) == node.GetSegmentation().GetNumberOfSegments() == 30


def test_only_the_selected_organs_are_written(labels, node):
    import_labels(labels, node, organs=[EYE, CORD])
    names = [segment.organ.name for segment in existing_segments(node)]
    assert names == ["Eye_AL", "SpinalCord"]
    assert segment_named(node, "SpinalCord").GetLabelValue() == 30
    np.testing.assert_allclose(points_lps(node, "Eye_AL"), expected_lps(labels, EYE.label), atol=1e-6)


def test_a_second_import_replaces_what_the_first_wrote(labels, node):
    import_labels(labels, node)
    moved = labels.with_array(np.roll(labels.array_kji, 2, axis=2))
    import_labels(moved, node)
    assert node.GetSegmentation().GetNumberOfSegments() == 30
    np.testing.assert_allclose(points_lps(node, "Lips"), expected_lps(moved, 23), atol=1e-6)


@pytest.mark.parametrize("status", [Status.IN_PROGRESS, Status.COMPLETED, Status.FLAGGED])
def test_a_segment_that_somebody_worked_on_is_kept_and_named(labels, node, status):
    import_labels(labels, node)
    set_status(segment_named(node, "Parotid_L"), status)
    moved = labels.with_array(np.roll(labels.array_kji, 2, axis=2))
    report = import_labels(moved, node)
    assert [kept.organ for kept in report.kept] == [PAROTID]
    assert status_of(segment_named(node, "Parotid_L")) is status
    np.testing.assert_allclose(points_lps(node, "Parotid_L"), expected_lps(labels, 27), atol=1e-6)
    np.testing.assert_allclose(points_lps(node, "Parotid_R"), expected_lps(moved, 28), atol=1e-6)


def test_without_protection_even_a_completed_segment_is_replaced(labels, node):
    import_labels(labels, node)
    set_status(segment_named(node, "Parotid_L"), Status.COMPLETED)
    moved = labels.with_array(np.roll(labels.array_kji, 2, axis=2))
    assert not import_labels(moved, node, protect=False).kept
    np.testing.assert_allclose(points_lps(node, "Parotid_L"), expected_lps(moved, 27), atol=1e-6)
    assert status_of(segment_named(node, "Parotid_L")) is Status.NOT_STARTED


def test_only_empty_segments_are_filled_under_that_policy(labels, node):
    without_cord = labels.with_array(np.where(labels.array_kji == CORD.label, 0, labels.array_kji))
    import_labels(without_cord, node)
    moved = labels.with_array(np.roll(labels.array_kji, 2, axis=2))
    report = import_labels(moved, node, policy=MergePolicy.ONLY_EMPTY)
    assert [organ for organ, _ in report.written] == [CORD]
    assert {kept.reason for kept in report.kept} == {"is not empty"}
    np.testing.assert_allclose(points_lps(node, "SpinalCord"), expected_lps(moved, 30), atol=1e-6)
    np.testing.assert_allclose(points_lps(node, "Lips"), expected_lps(labels, 23), atol=1e-6)


def test_a_copy_that_the_user_put_aside_is_not_overwritten(labels, node):
    import_labels(labels, node)
    segmentation = node.GetSegmentation()
    copy = slicer.vtkSegment()
    copy.DeepCopy(segmentation.GetSegment("Lips"))
    copy.SetName("Lips before")
    segmentation.AddSegment(copy, "aside", "A_Carotid_L")
    import_labels(labels.with_array(np.roll(labels.array_kji, 2, axis=2)), node)
    np.testing.assert_allclose(points_lps(node, "Lips before"), expected_lps(labels, 23), atol=1e-6)


def test_a_strangers_segment_stays_and_keeps_its_voxels(labels, node):
    ids = vtk.vtkStringArray()
    ids.InsertNextValue("tumour")
    volume = add_volume(node.GetScene(), labels.with_array((labels.array_kji == 5).astype(np.uint8)), "GTV",
                        "vtkMRMLLabelMapVolumeNode")  # fmt: skip
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(volume, node, ids)
    import_labels(labels, node)
    assert node.GetSegmentation().GetNumberOfSegments() == 31
    np.testing.assert_allclose(points_lps(node, "tumour"), expected_lps(labels, 5), atol=1e-6)


def test_a_contour_that_came_along_under_an_alias_is_kept(labels, node):
    ids = vtk.vtkStringArray()
    ids.InsertNextValue("Glnd_Parotid_L")
    volume = add_volume(node.GetScene(), labels.with_array((labels.array_kji == 5).astype(np.uint8)), "old",
                        "vtkMRMLLabelMapVolumeNode")  # fmt: skip
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(volume, node, ids)
    report = import_labels(labels, node)
    assert [(kept.organ, kept.reason) for kept in report.kept] == [(PAROTID, "was not made by HNSeg")]
    assert node.GetSegmentation().GetNumberOfSegments() == 30


def test_the_segmentations_own_linear_transform_is_undone(labels, node, scene, oblique):
    matrix = vtk.vtkMatrix4x4()
    turned = np.eye(4)
    turned[:3, :3] = oblique.T
    turned[:3, 3] = (40, 3, -9)
    matrix.DeepCopy(turned.ravel().tolist())
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    parent.SetMatrixTransformToParent(matrix)
    node.SetAndObserveTransformNodeID(parent.GetID())
    import_labels(labels, node)
    np.testing.assert_allclose(points_lps(node, "Bone_Mandible"), expected_lps(labels, 4), atol=1e-6)


def test_a_segmentation_under_a_non_linear_transform_is_refused_untouched(labels, node, scene):
    parent = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    parent.SetAndObserveTransformToParent(slicer.vtkOrientedBSplineTransform())
    node.SetAndObserveTransformNodeID(parent.GetID())
    with pytest.raises(GeometryMismatch, match="'Plan' stands under a non-linear transform"):
        import_labels(labels, node)
    assert node.GetSegmentation().GetNumberOfSegments() == 0


def test_a_segmentation_of_surfaces_is_refused_untouched(labels, node):
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    with pytest.raises(UnsupportedImage, match="kept as Closed surface"):
        import_labels(labels, node)
    assert node.GetSegmentation().GetNumberOfSegments() == 0


def test_labels_that_are_not_integers_are_refused(labels, node):
    with pytest.raises(UnsupportedImage, match="got float32"):
        import_labels(labels.with_array(labels.array_kji.astype(np.float32)), node)


def test_a_3d_display_is_there_again_for_the_new_organs(labels, node):
    import_labels(labels, node)
    node.CreateClosedSurfaceRepresentation()
    import_labels(labels.with_array(np.roll(labels.array_kji, 2, axis=2)), node)
    surface = segment_named(node, "Lips").GetRepresentation("Closed surface")
    assert surface is not None
    assert surface.GetNumberOfCells() > 0


def test_one_undo_brings_back_every_segment_that_was_there(labels, node, scene):
    """The editor's own logic keeps the history, as it does for the effect's one saveStateForUndo."""
    editor = slicer.vtkSlicerSegmentEditorLogic()
    editor.SetMRMLScene(scene)
    parameters = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetSegmentEditorNode(parameters)
    import_labels(labels, node, organs=[EYE, CORD])
    set_status(segment_named(node, "Eye_AL"), Status.COMPLETED)
    editor.SetSegmentationNode(node)
    before = points_lps(node, "SpinalCord")
    editor.SaveStateForUndo()
    import_labels(labels.with_array(np.roll(labels.array_kji, 2, axis=2)), node, protect=False)
    assert node.GetSegmentation().GetNumberOfSegments() == 30
    editor.Undo()
    names = [segment.organ.name for segment in existing_segments(node)]
    assert names == ["Eye_AL", "SpinalCord"]
    np.testing.assert_allclose(points_lps(node, "SpinalCord"), before, atol=1e-9)
    assert status_of(segment_named(node, "Eye_AL")) is Status.COMPLETED
    editor.Redo()
    assert node.GetSegmentation().GetNumberOfSegments() == 30


def test_one_undo_of_a_first_result_leaves_no_segment(labels, node):
    history = slicer.vtkSegmentationHistory()
    history.SetSegmentation(node.GetSegmentation())
    history.SaveState()
    import_labels(labels, node)
    assert history.RestorePreviousState()
    assert node.GetSegmentation().GetNumberOfSegments() == 0


def test_volumes_are_counted_in_the_patients_millilitres(labels, node):
    import_labels(labels, node)
    # Organ n has n voxels of 1×2×3 mm.
    for segment_id, millilitres in volumes_ml(node).items():
        assert millilitres == pytest.approx(BY_NAME[segment_id].label * 6 / 1000)


def test_volumes_follow_an_edit_of_the_shared_layer(labels, node):
    import_labels(labels, node)
    image = segment_named(node, "Lips").GetRepresentation("Binary labelmap")
    before = volumes_ml(node)
    image.SetScalarComponentFromDouble(
        image.GetExtent()[0], image.GetExtent()[2], 3, 0, 23
    )  # was A_Carotid_L's only voxel
    image.Modified()
    after = volumes_ml(node)
    assert after["Lips"] == pytest.approx(before["Lips"] + 0.006)
    assert after["A_Carotid_L"] == 0


def test_simpleitk_reads_what_slicer_saves_with_names_labels_and_place(labels, node, tmp_path):
    import_labels(labels, node)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(tmp_path / "plan.seg.nrrd"))
    assert storage.WriteData(node)
    image = sitk.ReadImage(str(tmp_path / "plan.seg.nrrd"))
    keys = {image.GetMetaData(f"Segment{n}_Name"): int(image.GetMetaData(f"Segment{n}_LabelValue")) for n in range(30)}
    assert keys == {organ.name: organ.label for organ in ORGANS}
    array = sitk.GetArrayFromImage(image)
    k, j, i = np.argwhere(array == 27)[0]
    seen = np.array(image.TransformIndexToPhysicalPoint((int(i), int(j), int(k))))
    distances = np.linalg.norm(expected_lps(labels, 27) - seen, axis=1)
    assert np.count_nonzero(array == 27) == 27
    assert distances.min() < 1e-4


def test_slicer_names_the_tags_as_the_engine_does():
    assert slicer.vtkSlicerSegmentationsModuleLogic.GetStatusTagName() == STATUS_TAG
    assert slicer.vtkSegment.GetTerminologyEntryTagName() == TERMINOLOGY_TAG


def test_slicers_own_node_overload_would_apply_a_parent_transform_twice(labels, scene, node):
    """Why ``import_labels`` hands over an image in the segmentation's space. When this fails, Slicer has mended it."""
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 10.0)
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    parent.SetMatrixTransformToParent(matrix)
    volume = add_volume(scene, labels, "labels", "vtkMRMLLabelMapVolumeNode")
    volume.SetAndObserveTransformNodeID(parent.GetID())
    ids = vtk.vtkStringArray()
    ids.InsertNextValue("first")
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(volume, node, ids)
    place = vtk.vtkMatrix4x4()
    segment_named(node, "first").GetRepresentation("Binary labelmap").GetImageToWorldMatrix(place)
    shift = from_vtk(place)[:3, 3] - flipped_rows(labels.grid.ijk_to_lps)[:3, 3]
    np.testing.assert_allclose(shift, (20, 0, 0), atol=1e-9)


def test_the_terminology_that_ships_knows_each_organ_and_side():
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    path = Path(__file__).parents[2] / "Resources" / "HNSeg.term.json"
    assert logic.LoadTerminologyFromFile(str(path)) == CONTEXT
    category = slicer.vtkSlicerTerminologyCategory()
    assert logic.GetNthCategoryInTerminology(CONTEXT, 0, category)
    known = set()
    for n in range(logic.GetNumberOfTypesInTerminologyCategory(CONTEXT, category)):
        kind = slicer.vtkSlicerTerminologyType()
        assert logic.GetNthTypeInTerminologyCategory(CONTEXT, category, n, kind)
        sides = []
        for m in range(logic.GetNumberOfTypeModifiersInTerminologyType(CONTEXT, category, kind)):
            side = slicer.vtkSlicerTerminologyType()
            assert logic.GetNthTypeModifierInTerminologyType(CONTEXT, category, kind, m, side)
            sides.append(side.GetCodeMeaning())
        known |= {(kind.GetCodeValue(), side) for side in sides or [None]}
    assert {(organ.sct_code, organ.side.meaning if organ.side else None) for organ in ORGANS} == known
