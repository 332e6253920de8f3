"""The in-Slicer self-tests on stand-ins for the desktop, so that they do not fail of themselves when Slicer runs them.

The worker, the engine and the model that ships are real: minutes, hence ``slow``.
"""

import importlib.util
import sys
import unittest
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer

from HNSegLib import setting_up

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
    monkeypatch.setattr(slicer, "app", application, raising=False)
    monkeypatch.setattr(slicer.util, "delayDisplay", lambda *_: None)
    monkeypatch.setattr(slicer, "modules", SimpleNamespace(), raising=False)
    return slicer


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
            self.setMRMLScene = self.setMRMLSegmentEditorNode = self.setActiveEffectByName = lambda _: None
            self.show = lambda: None

        def effectByName(self, name):
            return self.adaptor if name == self.adaptor.name else None

        def activeEffect(self):
            self.adaptor.activate()
            return self.adaptor

    monkeypatch.setattr(slicer, "qMRMLSegmentEditorWidget", SegmentEditorWidget, raising=False)
    return module.SegmentEditorHNSegTest("test_ThirtyOrgansAndOneUndo")


@pytest.fixture
def module_test(application_of_slicer, monkeypatch):
    module = load("HNSeg", "HNSeg")
    widget = module.HNSegWidget(SimpleNamespace(isEntered=True))
    widget.folder = EXTENSION / "HNSeg"
    widget.setup()
    slicer.modules.HNSegWidget = widget
    monkeypatch.setattr(slicer.util, "selectModule", lambda _: widget.enter())
    yield module.HNSegTest("test_SegmentReviewExport")
    widget.cleanup()


def outcome(case):
    result = unittest.TestResult()
    case.run(result)
    assert not result.errors, result.errors[0][1]
    assert not result.failures, result.failures[0][1]
    return result


@pytest.mark.slow
def test_the_effects_self_test_passes(editor_test):
    editor_test.setUp()
    editor_test.test_EffectIsListed()
    assert not outcome(editor_test).skipped


@pytest.mark.slow
def test_the_modules_self_test_passes(module_test):
    module_test.setUp()
    module_test.test_ModuleOpens()
    assert not outcome(module_test).skipped


@pytest.mark.parametrize("name", ["editor_test", "module_test"])
def test_a_self_test_without_torch_is_skipped_loudly(name, request, monkeypatch, capsys):
    case = request.getfixturevalue(name)
    monkeypatch.setattr(setting_up, "missing", lambda: (setting_up.Requirement("torch", ">=2.4"),))
    (skipped,) = outcome(case).skipped
    assert "lacks torch>=2.4" in skipped[1]
    assert "SKIPPED, nothing was segmented" in capsys.readouterr().err
    assert sys.modules.get("qt") is not None
