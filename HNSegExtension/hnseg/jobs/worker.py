"""The warm worker process: ``python -m hnseg.jobs.worker``. Takes requests on standard input, keeps models loaded.

The process leaves when its input ends, so a parent that dies takes its worker along. Whatever libraries print goes to
standard error; only the protocol reaches standard output.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from hnseg.errors import Cancelled, HNSegError, WorkerError
from hnseg.jobs.processes import kill_children
from hnseg.jobs.protocol import PROTOCOL, Message, parse_message, write_message
from hnseg.version import __version__

OnProgress = Callable[[float, str], None]
Job = Callable[[Mapping[str, Any], OnProgress], Any]
"""Takes the request's plain values, returns plain values; raises ``HNSegError``; lets ``Cancelled`` through."""

LEAVE_WITHIN_S = 2.0
"""How long a running job may tidy up after the parent is gone."""

_EVERY_JOB = "*"


def serve(jobs: Mapping[str, Job]) -> None:
    """Speak the protocol on this process's standard streams until told to leave."""
    requests, answers = _private_streams()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to interpret: it cancels or closes
    _Server(jobs, requests, answers).serve()


def _private_streams() -> tuple[BinaryIO, BinaryIO]:
    """The protocol's own ends; descriptor 0 then reads nothing and descriptor 1 is standard error."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


class _Server:
    def __init__(self, jobs: Mapping[str, Job], requests: BinaryIO, answers: BinaryIO) -> None:
        self._jobs = jobs
        self._requests = requests
        self._answers = answers
        self._answering = threading.Lock()
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._told_to_leave = False
        self._idle_for_good = threading.Event()

    def serve(self) -> None:
        """Jobs run here, one after another; a thread listens meanwhile, and ends the process."""
        listener = threading.Thread(target=self._listen, daemon=True)
        listener.start()
        while (message := self._queue.get()) is not None:
            self._run(message)
        self._idle_for_good.set()
        listener.join()

    def _listen(self) -> None:
        try:
            for line in self._requests:
                self._take(line)
                if self._told_to_leave:
                    break
        finally:
            self._leave()

    def _leave(self) -> None:
        """Ask running and waiting jobs to stop, give them a moment to tidy up, end this process and its children."""
        self._cancelled.add(_EVERY_JOB)
        self._queue.put(None)
        self._idle_for_good.wait(LEAVE_WITHIN_S)
        kill_children()
        os._exit(0)

    def _take(self, line: bytes) -> None:
        try:
            message = parse_message(line)
            self._handle(message)
        except WorkerError as error:
            self._answer("error", id=None, kind="WorkerError", message=str(error))

    def _handle(self, message: Message) -> None:
        kind = message["type"]
        if kind == "hello":
            self._greet(message)
        elif kind == "submit":
            self._queue.put(message)
        elif kind == "cancel":
            self._cancelled.add(str(message.get("id")))
        elif kind == "ping":
            self._answer("pong")
        elif kind == "shutdown":
            self._told_to_leave = True
        else:
            raise WorkerError(f"The worker does not know the message type {kind!r}; update both sides.")

    def _greet(self, message: Message) -> None:
        if message.get("protocol") == PROTOCOL:
            self._answer("ready", protocol=PROTOCOL, version=__version__, pid=os.getpid(), jobs=sorted(self._jobs))
            return
        got = message.get("protocol")
        text = f"The worker speaks protocol {PROTOCOL}, got {got}; install the same HNSeg on both sides."
        self._answer("error", id=None, kind="WorkerError", message=text)
        self._told_to_leave = True

    def _answer(self, kind: str, /, **content: Any) -> None:
        try:
            with self._answering:
                write_message(self._answers, type=kind, **content)
        except OSError:
            self._cancelled.add(_EVERY_JOB)  # nobody is left to answer to

    def _run(self, message: Message) -> None:
        job = str(message.get("id"))

        def on_progress(fraction: float, text: str) -> None:
            if self._cancelled & {job, _EVERY_JOB}:
                raise Cancelled("The job was cancelled; nothing was written.")
            self._answer("progress", id=job, fraction=round(float(fraction), 4), text=text)

        try:
            on_progress(0.0, "Starting")
            result = self._find(message)(message.get("request", {}), on_progress)
            self._answer("result", id=job, result=result)
        except Cancelled:
            self._answer("cancelled", id=job)
        except HNSegError as error:
            self._answer("error", id=job, kind=type(error).__name__, message=str(error))
        except Exception as error:  # noqa: BLE001  the process boundary: everything must become an answer
            traceback.print_exc()
            text = (
                f"A defect of HNSeg stopped the job ({type(error).__name__}); please report it with the worker's log."
            )
            self._answer("error", id=job, kind="WorkerError", message=text)
        self._cancelled.discard(job)

    def _find(self, message: Message) -> Job:
        name = str(message.get("job"))
        if name not in self._jobs:
            raise WorkerError(f"The worker knows no job {name!r}; it does {', '.join(sorted(self._jobs))}.")
        return self._jobs[name]


def main() -> None:
    """Serve the jobs that this package offers."""
    from hnseg.jobs.segment import worker_jobs

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    serve(worker_jobs())


if __name__ == "__main__":
    main()
