"""The worker's language: one JSON object a line, UTF-8, both ways. Described in docs/worker-protocol.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from hnseg import errors
from hnseg.errors import HNSegError, WorkerError

PROTOCOL = 1
"""Raised by one when an old client or worker would misunderstand a new one."""

Message = Mapping[str, Any]


def write_message(stream: IO[bytes], **message: Any) -> None:
    """Send one message and flush it."""
    stream.write(json.dumps(message, allow_nan=False).encode() + b"\n")
    stream.flush()


def parse_message(line: bytes) -> Message:
    """One line as a message; ``WorkerError`` when it is not one."""
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if not (isinstance(message, dict) and isinstance(message.get("type"), str)):
        shown = line[:60].decode(errors="replace").strip()
        raise WorkerError(f"A protocol line must be a JSON object with a type, got {shown!r}; update both sides.")
    return message


def error_from(message: Message) -> HNSegError:
    """The exception that an ``error`` message stands for; a kind that the family does not know becomes the root."""
    kind = getattr(errors, str(message.get("kind")), HNSegError)
    known = isinstance(kind, type) and issubclass(kind, HNSegError)
    return (kind if known else HNSegError)(str(message.get("message", "The worker gave no reason; look at its log.")))
