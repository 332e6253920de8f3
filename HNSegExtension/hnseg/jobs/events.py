"""What a worker reports about its jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hnseg.errors import HNSegError


@dataclass(frozen=True, slots=True)
class Progress:
    """A job moved on: ``fraction`` in 0…1 and a short sentence."""

    job: str
    fraction: float
    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """A job is finished; ``outcome`` is what its request's kind promises."""

    job: str
    outcome: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """A job ended with an error of the family; a dead worker gives ``WorkerError``."""

    job: str
    error: HNSegError


@dataclass(frozen=True, slots=True)
class Stopped:
    """A job was cancelled; nothing was written."""

    job: str


Event = Progress | Done | Failed | Stopped
