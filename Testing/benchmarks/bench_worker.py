"""Worker: how soon the second request starts, a cancel works and a killed process is noticed, and what is left of it.

The real worker process with the model that ships, on 300 mm of a cylinder of water in air. A request has started when
it says that it reads its images; it is cancelled or killed while the network runs. ``left`` counts processes.

    python Testing/benchmarks/bench_worker.py --out build/bench/worker.json
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from hnseg.image.files import write_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.jobs.client import Worker
from hnseg.jobs.events import Done, Event, Failed, Progress, Stopped
from hnseg.jobs.request import SegmentRequest

GRID = Grid((120, 120, 80), (2.5, 2.5, 3.75), (-150.0, -150.0, -150.0))


def water(path: Path) -> Path:
    """A cylinder of noisy water, as a CT."""
    k, j, i = np.indices(GRID.shape_kji)
    x, y, _ = np.moveaxis(GRID.to_lps(np.stack([i, j, k], axis=-1)), -1, 0)
    hu = np.where((x / 90) ** 2 + (y / 110) ** 2 < 1, 20.0, -1000.0) + np.random.default_rng(0).normal(0, 8, x.shape)
    write_volume(Volume(hu.astype(np.int16), GRID), path)
    return path


def until(worker: Worker, wanted: Callable[[Event], bool]) -> tuple[float, list[Event]]:
    """Seconds until an event of that kind, and all up to it."""
    begun, seen = time.perf_counter(), []
    while not any(map(wanted, seen)):
        seen += worker.wait()
    return round(time.perf_counter() - begun, 3), seen


def says(text: str) -> Callable[[Event], bool]:
    """Whether an event is progress with that text."""
    return lambda event: isinstance(event, Progress) and text in event.text


def is_over(event: Event) -> bool:
    """Whether an event ends its job."""
    return isinstance(event, (Done, Failed, Stopped))


def measure(folder: Path) -> dict[str, Any]:
    """First and second request, cancel, kill, close."""
    request = SegmentRequest(str(water(folder / "ct.nrrd")), str(folder / "o.nrrd"))
    found: dict[str, Any] = {}
    with Worker() as worker:
        worker.submit(request)
        found["first_request_starts_s"], _ = until(worker, says("Reading"))
        found["first_request_s"], events = until(worker, is_over)
        assert any(isinstance(event, Done) for event in events), events
        job = worker.submit(request)
        found["second_request_starts_s"], _ = until(worker, says("Reading"))
        found["second_request_to_first_window_s"], _ = until(worker, says("Window"))
        pid, begun = worker.pid, time.perf_counter()
        worker.cancel(job)
        found["cancel_s"] = round(time.perf_counter() - begun, 3)
        found["stays_warm_after_cancel"] = worker.pid == pid
        worker.submit(request)
        until(worker, says("Window"))
        os.kill(worker.pid or 0, signal.SIGKILL)
        found["kill_noticed_s"], events = until(worker, is_over)
        found["kill_named"] = str(next(event.error for event in events if isinstance(event, Failed)))
        worker.submit(request)
        found["replaced_and_reading_s"], _ = until(worker, says("Reading"))
        begun = time.perf_counter()
    found["close_s"] = round(time.perf_counter() - begun, 3)
    found["left"] = len(psutil.Process().children(recursive=True))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/bench/worker.json"))
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(Path(scratch))
    found["machine"] = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
