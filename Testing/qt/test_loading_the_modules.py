"""When Slicer loads the modules: while it starts, or later, as the Extension Wizard does."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer

pytest.importorskip(
    "PySide6.QtWidgets",
    exc_type=ImportError,
    reason="PySide6 does not load: apt-get install libgl1 libegl1 libxkbcommon0 libfontconfig1 libdbus-1-3",
)

EXTENSION = Path(__file__).parents[2] / "HNSegExtension"
MODULES = {"SegmentEditorHNSeg": "registerEditorEffect", "HNSeg": "registerSampleData"}


@pytest.fixture(params=MODULES)
def module(request, desktop, monkeypatch):
    """A module as Slicer has made it, with what it does at its start recorded."""
    name = request.param
    spec = importlib.util.spec_from_file_location(name, EXTENSION / name / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    done = []
    monkeypatch.setattr(getattr(loaded, name), MODULES[name], lambda self: done.append(name))
    made = getattr(loaded, name)(SimpleNamespace())
    made.done = done
    return made


@pytest.fixture
def started(monkeypatch):
    """What waits for the signal that Slicer has started."""
    waiting = []

    def connect(signal, slot):
        assert signal == "startupCompleted()"
        waiting.append(slot)

    monkeypatch.setattr(slicer, "app", SimpleNamespace(connect=connect), raising=False)
    return waiting


@pytest.mark.parametrize("window", [None, SimpleNamespace(visible=False)])
def test_while_slicer_starts_the_module_waits_for_the_rest(module, started, monkeypatch, window):
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: window, raising=False)
    module.setup()
    assert module.done == []
    started[0]()
    assert len(module.done) == 1


def test_in_a_running_slicer_it_is_there_at_once(module, started, monkeypatch):
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: SimpleNamespace(visible=True), raising=False)
    module.setup()
    assert len(module.done) == 1
    assert started == []


def test_the_phantom_is_registered_once_however_often_the_module_is_reloaded(desktop, stand_ins, monkeypatch):
    from HNSegLib.sample_data import CATEGORY, SAMPLE, register

    sample_data = stand_ins.sample_data_module()
    monkeypatch.setitem(sys.modules, "SampleData", sample_data)
    register(Path("thumbnail.png"))
    register(Path("thumbnail.png"))
    (source,) = sample_data.SampleDataLogic.sampleDataSourcesByCategory(CATEGORY)
    assert source.sampleName == SAMPLE


def test_a_slicer_without_sample_data_is_left_alone(desktop, monkeypatch):
    from HNSegLib.sample_data import register

    monkeypatch.setitem(sys.modules, "SampleData", None)
    register(Path("thumbnail.png"))


def test_the_thumbnail_is_there():
    assert (EXTENSION / "HNSeg" / "Resources" / "Icons" / "HNSegPhantom.png").is_file()
