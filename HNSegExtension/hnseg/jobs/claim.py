"""The folder of one curation: whose it is, one command at a time, and a person's decisions, which outlive a run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, get_args

from hnseg.curation.alignment import Overruled
from hnseg.curation.record import CASES, finished_cases, read_case, write_json
from hnseg.errors import OutputError
from hnseg.image.files import PARTIAL_MARK, is_partial
from hnseg.plain import to_plain

CLAIM = "curation.json"
_LOCK = f"{PARTIAL_MARK}curate.lock"
_DECISIONS, _EXPORTS = "mr_decisions", "exports"

Decisions = Mapping[str, Overruled]
"""Case → a person's word on its MR."""


@contextlib.contextmanager
def claimed(
    out: Path, identity: dict[str, Any], decide: Callable[[Decisions], Decisions], *, exports: dict[str, Any]
) -> Iterator[Decisions]:
    """Make the folder, or find in it the beginning of the same curation; nobody else may until the block ends.

    ``identity`` must be the earlier one's; ``exports`` may change from run to run. ``decide`` makes the decisions that
    now hold of the earlier ones; they are written down before the block begins. What a killed command left half-written
    is swept. Raises ``OutputError``.
    """
    try:
        (out / CASES).mkdir(parents=True, exist_ok=True)
        lock = (out / _LOCK).open("ab")
    except OSError as error:
        raise _unusable(out, error) from None
    with _alone(lock, out):
        decisions = _claim(out, to_plain(identity), decide, exports)
        _sweep(out)
        yield decisions


def _claim(
    out: Path, ours: dict[str, Any], decide: Callable[[Decisions], Decisions], exports: dict[str, Any]
) -> Decisions:
    try:
        theirs = json.loads((out / CLAIM).read_text(encoding="utf-8")) if (out / CLAIM).exists() else None
        is_empty = not any((out / CASES).iterdir()) and all(
            path.name == CASES or path.name.startswith(PARTIAL_MARK) for path in out.iterdir()
        )
    except (OSError, ValueError) as error:
        raise _unusable(out, error) from None
    ours, exports = json.loads(json.dumps([ours, exports]))
    if theirs is None and is_empty:
        earlier: Decisions = {}
    elif isinstance(theirs, dict) and all(theirs.get(key) == value for key, value in ours.items()):
        earlier = _earlier(theirs, out)
    else:
        raise OutputError(f"{out} holds {_difference(theirs, ours)}; give a new or empty folder, or the same settings.")
    decisions = dict(sorted(decide(earlier).items()))
    claim = {**ours, _EXPORTS: exports, _DECISIONS: decisions}
    if theirs != claim:
        write_json(claim, out / CLAIM)
    return decisions


def _earlier(claim: dict[str, Any], out: Path) -> Decisions:
    """As the claim has them; one from before they were kept there leaves them to the cases' records."""
    if _DECISIONS in claim:
        return _decisions(claim[_DECISIONS], out / CLAIM)
    records = map(read_case, finished_cases(out))
    return {r.name: r.alignment.overruled for r in records if r.alignment and r.alignment.overruled}


def _decisions(kept: Any, path: Path) -> Decisions:
    if not isinstance(kept, dict) or not all(word in get_args(Overruled) for word in kept.values()):
        raise OutputError(
            f"{path} has {kept!r} for {_DECISIONS!r}; each case there must be {' or '.join(get_args(Overruled))}."
        )
    return kept


def _difference(theirs: Any, ours: dict[str, Any]) -> str:
    if not isinstance(theirs, dict):
        return "other files than a curation's"
    earlier, now = (_by_setting(claim) for claim in (theirs, ours))
    told = [
        f"{key} {json.dumps(earlier.get(key), ensure_ascii=False)} (now {json.dumps(value, ensure_ascii=False)})"
        for key, value in now.items()
        if earlier.get(key) != value
    ]
    return f"a curation with {', '.join(told)}"


def _by_setting(claim: dict[str, Any]) -> dict[str, Any]:
    settings = claim.get("settings")
    return {**claim, **(settings if isinstance(settings, dict) else {}), "settings": None}


def _sweep(out: Path) -> None:
    """Remove half-written files, and half-written cases, which may not be asked for again."""
    for path in filter(is_partial, list(out.iterdir())):
        path.unlink(missing_ok=True)
    for folder in list((out / CASES).glob(".*.partial")):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _alone(lock: IO[bytes], out: Path) -> Iterator[None]:
    """A lock of the operating system's, which ends with the process however that ends; its file goes with the block."""
    with lock:
        if not _is_ours(lock, out / _LOCK):
            raise OutputError(f"Another command is working on {out}; wait until it has ended.")
        try:
            yield
        finally:
            if sys.platform != "win32":  # while it is held, lest it be the next command's
                (out / _LOCK).unlink(missing_ok=True)
    if sys.platform == "win32":  # which removes no open file, and so not the next command's
        with contextlib.suppress(OSError):
            (out / _LOCK).unlink(missing_ok=True)


def _is_ours(lock: IO[bytes], path: Path) -> bool:
    try:
        _lock(lock)
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())  # else the last command has just removed it
    except (BlockingIOError, PermissionError, FileNotFoundError):
        return False
    except OSError:  # a file system without locks
        return True


if sys.platform == "win32":
    import msvcrt

    def _lock(lock: IO[bytes]) -> None:
        msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(lock: IO[bytes]) -> None:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unusable(out: Path, error: Exception) -> OutputError:
    return OutputError(f"Cannot use {out} ({error}); give a new or empty folder.")
