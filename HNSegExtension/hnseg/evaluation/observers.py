"""How well observers agree with each other: the ceiling that a system's scores are to be read against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from hnseg.errors import UnreadableFile

_SIDES = ("L", "R")

PUBLISHED_DSC: Mapping[str, float] = MappingProxyType(
    {"Bone_Mandible": 0.9, "Brainstem": 0.9, "Lips": 0.6, "BuccalMucosa": 0.6}
    | {f"Parotid_{side}": 0.9 for side in _SIDES}
    | {f"Glnd_Submand_{side}": 0.8 for side in _SIDES}
)
"""Round inter-observer DSCs for HaN-Seg's organs (Podobnik et al. 2023, doi:10.1002/mp.16197); 0.6 is at most."""


def read_ceiling(path: Path) -> dict[str, float]:
    """Organ → mean DSC from the JSON of an evaluation of one observer against another."""
    try:
        organs = json.loads(path.read_text(encoding="utf-8"))["organs"]
        return {str(name): float(row["dsc"]) for name, row in organs.items() if row.get("dsc") is not None}
    except OSError as error:
        raise UnreadableFile(f"Cannot open {path}: {error.strerror}; check the path.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableFile(f"{path.name} is no JSON of `hnseg evaluate` ({error}); evaluate two observers.") from None
