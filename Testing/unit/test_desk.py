"""Which Python runs the worker."""

import os
import sys

import pytest

from HNSegLib.desk import python_executable


@pytest.fixture
def python_slicer(tmp_path, monkeypatch):
    """A Slicer whose launcher is not in PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SLICER_HOME", raising=False)
    launcher = tmp_path / "Slicer" / "bin" / ("PythonSlicer.exe" if os.name == "nt" else "PythonSlicer")
    launcher.parent.mkdir(parents=True)
    launcher.touch(0o755)
    return launcher


def test_outside_slicer_it_is_the_python_that_runs(python_slicer):
    assert python_executable() == sys.executable


def test_in_slicer_it_is_slicers_launcher_in_the_path(python_slicer, monkeypatch):
    monkeypatch.setenv("PATH", str(python_slicer.parent))
    assert python_executable() == str(python_slicer)


def test_a_launcher_that_is_not_in_the_path_is_found_in_slicers_home(python_slicer, monkeypatch):
    monkeypatch.setenv("SLICER_HOME", str(python_slicer.parents[1]))
    assert python_executable() == str(python_slicer)
