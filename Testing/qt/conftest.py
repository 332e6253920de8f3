"""Real Qt (PySide6, offscreen) and real MRML (slicer-core); what only the desktop application has is a stand-in."""

import importlib.util
import os
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import slicer

from hnseg.jobs.client import Worker
from HNSegLib.desk import WorkerDesk

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
    monkeypatch.setitem(sys.modules, "slicer.ScriptedLoadableModule", stand_ins.scripted_loadable_module(scene))
    monkeypatch.setattr(slicer, "mrmlScene", scene, raising=False)
    monkeypatch.setattr(slicer.util, "loadUI", stand_ins.load_ui)
    monkeypatch.setattr(slicer.util, "childWidgetVariables", stand_ins.child_widget_variables)
    monkeypatch.setattr(slicer.util, "createProgressDialog", stand_ins.progress_dialog, raising=False)
    fitted = []
    monkeypatch.setattr(slicer.util, "setSliceViewerLayers", lambda **layers: fitted.append(layers), raising=False)
    monkeypatch.setattr(slicer, "fittedViews", fitted, raising=False)
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None, raising=False)
    said = []
    monkeypatch.setattr(slicer.util, "showStatusMessage", lambda text, duration: said.append(text), raising=False)
    monkeypatch.setattr(slicer, "statusMessages", said, raising=False)
    monkeypatch.setattr(slicer, "app", application, raising=False)
    monkeypatch.setattr(application, "layoutManager", stand_ins.LayoutManager, raising=False)
    stand_ins.errors.clear()
    yield slicer
    assert not stand_ins.errors


@pytest.fixture(scope="session")
def worker_desk():
    """A real worker process, with a script that stands in for the network."""
    script = Path(__file__).parents[1] / "mrml" / "stand_ins" / "segment_worker.py"
    desk = WorkerDesk(lambda: Worker(command=(sys.executable, str(script))))
    yield desk
    desk.close()


@pytest.fixture
def desk(worker_desk, monkeypatch):
    monkeypatch.setattr("HNSegLib.desk.shared_desk", lambda: worker_desk)
    return worker_desk


@pytest.fixture
def complete(monkeypatch):
    """Nothing is missing, whatever this environment holds."""
    from HNSegLib import setting_up

    monkeypatch.setattr(setting_up, "missing", lambda: ())


@pytest.fixture
def ct(scene):
    """Organ n as n voxels of value 10 n: what the scripted worker turns into labels."""
    from hnseg.image.grid import Grid
    from hnseg.image.volume import Volume
    from hnseg.organs import ORGANS
    from HNSegLib.volumes import add_volume

    array = np.zeros((6, 35, 40), np.int16)
    for organ in ORGANS:
        array[3, organ.label + 1, 4 : 4 + organ.label] = organ.label * 10
    return add_volume(scene, Volume(array, Grid((40, 35, 6), (1, 2, 3), (5, 6, 7))), "Planning CT")


@pytest.fixture
def mr(scene):
    from hnseg.image.grid import Grid
    from hnseg.image.volume import Volume
    from HNSegLib.volumes import add_volume

    return add_volume(scene, Volume(np.ones((4, 4, 4), np.float32), Grid((4, 4, 4))), "T1")


@pytest.fixture
def process(application):
    """Let the event loop run until something holds."""

    def wait(until, seconds=60):
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline
            application.processEvents()
            time.sleep(0.005)

    return wait
