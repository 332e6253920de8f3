"""The curator's module in real Qt and real MRML with a real worker process; Slicer's desktop parts are stand-ins."""

import importlib.util
import json
import os
import shutil
import unittest
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer
from tiny_cohort import block, ct, mr, write_case

from hnseg.curation.settings import CurationSettings
from hnseg.errors import HNSegError
from hnseg.image.files import read_volume, write_volume
from hnseg.jobs.curate import CurateRequest, run_curate
from hnseg.jobs.events import Done, Progress
from hnseg.version import RESEARCH_USE
from HNSegLib.curating import CaseTable, choices_of, open_case
from HNSegLib.volumes import volume_of

pytest.importorskip(
    "PySide6.QtWidgets",
    exc_type=ImportError,
    reason="PySide6 does not load: apt-get install libgl1 libegl1 libxkbcommon0 libfontconfig1 libdbus-1-3",
)

from PySide6 import QtWidgets

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


@pytest.fixture(scope="module")
def curated(cohort, tmp_path_factory):
    """What the engine makes of the cohort."""
    out = tmp_path_factory.mktemp("curated") / "out"
    run_curate(CurateRequest(str(cohort), str(out), CurationSettings(registration="none")))
    return out


@pytest.fixture
def data_set(curated, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(curated, tmp_path / "data_set")


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
    assert slicer.fittedViews == [{"fit": True}], "wherever in the scanner's space the case lies"
    segmentation = scene.GetFirstNodeByName("case_01 masks").GetSegmentation()
    assert segmentation.GetNumberOfSegments() == 2
    widget.ui.rejectButton.wrapped.click()
    assert "left out" in widget.ui.statusLabel.text
    curate()
    assert cells(widget)[0] == ["case_01", "good", "doubtful, MR left out", "2"]
    assert not (tmp_path / "out" / "cases" / "case_01" / "mr.nrrd").exists()
    assert widget._request().reject_mr == (), "the data set keeps it now"
    assert "Let the check decide" in curate(), "and the panel says so, in its own words"
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


def boxes(widget):
    ui = widget.ui
    texts = [box.currentText for box in (ui.partialComboBox, ui.registrationComboBox, ui.mrScaleComboBox)]
    return [*texts, ui.shapeComboBox.currentText, ui.biasCheckBox.checked]


def test_a_data_set_is_gone_on_with_as_it_was_begun_unless_the_user_chooses_otherwise(widget, data_set, tmp_path):
    claim = data_set / "curation.json"
    begun = json.loads(claim.read_text())
    begun["settings"] |= {"partial": "keep", "registration": "deformable", "mr_scale": "z-score", "n4": None}
    begun["settings"]["shape"]["shape"] = "head"
    claim.write_text(json.dumps(begun))
    edit = widget.ui.outputEdit.wrapped
    edit.setText(str(tmp_path / "new"))
    edit.editingFinished.emit()
    assert boxes(widget) == ["ignore", "rigid", "scanner", "ct", True]
    edit.setText(str(data_set))
    edit.editingFinished.emit()
    assert boxes(widget) == ["keep", "deformable", "z-score", "head", False]
    widget.ui.registrationComboBox.setCurrentText("none")
    edit.editingFinished.emit()
    assert boxes(widget)[1] == "none"


def test_boxes_follow_a_data_set_that_was_chosen_and_not_a_file_that_cannot_be_read(widget, data_set, monkeypatch):
    monkeypatch.setattr(QtWidgets.QFileDialog, "getExistingDirectory", lambda *_: str(data_set))
    widget.ui.outputButton.wrapped.click()
    assert boxes(widget)[1] == "none"
    for file in ("curation.json", "manifest.json"):
        (data_set / file).write_text("[]")
    assert choices_of(data_set) == {}


def test_a_failed_case_cannot_be_opened_and_one_without_mr_shows_its_ct_alone(widget, curate, scene):
    layers = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    curate()
    widget.ui.casesTable.wrapped.selectRow(2)
    assert not widget.ui.openButton.enabled
    widget.ui.casesTable.wrapped.selectRow(1)
    widget.ui.openButton.wrapped.click()
    assert layers.GetBackgroundVolumeID() == scene.GetFirstNodeByName("case_02 CT").GetID()
    assert layers.GetForegroundVolumeID() is None


class Desk:
    """STAND-IN for the worker's desk: the test says what the job reports."""

    def __init__(self):
        self.mail = []

    def submit(self, request):
        return "job"

    def events(self, job):
        mail, self.mail = self.mail, []
        return mail

    def cancel(self, job):
        pass


@pytest.fixture
def desk(widget, monkeypatch):
    desk = Desk()
    monkeypatch.setattr(widget.logic.job, "_desk", desk)
    return desk


def show(widget, out, source="in"):
    widget.ui.inputEdit.setText(str(source))
    widget.ui.outputEdit.setText(str(out))


def choose(widget, row):
    widget.ui.casesTable.wrapped.selectRow(row)


def test_a_decision_holds_for_the_folders_it_was_made_for_alone(widget, data_set, tmp_path):
    show(widget, data_set, "")
    choose(widget, 0)
    widget.ui.rejectButton.wrapped.click()
    widget.ui.inputEdit.setText(str(tmp_path / "in"))
    assert widget._request().reject_mr == ("case_01",), "the input was chosen afterwards"
    show(widget, f"{tmp_path}/./data_set/", f"{tmp_path}/in/")
    assert widget._request().reject_mr == ("case_01",), "the same folders, spelled otherwise"
    show(widget, tmp_path / "other", tmp_path / "others")
    assert widget._request().cases_named == ()
    show(widget, data_set, tmp_path / "in")
    choose(widget, 1)
    widget.ui.forgetButton.wrapped.click()
    widget.ui.inputEdit.setText(str(tmp_path / "others"))
    assert widget._request().cases_named == (), "cases of the same name, of other patients"


def test_a_case_stays_chosen_when_others_come_before_it_and_not_in_another_data_set(widget, data_set, tmp_path):
    first = (data_set / "cases" / "case_01").rename(tmp_path / "case_01")
    show(widget, data_set)
    choose(widget, 0)
    assert widget.chosen() == ["case_02"]
    first.rename(data_set / "cases" / "case_01")
    widget.showCases()
    assert [row[0] for row in cells(widget)] == ["case_01", "case_02", "case_03"]
    assert widget.chosen() == ["case_02"]
    show(widget, shutil.copytree(data_set, tmp_path / "other"))
    assert widget.chosen() == []


def test_a_spoiled_record_is_said_and_the_table_is_empty_until_another_folder_is_shown(widget, data_set, curated):
    (data_set / "cases" / "case_01" / "case.json").write_text("{")
    show(widget, data_set)
    assert "case.json cannot be read" in widget.ui.statusLabel.text
    assert "e53935" in widget.ui.statusLabel.styleSheet
    assert cells(widget) == []
    show(widget, curated)
    assert len(cells(widget)) == 3
    assert (widget.ui.statusLabel.text, widget.ui.statusLabel.styleSheet) == ("", "")


@pytest.mark.parametrize("spoiled", ["manifest.json", "cases/case_01/case.json"])
def test_a_job_ends_and_is_settled_also_where_the_table_cannot_be_read(widget, desk, data_set, curated, spoiled):
    show(widget, data_set)
    choose(widget, 0)
    widget.ui.acceptButton.wrapped.click()
    widget.ui.curateButton.wrapped.click()
    assert widget.timer.active
    (data_set / spoiled).write_text("{}")
    desk.mail = [Done("job", SimpleNamespace(good=("a",), doubtful=(), failed={}, notes=(), report="r.html"))]
    widget.onTimer()
    assert not widget.timer.active
    assert widget._request().cases_named == ()
    assert spoiled in widget.ui.statusLabel.text
    assert widget.ui.curateButton.enabled


def test_while_a_job_runs_nothing_is_read_twice_and_cases_appear_as_they_come(widget, desk, data_set, tmp_path, reads):
    last = (data_set / "cases" / "case_02").rename(tmp_path / "case_02")
    show(widget, data_set)
    widget.ui.curateButton.wrapped.click()
    assert reads == ["case_01"]
    filled = watched(widget)
    for fraction in (0.1, 0.2, 0.3):
        desk.mail = [Progress("job", fraction, "case_02: Registering")]
        widget.onTimer()
    assert (reads, filled) == (["case_01"], [])
    last.rename(data_set / "cases" / "case_02")
    widget.onTimer()
    widget.onTimer()
    assert reads == ["case_01", "case_02"]
    assert [[row.name for row in rows] for rows in filled] == [["case_01", "case_02", "case_03"]]


@pytest.fixture
def reads(monkeypatch):
    """The cases whose records were read, in order."""
    from hnseg.curation import record

    said, read = [], record.read_case
    monkeypatch.setattr(record, "read_case", lambda folder: said.append(folder.name) or read(folder))
    return said


def watched(widget):
    """What the table is filled with from now on."""
    filled, fill = [], widget._fillTable
    widget._fillTable = lambda rows: (filled.append(rows), fill(rows))
    return filled


def test_a_case_that_is_replaced_while_it_is_read_is_left_out_and_read_the_next_time(data_set, monkeypatch):
    from hnseg.curation import record

    read = record.read_case

    def replaced(folder):
        (folder / "case.json").rename(folder / "away.json")
        return read(folder)

    table = CaseTable()
    monkeypatch.setattr(record, "read_case", replaced)
    assert [row.name for row in table.rows(data_set)] == ["case_03"]
    monkeypatch.setattr(record, "read_case", read)
    for case in ("case_01", "case_02"):
        (data_set / "cases" / case / "away.json").rename(data_set / "cases" / case / "case.json")
    assert [row.name for row in table.rows(data_set)] == ["case_01", "case_02", "case_03"]


def test_where_every_case_failed_the_table_says_so_and_why(widget, data_set):
    shutil.rmtree(data_set / "cases")
    show(widget, data_set)
    assert cells(widget) == [["case_03", "failed", "", ""]]
    assert "CT" in widget.ui.casesTable.wrapped.item(0, 0).toolTip()


@pytest.mark.parametrize("which", ["input", "output"])
def test_choosing_a_folder_begins_at_the_last_one_and_cancelling_keeps_it(widget, data_set, monkeypatch, which):
    asked = []

    def cancelled(parent, caption, folder):
        asked.append(folder)
        return ""

    show(widget, data_set, data_set)
    monkeypatch.setattr(QtWidgets.QFileDialog, "getExistingDirectory", cancelled)
    getattr(widget.ui, f"{which}Button").wrapped.click()
    assert asked == [getattr(widget.ui, f"{which}Edit").text] == [str(data_set)]
    assert len(cells(widget)) == 3


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
    shutil.copytree(cohort / "case_02", tmp_path / "in" / "case_02")
    run_curate(CurateRequest(str(tmp_path / "in"), str(tmp_path / "out")))
    folder = tmp_path / "out" / "cases" / "case_02"
    ct, mr, segmentation = open_case(scene, folder)
    assert mr is None
    assert volume_of(ct).grid.is_close(read_volume(folder / "ct.nrrd").grid)
    extent = segmentation.GetSegmentation().GetSegment("Brainstem").GetRepresentation("Binary labelmap").GetExtent()
    assert extent[1] - extent[0] >= 2


def nodes_in(scene):
    return [scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())]


