"""Outputs that appear together, when all are finished, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from hnseg.errors import OutputError

_MARK = ".hnseg-"


class Staging:
    """Hidden folders beside the outputs, where a job writes until ``commit`` moves all into place."""

    def __init__(self, places: dict[Path, Path]) -> None:
        self._places = places

    def place_for(self, output: str | Path) -> Path:
        """Where to write ``output`` for now; it has the same name and, for a folder, does not exist yet."""
        return self._places[Path(output)]

    def commit(self) -> None:
        """Move what was written into place, replacing older files; an interrupt waits until all are there."""
        with _uninterrupted():
            for output, staged in self._places.items():
                if staged.exists():
                    _move(staged, output)


@contextlib.contextmanager
def staged(
    *files: str | Path, folders: Sequence[str | Path] = (), inputs: Sequence[str | Path] = ()
) -> Iterator[Staging]:
    """Check that files and folders can be written, before the work, and offer hidden places for them.

    Missing parent folders are made. Without ``commit`` nothing of this remains. ``OutputError`` when a place cannot be
    written, or is one of ``inputs``.
    """
    made: list[Path] = []
    hidden: list[Path] = []
    places: dict[Path, Path] = {}
    try:
        _refuse_the_other_kind(files, folders)
        _refuse_inputs((*files, *folders), inputs)
        for output in map(Path, (*files, *folders)):
            made += _make_parents(output)
            hidden.append(_hidden_folder(output))
            places[output] = hidden[-1] / output.name
        yield Staging(places)
    except OutputError as error:  # about a hidden place, which tells the user nothing
        raise OutputError(_in_the_open(str(error), places)) from error
    finally:
        for folder in hidden:
            shutil.rmtree(folder, ignore_errors=True)
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # it holds something by now: then it stays
                folder.rmdir()


def sweep(outputs: Sequence[Path], pid: int) -> None:
    """Remove the hidden folders that a killed process left beside its outputs."""
    for output in outputs:
        for folder in output.parent.glob(f".{output.name}{_MARK}{pid}-*"):
            shutil.rmtree(folder, ignore_errors=True)


def _refuse_the_other_kind(files: Sequence[str | Path], folders: Sequence[str | Path]) -> None:
    for path in map(Path, files):
        if path.is_dir():
            raise OutputError(f"{path} cannot be written: it is a folder; give a file name.")
    for path in map(Path, folders):
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} cannot be written: it is a file, not a folder; give a folder.")


def _refuse_inputs(outputs: Sequence[str | Path], inputs: Sequence[str | Path]) -> None:
    for output in filter(Path.exists, map(Path, outputs)):
        if any(output.samefile(path) for path in filter(Path.exists, map(Path, inputs))):
            raise OutputError(f"{output} is one of the inputs and would be overwritten; give the output another name.")


def _in_the_open(text: str, places: dict[Path, Path]) -> str:
    for output, hidden in places.items():
        text = text.replace(str(hidden), str(output))
    return text


def _make_parents(output: Path) -> list[Path]:
    missing = [folder for folder in output.absolute().parents if not folder.exists()]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(output, error) from error
    return missing[::-1]


def _hidden_folder(output: Path) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=f".{output.name}{_MARK}{os.getpid()}-", dir=output.parent))
    except OSError as error:
        raise _refusal(output, error) from error


def _refusal(output: Path, error: OSError) -> OutputError:
    return OutputError(f"{output} cannot be written ({error.strerror}); choose another place.")


def _move(staged: Path, output: Path) -> None:
    try:
        if not staged.is_dir() or not output.exists():
            staged.replace(output)
            return
        for part in sorted(path for path in staged.rglob("*") if path.is_file()):
            target = output / part.relative_to(staged)
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
    except OSError as error:
        raise _refusal(output, error) from error


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C and termination for the blink of an eye: by then the work is done. Only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in _STOPPERS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


_STOPPERS = (signal.SIGINT, signal.SIGTERM)
