"""The JSON run report: what was done, with what, and what came out. No patient name or identifier goes in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hnseg.errors import UnreadableFile
from hnseg.plain import from_plain, to_plain
from hnseg.version import RESEARCH_USE

SCHEMA = "hnseg-run/1"

Status = Literal["ok", "check", "absent", "not trained"]
"""check: a doubt that the notes name; absent: nothing found; not trained: the model does not know this organ."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An input image: where it was read from and its lattice."""

    path: str
    size_ijk: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The model bundle that was used; ``sha256`` is of its metadata, which pins every other file."""

    name: str
    version: str
    sha256: str
    licence: str
    training_data: str


@dataclass(frozen=True, slots=True)
class OrganRecord:
    """One organ of the result. ``confidence``: mean winning probability, over the organ and over its boundary.

    ``taught_by``: what showed the organ to the model: "phantom", "patient", "patient union" (drawn as one with its
    neighbours); empty where the model does not say. ``expected_dsc``: with an expert, told from confidence and volume;
    None where that was not measured, or on phantoms alone.
    """

    label: int
    name: str
    volume_ml: float
    range_ml: tuple[float, float]
    confidence: float | None = None
    boundary_confidence: float | None = None
    status: Status = "ok"
    notes: tuple[str, ...] = ()
    taught_by: tuple[str, ...] = ()
    expected_dsc: float | None = None


@dataclass(frozen=True, slots=True)
class RegistrationRecord:
    """How the MR was brought to the CT, and whether that can be trusted."""

    verdict: str
    reason: str
    seconds: float
    used: bool
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RemovalRecord:
    """What post-processing took away or changed."""

    organ: str
    volume_ml: float
    reason: str


@dataclass(frozen=True, slots=True)
class ScoreRecord:
    """Agreement with a reference, where one was given; None where the measure is not defined."""

    name: str
    dsc: float | None
    hd95_mm: float | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of ``segment``."""

    created: str
    versions: dict[str, str]
    device: str
    model: ModelRecord
    inputs: dict[str, ImageRecord]
    organs: tuple[OrganRecord, ...]
    registration: RegistrationRecord | None = None
    removals: tuple[RemovalRecord, ...] = ()
    scores: tuple[ScoreRecord, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA
    notice: str = RESEARCH_USE

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def write_record(record: RunRecord, path: Path) -> None:
    """Write the record as JSON; the folder must be there."""
    path.write_text(
        json.dumps(record.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )


def read_record(path: Path) -> RunRecord:
    """Read a record; ``UnreadableFile`` if it is not JSON, ``ConfigError`` if it is another kind of JSON."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{path} is not a readable JSON file ({error}); give a run report of hnseg.") from error
    return from_plain(RunRecord, data, where=path.name)
