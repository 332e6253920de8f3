"""What curation noticed about a case, as sentences with a kind that a table can be sorted by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "image", "registration", "drawn-elsewhere", "availability", "off-grid", "empty", "values", "two-sided", "swapped",
    "overlap", "volume",
]  # fmt: skip

GRAVE: tuple[Kind, ...] = ("registration", "drawn-elsewhere", "off-grid", "values", "two-sided", "swapped")
"""Kinds that a person should look at before the case is used."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One sentence. ``structure`` is empty where the remark is about the whole case."""

    kind: Kind
    structure: str
    text: str

    @property
    def is_grave(self) -> bool:
        """Whether the case is doubtful because of it."""
        return self.kind in GRAVE
