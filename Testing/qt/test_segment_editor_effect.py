"""The effect's widgets in real Qt: what Slicer calls, what a user clicks. Slicer's desktop parts are stand-ins."""

import importlib.util
from pathlib import Path

import pytest
import slicer

from hnseg.organs import ORGANS
from hnseg.version import RESEARCH_USE
from HNSegLib import setting_up

pytest.importorskip(
    "PySide6.QtWidgets",
    exc_type=ImportError,
    reason="PySide6 does not load: apt-get install libgl1 libegl1 libxkbcommon0 libfontconfig1 libdbus-1-3",
)
from PySide6.QtCore import Qt

FOLDER = Path(__file__).parents[2] / "HNSegExtension" / "SegmentEditorHNSeg"
EFFECT = FOLDER / "SegmentEditorHNSegLib" / "SegmentEditorEffect.py"


@pytest.fixture
def effect_module(desktop):
    spec = importlib.util.spec_from_file_location("SegmentEditorHNSegLib", EFFECT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def adaptor(effect_module, stand_ins, scene):
    adaptor = stand_ins.ScriptedEffect(scene)
    adaptor.setPythonSource(effect_module.SegmentEditorEffect)
    yield adaptor
    adaptor.effect.cleanup()


@pytest.fixture
def segmentation(scene):
    return scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Plan")


@pytest.fixture
def ready(adaptor, complete, ct, segmentation):
    """The effect, chosen by the user, with a CT and an empty segmentation."""
    adaptor.node.SetAndObserveSourceVolumeNode(ct)
    adaptor.node.SetAndObserveSegmentationNode(segmentation)
    adaptor.activate()
    return adaptor


def click(widget):
    assert widget.wrapped.isEnabled()
    widget.wrapped.click()


def names_of(segmentation):
    inner = segmentation.GetSegmentation()
    return [inner.GetNthSegment(n).GetName() for n in range(inner.GetNumberOfSegments())]


def test_the_effect_tells_slicer_that_it_works_without_segments(adaptor):
    assert (adaptor.name, adaptor.perSegment, adaptor.requireSegments) == ("HNSeg", False, False)
    assert len(adaptor.options) == 1


def test_the_research_sentence_is_visible_and_in_the_help(ready):
    assert RESEARCH_USE in ready.effect.panel.ui.researchUseLabel.text
    assert RESEARCH_USE in ready.effect.helpText()


def test_the_icon_beside_the_effect_is_a_picture(ready):
    assert not ready.effect.icon().isNull()


def test_a_new_scene_gets_the_defaults(ready):
    ui = ready.effect.panel.ui
    assert ui.allOrgansCheckBox.checked
    assert ui.protectCheckBox.checked
    assert ui.deviceComboBox.currentText == "auto"
    assert ui.policyComboBox.currentText == "Replace the organs' segments"
    assert ready.parameter("Organs") == "all"


def test_what_the_user_chooses_is_kept_in_the_scene(ready, mr):
    ui = ready.effect.panel.ui
    ui.mrSelector.setCurrentNode(mr)
    ui.mrRegisteredCheckBox.setChecked(True)
    ui.policyComboBox.setCurrentIndex(1)
    ui.deviceComboBox.setCurrentIndex(1)
    ui.protectCheckBox.setChecked(False)
    ui.allOrgansCheckBox.setChecked(False)
    for row in range(30):
        box = ui.organsList.wrapped.item(row)
        box.setCheckState(Qt.CheckState.Checked if box.text().startswith("Lips ") else Qt.CheckState.Unchecked)
    assert ready.nodeReference("MR") is mr
    kept = {name: ready.parameter(name) for name in ("Organs", "MergePolicy", "Device", "Protect", "MRRegistered")}
    assert kept == {"Organs": "Lips", "MergePolicy": "onlyEmpty", "Device": "cpu", "Protect": "0", "MRRegistered": "1"}


def test_what_the_scene_holds_is_shown(ready, mr):
    ready.setNodeReference("MR", mr)
    for name, value in {"Organs": "Lips,SpinalCord", "MergePolicy": "onlyEmpty", "Device": "cuda"}.items():
        ready.setParameter(name, value)
    ui = ready.effect.panel.ui
    assert ui.mrSelector.currentNode() is mr
    assert ui.policyComboBox.currentText == "Fill empty segments only"
    assert ui.deviceComboBox.currentText == "cuda"
    assert not ui.allOrgansCheckBox.checked
    rows = map(ui.organsList.wrapped.item, range(30))
    shown = [row.text() for row in rows if row.checkState() is Qt.CheckState.Checked]
    assert shown == ["Lips  (lips)", "SpinalCord  (spinal cord)"]


def test_widgets_of_an_effect_that_is_not_chosen_do_not_write_into_the_scene(adaptor, complete, mr):
    adaptor.effect.panel.ui.mrSelector.setCurrentNode(mr)
    assert adaptor.parameter("Protect") == "1"
    assert adaptor.nodeReference("MR") is None


def test_apply_waits_for_a_ct(adaptor, complete, ct, segmentation):
    adaptor.node.SetAndObserveSegmentationNode(segmentation)
    adaptor.activate()
    assert not adaptor.effect.panel.ui.applyButton.enabled
    adaptor.node.SetAndObserveSourceVolumeNode(ct)
    adaptor.effect.sourceVolumeNodeChanged()
    assert adaptor.effect.panel.ui.applyButton.enabled
    assert adaptor.effect.panel.ui.ctLabel.text == "Planning CT"


def test_models_are_listed_by_name(adaptor, complete, monkeypatch, effect_module):
    from HNSegLib import panel

    monkeypatch.setattr(panel, "bundle_folders", lambda: {"hnseg-phantom": Path("/somewhere")})
    adaptor.activate()
    box = adaptor.effect.panel.ui.modelComboBox.wrapped
    assert [box.itemText(n) for n in range(box.count())] == ["Default", "hnseg-phantom"]
    box.setCurrentIndex(1)
    assert adaptor.parameter("Model") == "hnseg-phantom"


def test_apply_gives_thirty_segments_without_blocking_and_one_undo_takes_them_away(ready, desk, process, segmentation):
    ui = ready.effect.panel.ui
    click(ui.applyButton)
    assert not ui.applyButton.enabled
    assert ui.cancelButton.enabled
    process(lambda: not ready.effect.panel.logic.busy)
    assert names_of(segmentation) == [organ.name for organ in ORGANS]
    assert ui.statusLabel.text.startswith("30 organs written")
    assert "Look at Parotid_L" in ui.detailsText.plainText
    assert not ready.effect.panel.timer.active
    assert ui.applyButton.enabled
    assert ready.saved == 1
    ready.logic.Undo()
    assert names_of(segmentation) == []


def test_cancel_stops_the_job_and_changes_nothing(ready, desk, process, segmentation):
    ready.setParameter("Model", "slow")
    ui = ready.effect.panel.ui
    click(ui.applyButton)
    process(lambda: ui.progressBar.value == 250)
    click(ui.cancelButton)
    assert ui.statusLabel.text == "Cancelled; nothing was changed."
    assert not ui.cancelButton.enabled
    process(lambda: not ready.effect.panel.timer.active)
    assert names_of(segmentation) == []


def test_a_failure_is_shown_as_its_sentence(ready, desk, process):
    ready.setParameter("Model", "refuses")
    click(ready.effect.panel.ui.applyButton)
    process(lambda: not ready.effect.panel.logic.busy)
    assert "is not a CT" in ready.effect.panel.ui.statusLabel.text


def test_the_result_waits_while_the_user_works_with_another_effect(ready, desk, process, segmentation):
    click(ready.effect.panel.ui.applyButton)
    ready.deactivate()
    process(lambda: ready.effect.panel.ui.statusLabel.text.startswith("Done; come back"))
    assert names_of(segmentation) == []
    assert slicer.statusMessages[-1].startswith("HNSeg: Done; come back here with 'Plan' chosen")
    ready.activate()
    process(lambda: not ready.effect.panel.logic.busy)
    assert len(names_of(segmentation)) == 30


def test_what_is_missing_is_named_and_apply_is_off(adaptor, effect_module, monkeypatch, ct, segmentation):
    wanted = setting_up.Requirement
    monkeypatch.setattr(setting_up, "missing", lambda: (wanted("torch", ">=2.4"), wanted("monai", "")))
    adaptor.node.SetAndObserveSourceVolumeNode(ct)
    adaptor.node.SetAndObserveSegmentationNode(segmentation)
    adaptor.activate()
    ui = adaptor.effect.panel.ui
    assert ui.setUpLabel.text == "HNSeg still needs: torch>=2.4, monai."
    assert ui.setUpBox.wrapped.isVisibleTo(ui.setUpBox.wrapped.parent())
    assert not ui.applyButton.enabled


def test_installing_goes_through_slicer_and_a_refusal_is_shown(adaptor, effect_module, monkeypatch):
    monkeypatch.setattr(setting_up, "missing", lambda: (setting_up.Requirement("torch", ">=2.4"),))
    adaptor.activate()
    click(adaptor.effect.panel.ui.installButton)
    assert "PyTorch extension" in adaptor.effect.panel.ui.setUpLabel.text


def test_after_installing_the_panel_is_gone_and_apply_is_on(ready, effect_module, monkeypatch):
    absent = [setting_up.Requirement("monai", ">=1.6")]
    monkeypatch.setattr(setting_up, "missing", lambda: tuple(absent))
    monkeypatch.setattr(setting_up, "pip_install_of_slicer", lambda arguments: absent.clear())
    ready.activate()
    assert not ready.effect.panel.ui.applyButton.enabled
    click(ready.effect.panel.ui.installButton)
    assert not ready.effect.panel.ui.setUpBox.wrapped.isVisibleTo(ready.effect.panel.ui.setUpBox.wrapped.parent())
    assert ready.effect.panel.ui.applyButton.enabled


def test_cleanup_lets_go_of_every_connection_and_of_the_job(ready, desk, process):
    ready.setParameter("Model", "slow")
    click(ready.effect.panel.ui.applyButton)
    apply_button, timer = ready.effect.panel.ui.applyButton, ready.effect.panel.timer
    ready.effect.cleanup()
    assert not timer.active
    assert not apply_button.receivers
    assert ready.effect.panel.logic is None
    ready.effect.cleanup()
