"""The curator's module in real Qt and real MRML with a real worker process; Slicer's desktop parts are stand-ins."""

import importlib.util
import shutil
import unittest
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer
from tiny_cohort import block, ct, mr, write_case

from hnseg.image.files import read_volume, write_volume
from hnseg.version import RESEARCH_USE

pytest.importorskip(
    "PySide6.QtWidgets",
    exc_type=ImportError,
    reason="PySide6 does not load: apt-get install libgl1 libegl1 libxkbcommon0 libfontconfig1 libdbus-1-3",
)

EXTENSION = Path(__file__).parents[2] / "HNSegExtension"
FOLDER = EXTENSION / "HNSegCuration"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two cases with overlapping masks, the first with an MR, and one whose CT is an MR."""
    folder = tmp_path_factory.mktemp("curation") / "in"
    masks = {"Brainstem": block(), "Pituitary": block(10)}
    for name, image in (("case_01", ct()), ("case_02", ct()), ("case_03", mr())):
        write_case(folder, name, image, masks)
    write_volume(mr(), folder / "case_01" / "case_01_IMG_MR_T1.nrrd")
    return folder


@pytest.fixture
def module(desktop):
    spec = importlib.util.spec_from_file_location("HNSegCuration", FOLDER / "HNSegCuration.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def widget(module):
    widget = module.HNSegCurationWidget(SimpleNamespace())
    widget.folder = FOLDER
    widget.setup()
    yield widget
    widget.cleanup()


@pytest.fixture
def curate(widget, cohort, tmp_path, process):
    """Click Curate and wait; CT and MR share one frame."""

    def click():
        widget.ui.inputEdit.setText(str(cohort))
        widget.ui.outputEdit.setText(str(tmp_path / "out"))
        widget.ui.registrationComboBox.setCurrentText("none")
        widget.ui.curateButton.wrapped.click()
        process(lambda: not widget.timer.active, seconds=200)
        return widget.ui.statusLabel.text

    return click


def cells(widget):
    table = widget.ui.casesTable.wrapped
    return [[table.item(row, column).text() for column in range(4)] for row in range(table.rowCount())]


def test_the_module_opens_with_the_research_sentence_and_nothing_to_click(widget):
    assert RESEARCH_USE in widget.ui.researchUseLabel.text
    for button in (widget.ui.curateButton, widget.ui.cancelButton, widget.ui.openButton, widget.ui.acceptButton):
        assert not button.enabled


def test_a_folder_becomes_a_table_of_cases_which_open_in_the_scene_and_can_be_overruled(
    widget, curate, scene, tmp_path
):
    layers = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    said = curate()
    assert "0 good" not in said
    assert "1 failed" in said
    assert cells(widget) == [
        ["case_01", "doubtful", "doubtful", "2"], ["case_02", "good", "", "2"], ["case_03", "failed", "", ""],
    ]  # fmt: skip
    assert "claims" in widget.ui.casesTable.wrapped.item(0, 0).toolTip()
    widget.ui.casesTable.wrapped.selectRow(0)
    assert widget.ui.openButton.enabled
    widget.ui.openButton.wrapped.click()
    ct, mr = (scene.GetFirstNodeByName(f"case_01 {name}") for name in ("CT", "MR"))
    assert (layers.GetBackgroundVolumeID(), layers.GetForegroundVolumeID()) == (ct.GetID(), mr.GetID())
    assert layers.GetForegroundOpacity() == 0.5
    segmentation = scene.GetFirstNodeByName("case_01 masks").GetSegmentation()
    assert segmentation.GetNumberOfSegments() == 2
    widget.ui.rejectButton.wrapped.click()
    assert "left out" in widget.ui.statusLabel.text
    curate()
    assert cells(widget)[0] == ["case_01", "good", "doubtful, MR left out", "2"]
    assert not (tmp_path / "out" / "cases" / "case_01" / "mr.nrrd").exists()
    assert widget.logic.decisions == {}, "the data set keeps it now"
    curate()
    assert cells(widget)[0] == ["case_01", "good", "doubtful, MR left out", "2"], "and it holds"
    widget.ui.casesTable.wrapped.selectRow(0)
    widget.ui.forgetButton.wrapped.click()
    curate()
    assert cells(widget)[0] == ["case_01", "doubtful", "doubtful", "2"]
    assert (tmp_path / "out" / "cases" / "case_01" / "mr.nrrd").exists()


def test_the_choices_reach_the_request(widget):
    ui = widget.ui
    for box, choice in (
        (ui.registrationComboBox, "deformable"), (ui.mrScaleComboBox, "nyul"), (ui.shapeComboBox, "head-neck"),
        (ui.partialComboBox, "keep"),
    ):  # fmt: skip
        box.setCurrentText(choice)
    ui.biasCheckBox.setChecked(False)
    ui.inputEdit.setText("in")
    ui.outputEdit.setText("out")
    settings = widget._request().settings
    assert (settings.registration, settings.mr_scale, settings.shape.shape) == ("deformable", "nyul", "head-neck")
    assert (settings.partial, settings.n4) == ("keep", None)


def test_a_failed_case_cannot_be_opened_and_one_without_mr_shows_its_ct_alone(widget, curate, scene):
    layers = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    curate()
    widget.ui.casesTable.wrapped.selectRow(2)
    assert not widget.ui.openButton.enabled
    widget.ui.casesTable.wrapped.selectRow(1)
    widget.ui.openButton.wrapped.click()
    assert layers.GetBackgroundVolumeID() == scene.GetFirstNodeByName("case_02 CT").GetID()
    assert layers.GetForegroundVolumeID() is None


def test_what_cannot_be_is_said_in_the_panel(widget, cohort, process):
    widget.ui.inputEdit.setText(str(cohort))
    widget.ui.outputEdit.setText(str(cohort / "inside"))
    widget.ui.curateButton.wrapped.click()
    assert "beside the input" in widget.ui.statusLabel.text
    assert "e53935" in widget.ui.statusLabel.styleSheet


def test_cancel_stops_the_worker_and_the_panel_says_that_it_can_be_gone_on_with(widget, cohort, tmp_path, process):
    widget.ui.inputEdit.setText(str(cohort))
    widget.ui.outputEdit.setText(str(tmp_path / "out"))
    widget.ui.curateButton.wrapped.click()
    assert widget.ui.cancelButton.enabled
    widget.ui.cancelButton.wrapped.click()
    process(lambda: not widget.timer.active)
    assert "goes on from there" in widget.ui.statusLabel.text
    assert widget.ui.curateButton.enabled


def test_the_opened_case_lies_where_its_file_says(module, scene, cohort, tmp_path):
    """Slicer's own reading of the CT and ours agree on where the first voxel is."""
    from hnseg.jobs.curate import CurateRequest, run_curate
    from HNSegLib.curating import open_case
    from HNSegLib.volumes import volume_of

    shutil.copytree(cohort / "case_02", tmp_path / "in" / "case_02")
    run_curate(CurateRequest(str(tmp_path / "in"), str(tmp_path / "out")))
    folder = tmp_path / "out" / "cases" / "case_02"
    ct, mr, segmentation = open_case(scene, folder)
    assert mr is None
    assert volume_of(ct).grid.is_close(read_volume(folder / "ct.nrrd").grid)
    extent = segmentation.GetSegmentation().GetSegment("Brainstem").GetRepresentation("Binary labelmap").GetExtent()
    assert extent[1] - extent[0] >= 2


@pytest.mark.slow
def test_the_self_tests_pass(module, widget, monkeypatch):
    monkeypatch.setattr(slicer.util, "getModuleWidget", lambda _: widget, raising=False)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(module.HNSegCurationTest).run(result)
    assert not result.errors, result.errors[0][1]
    assert not result.failures, result.failures[0][1]
    assert (result.testsRun, result.skipped) == (2, [])
