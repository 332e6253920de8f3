"""The planner's module in real Qt and real MRML; Slicer's desktop parts are stand-ins."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import slicer

from hnseg.errors import Cancelled
from hnseg.image.grid import Grid
from hnseg.image.segmentation import read_segmentation
from hnseg.image.volume import Volume
from hnseg.organs import ORGANS
from hnseg.version import RESEARCH_USE
from HNSegLib import sample_patient
from HNSegLib.volumes import add_volume

pytest.importorskip(
    "PySide6.QtWidgets",
    exc_type=ImportError,
    reason="PySide6 does not load: apt-get install libgl1 libegl1 libxkbcommon0 libfontconfig1 libdbus-1-3",
)
from PySide6.QtWidgets import QLabel

FOLDER = Path(__file__).parents[2] / "HNSegExtension" / "HNSeg"


@pytest.fixture
def module(desktop):
    spec = importlib.util.spec_from_file_location("HNSeg", FOLDER / "HNSeg.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def widget(module, complete):
    widget = module.HNSegWidget(SimpleNamespace(isEntered=True))
    widget.folder = FOLDER
    widget.setup()
    widget.enter()
    yield widget
    widget.cleanup()


@pytest.fixture
def segmented(widget, desk, ct, process):
    """Thirty organs, from a click on Apply."""
    widget.ui.ctSelector.setCurrentNode(ct)
    widget.panel.ui.applyButton.wrapped.click()
    process(lambda: not widget.panel.busy)
    process(lambda: widget.ui.reviewTable.rowCount == 30)
    return widget


def cell(widget, row, column):
    return widget.ui.reviewTable.wrapped.item(row, column).text()


def row_of(widget, name):
    return next(row for row in range(30) if cell(widget, row, 0) == name)


def choose(widget, *names):
    table = widget.ui.reviewTable.wrapped
    table.clearSelection()
    table.setSelectionMode(table.SelectionMode.MultiSelection)
    for name in names:
        table.selectRow(row_of(widget, name))


def test_the_module_opens_with_the_research_sentence_and_nothing_to_review(widget):
    assert RESEARCH_USE in widget.panel.ui.researchUseLabel.text
    assert widget.ui.reviewLabel.text == "There is nothing to review yet."
    assert not widget.panel.ui.applyButton.enabled
    assert not widget.ui.segNrrdButton.enabled


def test_apply_makes_a_segmentation_of_thirty_organs_and_shows_them(segmented, ct, scene):
    node = segmented.host.segmentation()
    assert node.GetName() == "Planning CT organs"
    assert segmented.ui.segmentationSelector.currentNode() is node
    assert [cell(segmented, row, 0) for row in range(30)] == [organ.name for organ in ORGANS]
    parotid = row_of(segmented, "Parotid_L")
    # 27 voxels of 1×2×3 mm where 10 to 56 mL are usual.
    assert [cell(segmented, parotid, column) for column in (1, 2, 6)] == ["0.16 !", "10 – 56", "to do"]
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


def test_one_undo_takes_the_result_back(segmented):
    assert segmented.ui.undoButton.enabled
    segmented.ui.undoButton.wrapped.click()
    assert segmented.ui.reviewTable.rowCount == 0
    assert not segmented.ui.undoButton.enabled
    assert segmented.host.segmentation().GetSegmentation().GetNumberOfSegments() == 0


def test_organs_are_marked_and_counted_and_then_survive_the_next_apply(segmented, process):
    choose(segmented, "Lips", "Brainstem")
    segmented.ui.completeButton.wrapped.click()
    choose(segmented, "SpinalCord")
    segmented.ui.flagButton.wrapped.click()
    assert segmented.ui.reviewLabel.text.startswith("2 of 30 completed, 1 flagged")
    assert cell(segmented, row_of(segmented, "Lips"), 6) == "completed"
    segmented.panel.ui.applyButton.wrapped.click()
    process(lambda: not segmented.panel.busy)
    assert "3 kept" in segmented.panel.ui.statusLabel.text
    choose(segmented, "Lips")
    segmented.ui.resetButton.wrapped.click()
    assert segmented.ui.reviewLabel.text.startswith("1 of 30 completed")


def test_choosing_an_organ_shows_it_in_the_slice_views(segmented, scene):
    red = scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    red.SetFieldOfView(100, 100, 1)
    choose(segmented, "SpinalCord")
    # Organ 30: i 4…33, j 31, k 3 on a 1×2×3 mm grid at LPS (5, 6, 7): middle (23.5, 68, 16), RAS (-23.5, -68, 16).
    matrix = red.GetSliceToRAS()
    centre = [matrix.GetElement(axis, 3) for axis in range(3)]
    assert centre == pytest.approx((-23.5, -68, 16), abs=3.1)


def test_a_seg_nrrd_is_saved_where_the_user_says(segmented, tmp_path, monkeypatch, stand_ins):
    path = tmp_path / "organs.seg.nrrd"
    monkeypatch.setattr(stand_ins.QtWidgets.QFileDialog, "getSaveFileName", lambda *_: str(path))
    segmented.ui.segNrrdButton.wrapped.click()
    assert segmented.ui.exportLabel.text.startswith(f"Saved {path}. 0 of 30 completed")
    assert len(read_segmentation(path).segments) == 30


def test_a_refused_export_says_why(segmented, tmp_path):
    (tmp_path / "nothing").mkdir()
    segmented.saveRtstruct(tmp_path / "nothing", tmp_path / "RT.dcm")
    assert segmented.ui.exportLabel.text
    assert "Saved" not in segmented.ui.exportLabel.text
    assert not (tmp_path / "RT.dcm").exists()


def test_an_export_that_lacks_a_package_names_it_and_the_remedy(segmented, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "hnseg.dicomrt.structure_set", None)
    segmented.saveRtstruct(tmp_path, tmp_path / "RT.dcm")
    assert segmented.ui.exportLabel.text.startswith("RT.dcm was not written: ")
    assert segmented.ui.exportLabel.text.endswith("install what is missing in step 1.")


def test_a_cancelled_file_dialog_saves_nothing(segmented, monkeypatch, stand_ins):
    monkeypatch.setattr(stand_ins.QtWidgets.QFileDialog, "getSaveFileName", lambda *_: "")
    segmented.ui.segNrrdButton.wrapped.click()
    assert segmented.ui.exportLabel.text == ""


def test_the_result_waits_while_the_user_is_in_another_module(widget, desk, ct, process):
    widget.ui.ctSelector.setCurrentNode(ct)
    widget.panel.ui.applyButton.wrapped.click()
    widget.exit()
    process(lambda: widget.panel.ui.statusLabel.text.startswith("Done; come back"))
    assert widget.panel.busy
    widget.enter()
    process(lambda: not widget.panel.busy)
    assert widget.ui.reviewTable.rowCount == 30


def test_choices_and_nodes_are_there_again_when_the_user_comes_back(widget, ct, mr):
    widget.ui.ctSelector.setCurrentNode(ct)
    widget.panel.ui.mrSelector.setCurrentNode(mr)
    widget.panel.ui.deviceComboBox.setCurrentIndex(1)
    widget.exit()
    widget.enter()
    assert widget.ui.ctSelector.currentNode() is ct
    assert widget.panel.ui.mrSelector.currentNode() is mr
    assert widget.panel.ui.deviceComboBox.currentText == "cpu"


def test_closing_the_scene_stops_the_job_and_begins_anew(widget, desk, ct, scene, process):
    widget.ui.ctSelector.setCurrentNode(ct)
    widget.host.setParameter("Model", "slow")
    widget.panel.ui.applyButton.wrapped.click()
    scene.Clear(False)
    process(lambda: not widget.panel.timer.active)
    assert not widget.panel.busy
    assert widget.host.ct() is None
    assert widget.ui.reviewTable.rowCount == 0


def test_a_reloaded_module_goes_on_where_it_was(module, complete, ct, scene):
    first = module.HNSegWidget(SimpleNamespace(isEntered=False))
    first.folder = FOLDER
    first.setup()
    assert not first.host.shown()
    first.enter()
    first.ui.ctSelector.setCurrentNode(ct)
    first.cleanup()
    again = module.HNSegWidget(SimpleNamespace(isEntered=True))
    again.folder = FOLDER
    again.setup()
    assert again.ui.ctSelector.currentNode() is ct
    assert again.panel.ui.applyButton.enabled
    again.cleanup()


def test_a_module_without_its_packages_says_so(module, monkeypatch):
    monkeypatch.setitem(sys.modules, "HNSegLib.panel", None)
    lost = module.HNSegWidget(SimpleNamespace(isEntered=False))
    lost.setup()
    (label,) = lost.frame.findChildren(QLabel)
    assert "packages are not found" in label.text()
    lost.enter()
    lost.exit()
    lost.cleanup()


def test_after_cleanup_nothing_answers_to_the_scene_or_a_button(widget, scene):
    apply_button = widget.panel.ui.applyButton
    widget.cleanup()
    scene.InvokeEvent(scene.EndCloseEvent)
    assert not apply_button.receivers
    assert not widget.Observations


def test_removing_the_segmentation_from_the_scene_empties_the_review(segmented, scene):
    scene.RemoveNode(segmented.host.segmentation())
    assert segmented.host.segmentation() is None
    assert segmented.ui.reviewTable.rowCount == 0
    assert not segmented.ui.rtstructButton.enabled


def test_a_scene_that_is_loaded_meanwhile_is_shown(widget, ct, scene):
    node = widget.logic.getParameterNode()
    node.SetNodeReferenceID("CT", ct.GetID())
    scene.InvokeEvent(scene.EndImportEvent)
    assert widget.ui.ctSelector.currentNode() is ct


def test_a_volume_that_holds_air_is_proposed_as_the_ct(widget, scene):
    widget.exit()
    volume = Volume(np.full((2, 3, 4), -1000, np.int16), Grid((4, 3, 2)))
    node = add_volume(scene, volume, "CT of the neck")
    widget.enter()
    assert widget.ui.ctSelector.currentNode() is node


def test_a_first_use_names_the_phantom_patient_which_is_then_ready_for_apply(widget, monkeypatch):
    first = widget.ui.firstUseBox.wrapped
    assert first.isVisibleTo(first.parent())
    monkeypatch.setattr(sample_patient, "render", lambda *_, on_progress, **__: tiny_case(on_progress))
    widget.ui.sampleButton.wrapped.click()
    assert widget.ui.ctSelector.currentNode().GetName() == "Phantom CT"
    assert widget.panel.ui.mrSelector.currentNode().GetName() == "Phantom T1"
    assert widget.panel.ui.applyButton.enabled
    assert not first.isVisibleTo(first.parent())


def test_a_phantom_patient_that_is_cancelled_leaves_everything_as_it_was(widget, scene, monkeypatch):
    def cancelled(*_, **__):
        raise Cancelled("enough")

    monkeypatch.setattr(sample_patient, "render", cancelled)
    widget.ui.sampleButton.wrapped.click()
    assert widget.ui.ctSelector.currentNode() is None
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0


def tiny_case(on_progress):
    on_progress(0.5, "Painting the CT")
    volume = Volume(np.full((2, 3, 4), -1000, np.int16), Grid((4, 3, 2)))
    return SimpleNamespace(ct=volume, mr=volume)


def test_the_editor_opens_on_the_nodes_and_the_chosen_organ_although_the_module_is_left(segmented, monkeypatch):
    said = {}
    editor = SimpleNamespace(
        setSegmentationNode=lambda node: said.update(segmentation=node),
        setSourceVolumeNode=lambda node: said.update(ct=node),
        setCurrentSegmentID=lambda text: said.update(segment=text),
    )
    modules = SimpleNamespace(SegmentEditorWidget=SimpleNamespace(editor=editor))
    monkeypatch.setattr(slicer, "modules", modules, raising=False)
    monkeypatch.setattr(slicer.util, "selectModule", lambda name: segmented.exit(), raising=False)
    nodes = segmented.host.segmentation(), segmented.host.ct()
    choose(segmented, "Lips")
    segmented.ui.editButton.wrapped.click()
    assert (said["segmentation"], said["ct"], said["segment"]) == (*nodes, "Lips")


def test_completing_an_organ_goes_on_to_the_next_that_nobody_has_reviewed(segmented):
    choose(segmented, "Brainstem")
    segmented.ui.flagButton.wrapped.click()
    choose(segmented, "Bone_Mandible")
    segmented.ui.completeButton.wrapped.click()
    assert segmented.review.chosenIds() == ["BuccalMucosa"]
    choose(segmented, "SpinalCord")
    segmented.ui.completeButton.wrapped.click()
    assert segmented.review.chosenIds() == ["A_Carotid_L"]


def test_surfaces_are_shown_in_the_middle_and_taken_away(segmented, stand_ins):
    inner = segmented.host.segmentation().GetSegmentation()
    before = stand_ins.LayoutManager.centred
    segmented.ui.show3DButton.wrapped.click()
    assert inner.ContainsRepresentation("Closed surface")
    assert stand_ins.LayoutManager.centred == before + 1
    segmented.ui.show3DButton.wrapped.click()
    assert not inner.ContainsRepresentation("Closed surface")


def test_the_mr_fades_over_the_ct_where_it_was_found_to_lie(widget, desk, ct, mr, scene, process):
    layers = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    widget.ui.ctSelector.setCurrentNode(ct)
    assert not widget.ui.mrFadeSlider.enabled
    widget.panel.ui.mrSelector.setCurrentNode(mr)
    assert widget.ui.mrFadeSlider.enabled
    widget.panel.ui.applyButton.wrapped.click()
    process(lambda: not widget.panel.busy)
    widget.ui.mrFadeSlider.wrapped.setValue(30)
    assert layers.GetForegroundOpacity() == 0.3
    assert (layers.GetBackgroundVolumeID(), layers.GetForegroundVolumeID()) == (ct.GetID(), mr.GetID())
    assert mr.GetParentTransformNode().GetName() == "T1 on the CT"


def test_a_segmentation_from_the_selectors_menu_gets_the_geometry_of_the_ct(widget, desk, ct, scene, process):
    made = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "by hand")
    widget.ui.ctSelector.setCurrentNode(ct)
    widget.ui.segmentationSelector.setCurrentNode(made)
    widget.panel.ui.applyButton.wrapped.click()
    process(lambda: not widget.panel.busy)
    assert made.GetNodeReference(made.GetReferenceImageGeometryReferenceRole()) is ct


def test_each_organ_carries_its_colour(segmented):
    image = segmented.ui.reviewTable.wrapped.item(row_of(segmented, "Lips"), 0).icon().pixmap(12, 12).toImage()
    assert image.pixelColor(6, 6).getRgb()[:3] == (188, 91, 95)
