"""Real Qt (PySide6, offscreen) and real MRML (slicer-core); what only the desktop application has is a stand-in."""

import importlib.util
import os
import sys
import types
from pathlib import Path

import pytest
import slicer

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
from PySide6 import QtWidgets

EXTENSION = Path(__file__).parents[2] / "HNSegExtension"


def load(path, name):
    """As Slicer does: by path, not by import."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def application():

    return QtWidgets.QApplication.instance() or QtWidgets.QApplication([])


@pytest.fixture(scope="session")
def stand_ins():
    return load(Path(__file__).with_name("stand_ins") / "pythonqt.py", "hnseg_stand_in_pythonqt")


@pytest.fixture
def scene():
    scene = slicer.vtkMRMLScene()
    logic = slicer.vtkSlicerSegmentationsModuleLogic()  # registers nodes and conversion rules
    logic.SetMRMLScene(scene)
    yield scene
    logic.SetMRMLScene(None)
    scene.Clear(True)


@pytest.fixture
def desktop(application, stand_ins, scene, monkeypatch):
    """Slicer's modules as the effect imports them."""
    effects = types.ModuleType("SegmentEditorEffects")
    effects.AbstractScriptedSegmentEditorEffect = stand_ins.AbstractScriptedSegmentEditorEffect
    monkeypatch.setitem(sys.modules, "SegmentEditorEffects", effects)
    monkeypatch.setitem(sys.modules, "qt", stand_ins.qt_module())
    monkeypatch.setattr(slicer, "mrmlScene", scene, raising=False)
    monkeypatch.setattr(slicer.util, "loadUI", stand_ins.load_ui)
    monkeypatch.setattr(slicer.util, "childWidgetVariables", stand_ins.child_widget_variables)
    return slicer


@pytest.fixture
def segment_worker():
    """The scripted worker that stands in for the network."""
    return Path(__file__).parents[1] / "mrml" / "stand_ins" / "segment_worker.py"
