"""The in-Slicer self-tests on stand-ins for the desktop, so that they do not fail of themselves when Slicer runs them.

The worker, the engine and the model that ships are real: minutes, hence ``slow``.
"""

import importlib.util
import sys
import unittest
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer

from HNSegLib import sample_patient, setting_up

pytest.importorskip(
    "PySide6.QtWidgets",
    exc_type=ImportError,
    reason="PySide6 does not load: apt-get install libgl1 libegl1 libxkbcommon0 libfontconfig1 libdbus-1-3",
)

EXTENSION = Path(__file__).parents[2] / "HNSegExtension"


def load(folder, name):
    spec = importlib.util.spec_from_file_location(name, EXTENSION / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def application_of_slicer(desktop, application, scene, monkeypatch):
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(scene)
    segmentations = SimpleNamespace(logic=lambda: logic)
    monkeypatch.setattr(slicer, "modules", SimpleNamespace(segmentations=segmentations), raising=False)
    yield slicer
    logic.SetMRMLScene(None)


@pytest.fixture
def editor_test(application_of_slicer, stand_ins, scene, monkeypatch):
    module = load("SegmentEditorHNSeg", "SegmentEditorHNSeg")
    effect = load("SegmentEditorHNSeg/SegmentEditorHNSegLib", "SegmentEditorEffect")

    class SegmentEditorWidget:
        """STAND-IN for qMRMLSegmentEditorWidget: one effect, and the real editor logic for undo."""

        def __init__(self):
            self.adaptor = stand_ins.ScriptedEffect(scene)
            self.adaptor.self = lambda: self.adaptor.effect
            self.adaptor.setPythonSource(effect.SegmentEditorEffect)
            self.undo, self.redo = self.adaptor.logic.Undo, self.adaptor.logic.Redo
            self.setSegmentationNode = self.adaptor.node.SetAndObserveSegmentationNode
            self.setSourceVolumeNode = self.adaptor.node.SetAndObserveSourceVolumeNode
            self.setMRMLScene = self.setMRMLSegmentEditorNode = lambda _: None
            self.show = self.close = self.updateEffectList = lambda: None
            self.deleteLater = self.adaptor.effect.cleanup

        def setActiveEffectByName(self, name):
            self.adaptor.activate() if name else self.adaptor.deactivate()

        def effectByName(self, name):
            return self.adaptor if name == self.adaptor.name else None

        def activeEffect(self):
            return self.adaptor if self.adaptor.isActive else None

    monkeypatch.setattr(slicer, "qMRMLSegmentEditorWidget", SegmentEditorWidget, raising=False)
    return module.SegmentEditorHNSegTest


@pytest.fixture
def module_test(application_of_slicer, stand_ins, monkeypatch):
    module = load("HNSeg", "HNSeg")
    widget = module.HNSegWidget(SimpleNamespace(isEntered=True))
    widget.folder = EXTENSION / "HNSeg"
    widget.setup()
    monkeypatch.setattr(slicer.util, "getModuleWidget", lambda _: widget, raising=False)
    monkeypatch.setitem(sys.modules, "SampleData", stand_ins.sample_data_module())
    module.HNSeg(SimpleNamespace()).registerSampleData()
    yield module.HNSegTest
    widget.cleanup()


@pytest.fixture
def coarse(monkeypatch):
    """The sample patient in two seconds."""
    quick = partial(sample_patient.add_sample_patient, ct_spacing_mm=(6, 6, 8), mr_spacing_mm=(6, 6, 9))
    monkeypatch.setattr(sample_patient, "add_sample_patient", quick)


def outcome(cases):
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(cases).run(result)
    assert not result.errors, result.errors[0][1]
    assert not result.failures, result.failures[0][1]
    return result


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tests"), [("editor_test", 5), ("module_test", 4)])
def test_the_self_tests_pass(name, tests, request):
    result = outcome(request.getfixturevalue(name))
    assert (result.testsRun, result.skipped) == (tests, [])


@pytest.mark.parametrize(("name", "tests"), [("editor_test", 5), ("module_test", 4)])
def test_without_torch_only_the_segmentation_is_skipped_and_loudly(name, tests, coarse, request, monkeypatch, capsys):
    cases = request.getfixturevalue(name)
    monkeypatch.setattr(setting_up, "missing", lambda: (setting_up.Requirement("torch", ">=2.4"),))
    result = outcome(cases)
    assert result.testsRun == tests
    ((_, reason),) = result.skipped
    assert "lacks torch>=2.4" in reason
    assert "SKIPPED, nothing was segmented" in capsys.readouterr().err


def test_slicers_test_button_runs_every_test_and_fails_when_one_fails(editor_test, monkeypatch):
    monkeypatch.setattr(setting_up, "missing", lambda: (setting_up.Requirement("torch", ">=2.4"),))
    for name in ("test_OneUndoTakesThirtyKnownOrgansBack", "test_ChoicesAreKeptInTheScene"):
        monkeypatch.delattr(editor_test, name)
    editor_test().runTest()
    monkeypatch.setattr(editor_test, "test_EffectIsListed", lambda self: self.fail("on purpose"))
    with pytest.raises(AssertionError, match="1 of 3 tests failed: test_EffectIsListed"):
        editor_test().runTest()
