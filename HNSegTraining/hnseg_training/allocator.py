"""Memory that training frees and takes again every step stays with the process."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Parameters of glibc's ``mallopt``, by its manual page."""
_AHEAD_BYTES = 1 << 28


def keep_freed_memory() -> bool:
    """Have glibc keep freed buffers, where it is the C library; returns whether it does.

    By itself it gives every buffer of more than 32 MB back to the kernel, and a training step on a CPU begins with
    thousands of fresh pages. The process keeps its peak for itself instead.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, _AHEAD_BYTES))
    return all(mallopt(name, value) == 1 for name, value in settings)
