"""Process trees."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import psutil


def kill_tree(pid: int) -> None:
    """Kill a process that leads a group of its own, and all that it started; waits for the latter, not for itself.

    Works after the process's own death too, when its children have lost their parent but not their group.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        children = root.children(recursive=True)
        _kill([*children, root])
        psutil.wait_procs(children, timeout=2.0)
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def kill_children() -> None:
    """Kill all that this process started."""
    _kill(psutil.Process().children(recursive=True))


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
