"""One worker process, from its start to its death: messages out, messages in, and how it ended."""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from hnseg.errors import WorkerError
from hnseg.jobs.processes import kill_tree
from hnseg.jobs.protocol import Message, parse_message, write_message

# A session (a group on Windows) of its own: Ctrl-C in the terminal reaches the parent only, which cancels in order.
_APART: dict[str, Any] = (
    {"creationflags": 0x00000200 | 0x08000000}  # CREATE_NEW_PROCESS_GROUP | CREATE_NO_WINDOW
    if sys.platform == "win32"
    else {"start_new_session": True}
)


class Channel:
    """A running worker process. ``receive`` never blocks; a thread reads ahead and touches nothing but a queue."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        try:
            with log.open("ab") as errors:
                self._popen = subprocess.Popen(
                    list(command), env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                    **_APART,
                )  # fmt: skip
        except OSError as error:
            raise WorkerError(
                f"The worker cannot be started with {command[0]!r} ({error.strerror}); check the path of its Python."
            ) from error
        self._messages: queue.SimpleQueue[Message | WorkerError | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(self._popen.stdout,), daemon=True).start()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._popen.poll() is None

    def send(self, kind: str, /, **content: Any) -> None:
        """Send a message. A process that died meanwhile is noticed by ``receive``, not here."""
        stream = self._popen.stdin
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                write_message(stream, type=kind, **content)

    def receive(self) -> Message | None:
        """The next message; None once the process has closed its end.

        Raises ``queue.Empty`` when none is there yet, ``WorkerError`` when the process spoke out of turn.
        """
        message = self._messages.get_nowait()
        if isinstance(message, WorkerError):
            raise message
        return message

    def leave(self, within_s: float) -> None:
        """Ask the process to end, and wait for it; whoever wants certainty calls ``kill`` next."""
        self.send("shutdown")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(within_s)

    def kill(self) -> str:
        """End the process and all that it started; returns how it ended, as the middle of a sentence."""
        kill_tree(self.pid)
        code = self._popen.wait(5.0)
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()
        return manner_of_death(code)

    def _listen(self, stream: BinaryIO) -> None:
        try:
            with stream:
                for line in stream:
                    self._messages.put(parse_message(line))
        except WorkerError as error:
            self._messages.put(error)
        finally:
            self._messages.put(None)


def manner_of_death(code: int) -> str:
    """An exit code of ``subprocess`` in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was killed by {name} ({-code})"
