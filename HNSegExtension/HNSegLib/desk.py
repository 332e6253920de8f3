"""One warm worker for the whole application; every client gets the events of its own jobs only."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the client needs psutil, which a fresh Slicer lacks
    from hnseg.jobs.client import Request, Worker
    from hnseg.jobs.events import Event


class WorkerDesk:
    """Starts the worker when the first job comes in, and hands out what it reports. Nothing here waits."""

    def __init__(self, make_worker: Callable[[], Worker]) -> None:
        self._make_worker = make_worker
        self._worker: Worker | None = None
        self._mail: defaultdict[str, list[Event]] = defaultdict(list)

    @property
    def folder(self) -> Path:
        """A private folder for volumes on their way; gone after ``close``."""
        return self._hired().folder

    @property
    def log(self) -> Path | None:
        """What the worker said on standard error; None before the first job."""
        return self._worker.log if self._worker is not None else None

    def submit(self, request: Request) -> str:
        """Queue a request; returns its id at once."""
        return self._hired().submit(request)

    def events(self, job: str) -> list[Event]:
        """What happened to this job since the last call."""
        if self._worker is not None:
            for event in self._worker.poll():
                self._mail[event.job].append(event)
        return self._mail.pop(job, [])

    def cancel(self, job: str) -> None:
        """Stop a job in less than a second; a ``Stopped`` event follows."""
        if self._worker is not None:
            self._worker.cancel(job)

    def close(self) -> None:
        """End the worker; the next job starts a new one."""
        worker, self._worker = self._worker, None
        self._mail.clear()
        if worker is not None:
            worker.close()

    def _hired(self) -> Worker:
        if self._worker is None:
            self._worker = self._make_worker()
        return self._worker


def python_executable() -> str:
    """The Python that runs the worker: Slicer's own, since Slicer itself is none; outside Slicer the one that runs.

    PythonSlicer is a launcher in Slicer's PATH, on every platform; it brings Slicer's libraries and packages along.
    """
    home = os.environ.get("SLICER_HOME")
    beside_slicer = Path(home, "bin") if home else ""
    return shutil.which("PythonSlicer") or shutil.which("PythonSlicer", path=beside_slicer) or sys.executable


def shared_desk() -> WorkerDesk:
    """The desk that all of HNSeg's effects and modules share; closed when the application ends."""
    if not _shared:
        _shared.append(WorkerDesk(_new_worker))
        atexit.register(_shared[0].close)
    return _shared[0]


_shared: list[WorkerDesk] = []


def _new_worker() -> Worker:
    from hnseg.jobs.client import Worker

    return Worker(python_executable=python_executable())
