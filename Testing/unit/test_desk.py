"""Which Python runs the worker, and that a launcher in between does no harm."""

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from hnseg.jobs.client import Worker
from hnseg.jobs.events import Progress, Stopped
from hnseg.jobs.request import SegmentRequest
from HNSegLib.desk import WorkerDesk, python_executable

SCRIPT = Path(__file__).parents[1] / "mrml" / "stand_ins" / "segment_worker.py"


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


@pytest.fixture
def launched(tmp_path):
    """STAND-IN for PythonSlicer: starts the real Python as a child that shares its streams, and waits for it."""
    launcher = tmp_path / "PythonSlicer"
    launcher.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\n"
        "sys.exit(subprocess.Popen([sys.executable, *sys.argv[1:]]).wait())\n"
    )
    launcher.chmod(0o755)
    workers = []

    def hire():
        workers.append(Worker(command=(str(launcher), str(SCRIPT))))
        return workers[-1]

    desk = WorkerDesk(hire)
    desk.workers = workers
    yield desk
    desk.close()


def wait_for(desk, job, kind):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [event for event in desk.events(job) if isinstance(event, kind)]
        if found:
            return found[-1]
        time.sleep(0.01)
    raise AssertionError(f"no {kind.__name__}")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with #!")
def test_a_job_behind_slicers_launcher_speaks_and_is_cancelled_with_all_that_it_started(launched, tmp_path):
    request = SegmentRequest(ct=str(tmp_path / "CT.nrrd"), output=str(tmp_path / "labels.nrrd"), model="slow")
    job = launched.submit(request)
    assert wait_for(launched, job, Progress).text
    (worker,) = launched.workers
    (python,) = psutil.Process(worker.pid).children()
    launched.cancel(job)
    wait_for(launched, job, Stopped)
    launched.close()
    psutil.wait_procs([python], timeout=5)
    assert not python.is_running() or python.status() == psutil.STATUS_ZOMBIE
