"""The tables beside a cohort: which organs are good, partial or missing (``OAR_data.csv``), and whose they are."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hnseg.errors import UnknownOrgan, UnreadableFile
from hnseg.organs import find_organ, fold

GOOD, PARTIAL, MISSING = 1.0, 0.5, 0.0

Marks = Mapping[str, float]
"""Organ → 1 good, 0.5 partial or corrupted, 0 missing."""


@dataclass(frozen=True, slots=True)
class Availability:
    """The marks of every case, by ``case_key``; ``notes`` say what in the table was not understood."""

    by_case: Mapping[str, Marks] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def of(self, case: str) -> Marks:
        """The case's marks; none where the table does not list it."""
        return self.by_case.get(case_key(case), {})


def case_key(name: str) -> str:
    """Names of one case in different spellings give one key: ``case_01``, ``Case 1`` and ``CASE-001``."""
    return re.sub(r"\d+", lambda number: str(int(number[0])), fold(name))


def read_availability(path: str | Path) -> Availability:
    """A table with the case first and a column per organ, headers in any spelling that the organ table knows.

    Semicolons, commas or tabs separate; ``0,5`` is 0.5; an empty cell says nothing. Raises ``UnreadableFile`` for what
    is no such table.
    """
    path = Path(path)
    rows = _rows(path)
    organs = [_organ_name(text) for text in rows[0]]
    strangers = [text for text, organ in zip(rows[0][1:], organs[1:], strict=True) if organ is None and text.strip()]
    notes = [f"{path.name}: no organ is called {text!r}; the column was left out." for text in strangers]
    by_case: dict[str, dict[str, float]] = {}
    for row in rows[1:]:
        marks = by_case.setdefault(case_key(row[0]), {})
        for organ, cell in zip(organs[1:], row[1:], strict=False):
            mark = _mark(cell)
            if organ and mark is not None:
                marks[organ] = mark
            elif organ and cell.strip():
                notes.append(f"{path.name}: {row[0]} has {cell!r} for {organ}, not 0, 0.5 or 1; it was left out.")
    return Availability(by_case, tuple(notes))


def read_patients(path: str | Path) -> dict[str, dict[str, str]]:
    """Case key → sex and age, as far as a table says; headers are matched loosely, and nothing in it is an error."""
    try:
        header, *rows = _rows(Path(path))
    except UnreadableFile:
        return {}
    wanted = {n: word for n, text in enumerate(header) for word in ("sex", "age") if _means(text, word)}
    return {
        case_key(row[0]): {word: row[n].strip() for n, word in wanted.items() if n < len(row) and row[n].strip()}
        for row in rows
    }


def _rows(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise UnreadableFile(f"{path} cannot be read as a table; save it as CSV in UTF-8.") from None
    first = text.partition("\n")[0]
    delimiter = max(";,\t", key=first.count)
    rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(cell.strip() for cell in row)]
    if not rows or len(rows[0]) < 2:
        raise UnreadableFile(f"{path.name} is no table of cases and organs; separate its columns by semicolons.")
    return rows


def _means(header: str, word: str) -> bool:
    return word in re.split(r"[^a-z]+", header.lower()) or (word == "sex" and "gender" in header.lower())


def _organ_name(text: str) -> str | None:
    try:
        return find_organ(text).name
    except UnknownOrgan:
        return None


def _mark(cell: str) -> float | None:
    try:
        value = float(cell.strip().replace(",", "."))
    except ValueError:
        return None
    return value if value in (GOOD, PARTIAL, MISSING) else None
