"""What is written down of a curated case: ``case.json`` beside its images. No times and no hosts, so that equal input
gives equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hnseg.curation.alignment import AlignmentRecord
from hnseg.curation.mr import MrRecord
from hnseg.curation.overlaps import Conflict
from hnseg.curation.remarks import Remark
from hnseg.curation.shape import Kept
from hnseg.curation.sources import SourceRecord
from hnseg.errors import UnreadableFile
from hnseg.image.files import atomic_write
from hnseg.image.grid import Grid
from hnseg.plain import from_plain, to_plain

CASES, RECORD = "cases", "case.json"
CT, MR, MR_VALID, PET = "ct.nrrd", "mr.nrrd", "mr_valid.nrrd", "pet.nrrd"
LABELS, SEGMENTATION, TRANSFORM = "labels.nrrd", "segmentation.seg.nrrd", "ct_to_mr.tfm"
OVERLAPS, MR_BIAS = "overlaps.csv", "mr_log_bias.nrrd"

CT_BINS_HU = (-1000, 2000, 60)
"""Of the histogram: from, to, how many."""

Status = Literal["good", "doubtful"]


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """``ct_grid`` is the CT's own, to which ``grid``, the case's, can be brought back."""

    name: str
    status: Status
    sources: tuple[SourceRecord, ...]
    ct_grid: Grid
    grid: Grid
    annotated: tuple[str, ...]
    ignored: tuple[str, ...]
    targets: tuple[str, ...]
    volumes_ml: Mapping[str, float]
    conflicts: tuple[Conflict, ...]
    kept: tuple[Kept, ...]
    remarks: tuple[Remark, ...]
    ct_histogram: tuple[int, ...]
    alignment: AlignmentRecord | None = None
    mr: MrRecord | None = None
    pet: bool = False
    subject: str = ""
    patient: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_mr(self) -> bool:
        """Whether the case has an MR on its grid."""
        return self.mr is not None


def write_json(value: Any, path: Path) -> None:
    """Plain values or a dataclass, whole or not at all. Raises ``OutputError``."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(to_plain(value), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def finished_cases(out: Path) -> list[Path]:
    """The folders of a curation's finished cases, by name; what is half-written is hidden."""
    return sorted(path.parent for path in (out / CASES).glob(f"[!.]*/{RECORD}"))


def read_case(folder: Path) -> CaseRecord:
    """The record of a finished case. Raises ``UnreadableFile``; ``ConfigError`` for one of another version."""
    path = folder / RECORD
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{path} cannot be read ({error}); remove {folder} and curate again.") from None
    return from_plain(CaseRecord, data, where=str(path))
