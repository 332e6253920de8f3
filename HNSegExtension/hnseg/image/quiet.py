"""Keeping native libraries' chatter off the terminal: what they have to say is raised as one of our errors instead."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_STDERR = 2
_one_at_a_time = threading.RLock()


@contextmanager
def native_chatter_silenced() -> Iterator[None]:
    """Send file descriptor 2 to nowhere meanwhile: ITK's readers write there past ``sys.stderr`` and past its settings.

    It holds for the whole process, so it belongs around single reads only.
    """
    with _one_at_a_time:
        try:
            kept = os.dup(_STDERR)
        except OSError:  # no standard error at all, as under pythonw
            yield
            return
        with suppress(AttributeError, OSError, ValueError):
            sys.stderr.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, _STDERR)
            yield
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
            os.close(nowhere)
