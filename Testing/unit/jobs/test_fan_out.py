"""Worker processes of one machine, started from within Slicer."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from multiprocessing import spawn
from pathlib import Path

import pytest

from hnseg.jobs.fan_out import FanOut


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins are shell scripts")
def test_within_slicer_workers_are_started_by_python_itself_not_by_its_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STAND-IN: a launcher that, as Slicer's, does not hand on what multiprocessing needs."""

    def seven(tell: Callable[[float, str], None]) -> int:
        return 7

    for name, does in (("PythonSlicer", "exit 1"), ("python-real", f'exec "{sys.executable}" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    launcher = str(tmp_path / "PythonSlicer")
    monkeypatch.setattr(spawn, "_python_exe", launcher)
    assert dict(FanOut(workers=2).run({"case_01": seven, "case_02": seven}, lambda fraction, text: None)) == {
        "case_01": 7,
        "case_02": 7,
    }
    assert os.fsdecode(spawn.get_executable()) == launcher
