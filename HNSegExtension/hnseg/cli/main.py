"""`hnseg …`: finds the subcommand, runs it, and turns what it raises into one sentence and an exit code.

Exit codes: 0 done, 1 a failure with one sentence on standard error, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.util
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

from hnseg.cli.console import say_error, set_verbosity
from hnseg.errors import Cancelled, HNSegError
from hnseg.version import RESEARCH_USE, __version__

COMMANDS = ("segment", "register", "curate", "evaluate", "phantom", "rtstruct", "seg", "dvh", "models", "demo")
"""Each is a module of ``hnseg.cli`` with ``add_parser(subparsers)`` and ``run(args) -> int``; both import lazily."""

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

_DESCRIPTION = "Segments the 30 organs at risk of the head and neck from a planning CT and an optional T1 MR."
_EPILOG = f"""\
examples:
  hnseg demo out/                                         a phantom patient, segmented and reported
  hnseg segment --ct ct.nrrd -o organs.seg.nrrd           CT alone
  hnseg segment --ct dicom_ct/ --mr dicom_mr/ -o organs.seg.nrrd --report report/
  hnseg evaluate organs.seg.nrrd truth.seg.nrrd           DSC and distances per organ

exit codes: 0 done, 1 failed (one sentence says why), 2 wrong usage, 130 interrupted

{RESEARCH_USE}
"""


class Parser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviations and names the nearest option or command it knows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", _Formatter)
        super().__init__(*args, **kwargs)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, but an unknown option is an error here, where the known ones are at hand."""
        words = list(sys.argv[1:] if args is None else args)
        self._refuse_unknown(words)
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """One sentence and where to read on; exit code 2."""
        self.exit(WRONG_USAGE, f"{self.prog}: {_with_nearest_choice(message)}\nSee `{self.prog} --help`.\n")

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        known = self._option_string_actions
        if "" in words:
            self.error("an argument is empty, as of a variable that was not set; give a value.")
        for word in words:
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                return
            option = word.split("=")[0] if word.startswith("--") else word[:2]
            if re.match(r"--?[A-Za-z]", word) and option not in known:
                self.error(f"there is no option {word.split('=')[0]}; {_nearest_option(option, known)}")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(110, _terminal_width()))


def _terminal_width() -> int:
    try:
        return os.get_terminal_size().columns - 2
    except OSError:
        return 110


def _nearest_option(option: str, known: Any) -> str:
    near = difflib.get_close_matches(option, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}."


def _with_nearest_choice(message: str) -> str:
    """Argparse's "invalid choice" in our words; other messages as they are."""
    match = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
    if match is None:
        return message
    choices = [choice.strip(" '") for choice in match[2].split(",")]
    near = difflib.get_close_matches(match[1], choices, n=1, cutoff=0.5)
    return f"{match[1]!r} is not known; " + (f"did you mean {near[0]}?" if near else f"use {', '.join(choices)}.")


def build_parser() -> Parser:
    """The whole command line; imports every subcommand's module, none of the engine."""
    parser = Parser(prog="hnseg", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"hnseg {__version__}. {RESEARCH_USE}")
    parser.add_argument("--verbose", action="store_true", help="say more on standard error")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for name in COMMANDS:
        if importlib.util.find_spec(f"hnseg.cli.{name}"):
            _module(name).add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = build_parser().parse_args(words)
    except SystemExit as leave:
        return int(leave.code or DONE)
    set_verbosity(verbose=args.verbose)
    previous = _interrupt_on_termination()
    try:
        return int(_module(args.command).run(args))
    except (KeyboardInterrupt, Cancelled):
        say_error("Interrupted; nothing was written.")
        return INTERRUPTED
    except HNSegError as error:
        say_error(str(error))
    except MemoryError:
        say_error("The machine ran out of memory; close other programs, crop the images or use a larger machine.")
    except Exception as error:  # noqa: BLE001  the one place that may: a user never sees a traceback
        say_error(_report_defect(error, words))
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
    return FAILED


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"hnseg.cli.{command}")


def _interrupt_on_termination() -> Any:
    """A polite kill cleans up as Ctrl-C does. Signals can be set in the main thread only; elsewhere nothing is done."""

    def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    try:
        return signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        return None


def _report_defect(error: Exception, words: Sequence[str]) -> str:
    """Write the traceback to a log, without the user's paths as they may name a patient; returns what to say."""
    text = "".join(traceback.format_exception(error))
    handle, name = tempfile.mkstemp(prefix="hnseg-defect-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as log:
        log.write(f"hnseg {__version__}, Python {sys.version}\n\n{_without_arguments(text, words)}")
    kind = type(error).__name__
    return f"A defect of HNSeg stopped the command ({kind}); please report it with the log {name}."


def _without_arguments(text: str, words: Sequence[str]) -> str:
    paths = {form for word in words for form in (word, str(Path(word).absolute()), Path(word).name) if len(form) > 3}
    options = {word for word in words if word.startswith("-")} | set(COMMANDS)
    for form in sorted(paths - options, key=len, reverse=True):
        text = text.replace(form, "<argument>")
    return text


if __name__ == "__main__":
    sys.exit(main())
