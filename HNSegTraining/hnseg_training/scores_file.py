"""Scores of many cases as a file: means for a model card, every case for comparisons."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hnseg.errors import InputError, UnreadableFile
from hnseg.evaluation.cohort import Cohort
from hnseg.evaluation.scores import NAN, OrganScores, Scores
from hnseg.image.files import atomic_write
from hnseg.inference.confidence import Confidence
from hnseg.plain import to_plain

UNION = " + "
"""Between the organs that were drawn as one structure."""

REFUSED = "refused: "
"""Before the case in a cohort's note."""

_CARD = {"DSC": "dsc", "HD95 mm": "hd95_mm"}


def write_scores(
    path: Path,
    cohorts: Mapping[str, Cohort],
    *,
    model: str,
    version: str,
    failed: Sequence[str],
    complete: bool = False,
    of: str = "",
    confidence: Mapping[str, Mapping[str, Mapping[str, Confidence]]] = MappingProxyType({}),
    worst: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the cohorts by title ("phantom, CT + MR"); ``failed`` names the cases that the engine refused.

    ``complete``: no case is left to do. ``of``: the digest of what was scored, see ``run_folder.identity``.
    ``confidence``: the model's, by title, case and structure. ``worst``: captions by the name of the picture.
    ``InputError`` if two cases of a title have one name: the file could hold one of them alone.
    """
    for title, cohort in cohorts.items():
        twice = [name for name, count in Counter(name for name, _ in cohort.cases).items() if count > 1]
        if twice:
            raise InputError(f"Two cases of {title!r} are called {twice[0]!r}; give each its own name.")
    tables = {
        f"{title}: {word}": {organ: cohort.mean(organ)[metric] for organ in cohort.organs}
        | {"mean": cohort.mean()[metric]}
        for title, cohort in cohorts.items()
        for word, metric in _CARD.items()
    }
    about = {"model": model, "version": version, "failed": list(failed), "complete": complete, "of": of}
    counts = {title: len(cohorts[title.rpartition(":")[0]].cases) for title in tables}
    cases = {title: {name: to_plain(scores) for name, scores in cohort.cases} for title, cohort in cohorts.items()}
    document = {"about": {**about, "cases": counts}, "tables": tables, "cases": cases}
    document |= {"confidence": to_plain(confidence), "worst": dict(worst)}
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(_finite(document), indent=1))


@dataclass(frozen=True, slots=True)
class About:
    """What a scores file is of: the model, its digest (None in old files) and the cases' names, refused ones too."""

    model: str
    of: str | None
    complete: bool
    cases: frozenset[str]


def read_about(path: Path) -> About:
    """What the scores are of. ``UnreadableFile`` if it is something else."""
    try:
        document = json.loads(path.read_text())
        about, scored = document["about"], document["cases"]
        refused = (line.partition(",")[0] for line in about["failed"])
        cases = frozenset((*(name for cases in scored.values() for name in cases), *refused))
        return About(about["model"], about.get("of"), about.get("complete", False), cases)
    except _UNLIKE as error:
        raise _no_scores(path, error) from error


def read_scores(path: Path, *, system: str) -> dict[str, Cohort]:
    """What ``write_scores`` wrote, by title, under the name of a system. ``UnreadableFile`` if it is something else.

    The cases that the engine refused are notes of their title's cohort.
    """
    try:
        document = json.loads(path.read_text())
        refused = document["about"]["failed"]
        return {
            title: Cohort(
                system,
                tuple((name, _scores(plain)) for name, plain in scored.items()),
                tuple(f"{REFUSED}{line}" for line in refused if f", {title}: " in line),
            )
            for title, scored in document["cases"].items()
        }
    except _UNLIKE as error:
        raise _no_scores(path, error) from error


_UNLIKE = (OSError, ValueError, KeyError, TypeError, AttributeError)


def _no_scores(path: Path, error: Exception) -> UnreadableFile:
    return UnreadableFile(f"{path} holds no scores of `hnseg-train validate` ({error}); make them anew.")


def read_refused(path: Path) -> list[str]:
    """The sentences on cases without scores that ``write_scores`` was given. ``UnreadableFile`` as ``read_scores``."""
    try:
        return [str(sentence) for sentence in json.loads(path.read_text())["about"]["failed"]]
    except _UNLIKE as error:
        raise _no_scores(path, error) from error


def worst_folder(scores: Path) -> Path:
    """Where the pictures of the worst organs lie: beside their scores."""
    return scores.with_name(f"{scores.stem}-worst")


def _scores(plain: Mapping[str, Any]) -> Scores:
    rows = [OrganScores(**{name: _number(value) for name, value in row.items()}) for row in plain["organs"]]
    return Scores(tuple(rows), plain["tolerance_mm"], plain["diagonal_mm"], tuple(plain["warnings"]))


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_number(item) for item in value)
    return NAN if value is None else value


def _finite(value: Any) -> Any:
    """JSON has no nan: null stands for it."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
