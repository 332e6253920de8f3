"""What the commands show. Standard error is for what is wrong, standard output for the rest; a terminal gets a bar."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

OnProgress = Callable[[float, str], None]
"""Takes a fraction in 0…1 and a short sentence."""


def say(text: str) -> None:
    """A line of the command's result, on standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def say_error(text: str) -> None:
    """A sentence about what went wrong, on standard error, in one line."""
    sys.stderr.write(f"{' '.join(text.split())}\n")
    sys.stderr.flush()


def say_warnings(warnings: Iterable[str]) -> None:
    """Each warning on a line of its own, on standard error."""
    for warning in warnings:
        say_error(f"Warning: {warning}")


def set_verbosity(*, verbose: bool) -> None:
    """Send the engine's log to standard error: everything if verbose, else warnings.

    Not pydicom's below errors: its warnings about odd values quote them, and a value may be the patient's name.
    """
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("pydicom").addFilter(lambda record: record.levelno >= logging.ERROR)  # its import resets levels
    logging.getLogger("hnseg").setLevel(logging.DEBUG if verbose else logging.WARNING)


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A plain-text table: first column left, the others right."""
    lines = [list(heading), *(list(row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(heading))]
    lines.insert(1, ["─" * width for width in widths])
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join((first.strip().ljust(widths[0]), *others)).rstrip()


@contextmanager
def progress() -> Iterator[OnProgress]:
    """A progress callback for a long step: a bar on a terminal, else a line for each new phase and each tenth.

    The bar is drawn on standard error, so that results can be piped on; the lines go to standard output, so that
    standard error holds nothing but warnings and the one sentence of a failure.
    """
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _Lines()


class _Lines:
    """Plain lines for logs: said again only when the words (numbers aside) or the tenth change."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None

    def __call__(self, fraction: float, text: str) -> None:
        state = (re.sub(r"\d+", "", text), int(10 * fraction))
        if state != self._last:
            self._last = state
            say(f"{min(max(fraction, 0.0), 1.0):4.0%} {text}")


@contextmanager
def _bar() -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    words = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(bar_width=30), TaskProgressColumn(), TimeElapsedColumn(), words)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=1.0)
        yield lambda fraction, text: bars.update(task, completed=fraction, description=text)


def readable(path: str | Path) -> str:
    """A path as the user would type it from here."""
    path = Path(path)
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
