"""The parent's side of the warm worker: starts it, queues jobs, reports events, cancels, replaces it when it dies.

No callback ever runs in another thread: whoever calls ``poll`` (a Qt timer, say) gets the events, in order.
"""

from __future__ import annotations

import os
import queue
import shutil
import sys
import tempfile
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import hnseg
from hnseg.errors import Cancelled, ConfigError, WorkerError
from hnseg.jobs.channel import Channel
from hnseg.jobs.events import Done, Event, Failed, Progress, Stopped
from hnseg.jobs.protocol import PROTOCOL, Message, error_from
from hnseg.jobs.staging import sweep

OnProgress = Callable[[float, str], None]

CANCEL_GRACE_S = 0.5
"""How long a job may take to notice a cancel before its process is killed; within it the worker stays warm."""


class Request(Protocol):
    """What can be submitted: names its job, turns into plain values, and reads its outcome from plain values."""

    @property
    def job(self) -> str:
        """The worker's name for this kind of job."""

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files and folders that the job will write."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""

    def outcome_from_json(self, data: Any) -> Any:
        """What ``Done`` carries."""


@dataclass(frozen=True, slots=True)
class _Ticket:
    id: str
    request: Request


class Worker:
    """A warm worker process, started when first needed and replaced when it dies.

    ``python_executable`` runs ``hnseg.jobs.worker`` (in Slicer: PythonSlicer) with ``environment`` added to this
    process's; ``command`` replaces both executable and module. Use as a context manager, or call ``close``.
    """

    def __init__(
        self,
        *,
        python_executable: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self._command = tuple(command or (str(python_executable or sys.executable), "-m", "hnseg.jobs.worker"))
        self._environment = {**os.environ, **_path_to_hnseg(), **(environment or {})}
        self._folder = Path(tempfile.mkdtemp(prefix="hnseg-worker-"))
        self._channel: Channel | None = None
        self._waiting: deque[_Ticket] = deque()
        self._running: _Ticket | None = None
        self._events: deque[Event] = deque()
        self._tidy = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """A private folder for volumes on their way to and from the worker; gone after ``close``."""
        return self._folder

    @property
    def log(self) -> Path:
        """What the worker and its libraries said, on standard error."""
        return self._folder / "worker.log"

    @property
    def pid(self) -> int | None:
        """The worker's process id; None when none runs."""
        return self._channel.pid if self._channel is not None and self._channel.alive else None

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        return self._running is not None or bool(self._waiting)

    def start(self) -> None:
        """Start the process unless it runs; returns at once. ``WorkerError`` when it cannot be started."""
        self._read()
        if self._channel is None:
            self._check_open()
            self._channel = Channel(self._command, self._environment, self.log)
            self._channel.send("hello", protocol=PROTOCOL)

    def submit(self, request: Request) -> str:
        """Queue a request; returns its id at once. One job runs at a time, in the order of submission."""
        self._check_open()
        ticket = _Ticket(uuid.uuid4().hex, request)
        self._waiting.append(ticket)
        self._start_next()
        return ticket.id

    def poll(self) -> list[Event]:
        """What happened since the last call, without waiting. Starts the next job, on a new worker if need be."""
        self._read()
        self._start_next()
        events = list(self._events)
        self._events.clear()
        return events

    def wait(self, timeout_s: float = 0.1) -> list[Event]:
        """As ``poll``, but waits up to ``timeout_s`` for the first event."""
        deadline = time.monotonic() + timeout_s
        while not (events := self.poll()) and time.monotonic() < deadline:
            time.sleep(0.005)
        return events

    def run(self, request: Request, on_progress: OnProgress | None = None) -> Any:
        """Submit and wait; returns the outcome. ``Cancelled`` or Ctrl-C, also from ``on_progress``, cancels the job."""
        job = self.submit(request)
        others: list[Event] = []
        try:
            return self._follow(job, on_progress or _ignore, others)
        except BaseException:
            self.cancel(job)
            raise
        finally:
            self._events = deque(event for event in (*others, *self._events) if event.job != job)

    def cancel(self, job: str) -> None:
        """Stop a job, in less than a second; a ``Stopped`` event follows. An unknown or finished job is left alone.

        A job that does not notice in time has its whole process tree killed; the next job starts a new worker.
        """
        waiting = [ticket for ticket in self._waiting if ticket.id == job]
        if waiting:
            self._waiting.remove(waiting[0])
            self._events.append(Stopped(job))
        elif self._runs(job) and self._channel is not None:
            self._channel.send("cancel", id=job)
            deadline = time.monotonic() + CANCEL_GRACE_S
            while self._runs(job) and time.monotonic() < deadline:
                self._read()
                time.sleep(0.005)
            if self._runs(job):
                self._kill()
                self._end(Stopped(job))

    def close(self) -> None:
        """End the process and all that it started, and remove the private folder; jobs not done are dropped."""
        self._waiting.clear()
        if self._channel is not None and self._running is None:
            self._channel.leave(within_s=CANCEL_GRACE_S)
        self._kill()
        self._running = None
        self._tidy()

    def _follow(self, job: str, on_progress: OnProgress, others: list[Event]) -> Any:
        while True:
            for event in self.wait():
                if event.job != job:
                    others.append(event)
                elif isinstance(event, Progress):
                    on_progress(event.fraction, event.text)
                elif isinstance(event, Done):
                    return event.outcome
                elif isinstance(event, Failed):
                    raise event.error
                else:
                    raise Cancelled("The job was cancelled; nothing was written.")

    def _runs(self, job: str) -> bool:
        return self._running is not None and self._running.id == job

    def _start_next(self) -> None:
        while self._running is None and self._waiting:
            self._running = ticket = self._waiting.popleft()
            try:
                self.start()
            except WorkerError as error:
                self._end(Failed(ticket.id, error))
                continue
            if self._channel is not None:
                request = ticket.request
                self._channel.send("submit", id=ticket.id, job=request.job, request=request.to_json())

    def _read(self) -> None:
        while self._channel is not None:
            try:
                message = self._channel.receive()
            except queue.Empty:
                return
            except WorkerError as error:
                self._lose(error)
                continue
            if message is None:
                self._mourn()
            else:
                self._take(message, self._running)

    def _take(self, message: Message, running: _Ticket | None) -> None:
        kind = message["type"]
        if running is None or message.get("id") not in (running.id, None):
            return
        if kind == "progress":
            self._events.append(Progress(running.id, float(message["fraction"]), str(message["text"])))
        elif kind == "result":
            self._end(_finished(running, message))
        elif kind == "cancelled":
            self._end(Stopped(running.id))
        elif kind == "error":
            self._end(Failed(running.id, error_from(message)))

    def _end(self, event: Event) -> None:
        self._running = None
        self._events.append(event)

    def _mourn(self) -> None:
        """The process closed its end: say how it died, if that cost a job."""
        manner = self._kill()
        self._lose(WorkerError(f"The worker process {manner} and its job is lost; submit it again to a new worker."))

    def _lose(self, error: WorkerError) -> None:
        self._kill()
        if self._running is not None:
            self._end(Failed(self._running.id, error))

    def _kill(self) -> str:
        if self._channel is None:
            return ""
        manner = self._channel.kill()
        if self._running is not None:
            sweep(self._running.request.outputs, self._channel.pid)
        self._channel = None
        return manner

    def _check_open(self) -> None:
        if not self._tidy.alive:
            raise WorkerError("This worker is closed; make a new one.")


def _finished(running: _Ticket, message: Message) -> Event:
    try:
        return Done(running.id, running.request.outcome_from_json(message.get("result")))
    except ConfigError as error:
        return Failed(running.id, WorkerError(f"The worker's answer does not fit this HNSeg: {error}"))


def _ignore(fraction: float, text: str) -> None:
    return


def _path_to_hnseg() -> dict[str, str]:
    """The worker imports the same hnseg as this process, wherever that is (in Slicer: the extension's folder)."""
    here = str(Path(hnseg.__file__).parents[1])
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {"PYTHONPATH": os.pathsep.join([here, *(path for path in others if path and path != here)])}