@pytest.mark.parametrize("file", ["ct.nrrd", "mr.nrrd", "segmentation.seg.nrrd"])
def test_a_case_with_a_file_that_cannot_be_read_leaves_nothing_in_the_scene(scene, data_set, file):
    folder = data_set / "cases" / "case_01"
    (folder / file).write_text("no image")
    before = nodes_in(scene)
    with pytest.raises(HNSegError, match=file):
        open_case(scene, folder)
    assert nodes_in(scene) == before


def test_a_case_that_is_opened_again_is_shown_not_read_again(scene, data_set):
    layers = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    folders = [data_set / "cases" / name for name in ("case_01", "case_02")]
    first, second = (open_case(scene, folder) for folder in folders)
    before = nodes_in(scene)
    assert layers.GetBackgroundVolumeID() == second[0].GetID()
    assert open_case(scene, folders[0]) == first
    assert nodes_in(scene) == before
    assert layers.GetBackgroundVolumeID() == first[0].GetID()


def test_a_case_that_was_curated_anew_replaces_what_is_in_the_scene_and_a_persons_edit_stays(scene, data_set):
    folder = data_set / "cases" / "case_01"
    open_case(scene, folder)
    before = len(nodes_in(scene))
    os.utime(folder / "case.json", (1, 1))
    _, _, segmentation = open_case(scene, folder)
    assert len(nodes_in(scene)) == before
    segmentation.GetSegmentation().RemoveSegment("Pituitary")
    os.utime(folder / "case.json", (2, 2))
    assert open_case(scene, folder)[2] is not segmentation
    assert segmentation.GetScene() is scene


def test_a_case_of_which_a_node_was_removed_is_read_again(scene, data_set):
    folder = data_set / "cases" / "case_01"
    _, mr, _ = open_case(scene, folder)
    before = len(nodes_in(scene))
    scene.RemoveNode(mr.GetDisplayNode())
    scene.RemoveNode(mr)
    _, mr, _ = open_case(scene, folder)
    assert mr.GetName() == "case_01 MR"
    assert len(nodes_in(scene)) == before


@pytest.mark.slow
def test_the_self_tests_pass(module, widget, monkeypatch):
    monkeypatch.setattr(slicer.util, "getModuleWidget", lambda _: widget, raising=False)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(module.HNSegCurationTest).run(result)
    assert not result.errors, result.errors[0][1]
    assert not result.failures, result.failures[0][1]
    assert (result.testsRun, result.skipped) == (2, [])
