"""Runs every bench_*.py of this folder and puts their figures into one Markdown page.

A benchmark takes ``--out FILE`` and writes a JSON object there; its docstring's first sentence is its title. Lists of
objects become tables (long ones only if there is no ``summary``), the rest becomes a list of figures.

    python Testing/benchmarks/run_all.py --out build/bench --table docs/benchmarks.md [--only inference registration]
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MOST_ROWS = 24


def main(argv: Sequence[str] | None = None) -> int:
    """Run them; returns 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for the JSON files")
    parser.add_argument("--table", type=Path, default=Path("docs/benchmarks.md"), help="the page that is written")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these alone, as in bench_NAME.py")
    parser.add_argument("--no-run", action="store_true", help="make the page from the JSON files that are there")
    args = parser.parse_args(argv)
    names = [path.stem.removeprefix("bench_") for path in sorted(HERE.glob("bench_*.py"))]
    chosen = [name for name in names if not args.only or name in args.only]
    failed = [] if args.no_run else [name for name in chosen if not _run(name, args.out)]
    args.table.write_text("\n".join(page(names, args.out)) + "\n", encoding="utf-8")
    print(f"Figures: {args.table}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _run(name: str, folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.json"
    print(f"bench_{name} → {target}", flush=True)
    command = [sys.executable, str(HERE / f"bench_{name}.py"), "--out", str(target)]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


def page(names: Sequence[str], folder: Path) -> Iterator[str]:
    """The lines of the page; a benchmark without figures says so."""
    yield "# Benchmarks"
    yield ""
    machine = f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    yield f"Made by `make bench` on {machine}, {datetime.now(UTC):%Y-%m-%d}."
    yield "What each compares, and under which conditions, stands at the head of its file in `Testing/benchmarks`."
    for name in names:
        yield from ("", f"## {title(HERE / f'bench_{name}.py')}", "", f"`Testing/benchmarks/bench_{name}.py`", "")
        path = folder / f"{name}.json"
        yield from section(json.loads(path.read_text())) if path.is_file() else ["No figures yet."]


def title(path: Path) -> str:
    """The first sentence of a file's docstring."""
    words = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or path.stem).split())
    return words.split(". ")[0].rstrip(".")


def processor() -> str:
    """The processor's model, where Linux tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def section(data: dict[str, Any]) -> Iterator[str]:
    """Figures first, then tables."""
    tables = {key: rows for key, rows in data.items() if _is_table(rows)}
    figures = flat({key: value for key, value in data.items() if key not in tables})
    yield from (f"- {key}: {shown(value)}" for key, value in figures.items())
    for key, rows in tables.items():
        if len(rows) <= MOST_ROWS or "summary" not in data:
            yield from ("", f"**{key}**", "", *markdown([flat(row) for row in rows[:MOST_ROWS]]))


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def flat(data: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested objects as "outer inner" keys; lists of objects as numbered ones."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{before} {key}".strip()
        if _is_table(value):
            value = {str(n): row for n, row in enumerate(value, 1)}
        found |= flat(value, name) if isinstance(value, dict) else {name: value}
    return found


def markdown(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A table with every key that any row has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(shown(row.get(key, "")) for key in columns) + " |"


def shown(value: Any) -> str:
    """Four digits are enough."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(shown, value)) if isinstance(value, list) else str(value).replace("|", "/")


if __name__ == "__main__":
    sys.exit(main())
