"""The same work for many items: here, in worker processes of this machine, or on a Dask cluster."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import spawn
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hnseg.errors import ConfigError, HNSegError, WorkerError

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")
OnProgress = Callable[[float, str], None]
Task = Callable[[OnProgress], T]
"""Can be pickled, and pickles its result; told how to report its own progress."""

_TOPIC = "hnseg-progress"
_CONNECT_WITHIN_S = 10
_LOOK_EVERY_S = 0.2
_KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}
"""For glibc. A Dask worker computes in a thread, whose large arrays would go back to the system as soon as they are
freed: half of two workers' time then goes into the kernel's clearing of fresh pages.
"""


@dataclass(frozen=True, slots=True)
class FanOut:
    """``scheduler``: a Dask scheduler's address; otherwise ``workers`` processes here, or this one if it is one.

    Raises ``ConfigError`` for fewer workers than one.
    """

    workers: int = 1
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"There must be at least one worker, got {self.workers}; give a number from 1.")

    def run(self, tasks: Mapping[str, Task[T]], on_progress: OnProgress) -> Iterator[tuple[str, T | HNSegError]]:
        """Each task's name with its result, as they end. A task whose process dies again and again gives the error.

        What a task raises, and what ``on_progress`` raises, ends everything that still runs here.
        """
        if self.scheduler is None and self.workers == 1:
            yield from _here(tasks, on_progress)
        elif tasks:
            with _client(self) as client:
                yield from _Spread(client, tasks, on_progress).results()


def _here(tasks: Mapping[str, Task[T]], on_progress: OnProgress) -> Iterator[tuple[str, T]]:
    for n, (name, task) in enumerate(tasks.items()):

        def tell(fraction: float, text: str, n: int = n, name: str = name) -> None:
            on_progress((n + fraction) / len(tasks), f"{name} ({n + 1} of {len(tasks)}): {text}")

        yield name, task(tell)


class _Spread(Generic[T]):
    """Tasks on a cluster; their progress comes back as events."""

    def __init__(self, client: Client, tasks: Mapping[str, Task[T]], on_progress: OnProgress) -> None:
        self._client, self._tasks, self._on_progress = client, tasks, on_progress
        self._done: dict[str, float] = dict.fromkeys(tasks, 0.0)
        self._said = "Waiting for workers"

    def results(self) -> Iterator[tuple[str, T | HNSegError]]:
        """As they end."""
        from distributed import wait

        self._client.subscribe_topic(_TOPIC, self._hear)
        running = {self._client.submit(_run, name, task, pure=False): name for name, task in self._tasks.items()}
        try:
            while running:
                with contextlib.suppress(TimeoutError):
                    wait(list(running), timeout=_LOOK_EVERY_S, return_when="FIRST_COMPLETED")
                for future in [future for future in running if future.done()]:
                    name = running.pop(future)
                    self._done[name] = 1.0
                    yield name, _result(future)
                self._tell()
        finally:
            self._client.cancel(list(running), force=True)

    def _hear(self, event: tuple[Any, tuple[str, float, str]]) -> None:
        name, fraction, text = event[1]
        if self._done.get(name, 1.0) < 1.0:
            self._done[name], self._said = min(fraction, 0.999), f"{name}: {text}"

    def _tell(self) -> None:
        ended = sum(fraction == 1.0 for fraction in self._done.values())
        share = sum(self._done.values()) / len(self._done)
        self._on_progress(share, f"{ended} of {len(self._done)} done; {self._said}")


def _run(name: str, task: Task[T]) -> T:
    """In the worker process."""
    from distributed import get_worker

    worker = get_worker()
    return task(lambda fraction, text: worker.log_event(_TOPIC, (name, fraction, text)))


def _result(future: Any) -> Any:
    from distributed.scheduler import KilledWorker

    try:
        return future.result()
    except KilledWorker:
        return WorkerError(
            "The worker process died each time that it tried, out of memory perhaps; use fewer workers or more memory."
        )


@contextlib.contextmanager
def _client(fan_out: FanOut) -> Iterator[Client]:
    """A client of the given scheduler, or of a cluster of this machine's own that ends with the block."""
    import dask
    from distributed import Client, LocalCluster

    if fan_out.scheduler is not None:
        with _connected(fan_out.scheduler) as client:
            yield client
        return
    threads = max(1, (os.cpu_count() or 1) // fan_out.workers)
    with (
        _environment_kept(),
        _started_by_python_itself(),
        tempfile.TemporaryDirectory(prefix="hnseg-dask-") as folder,
        dask.config.set({f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in _KEEP_MEMORY.items()}),
        LocalCluster(
            n_workers=fan_out.workers,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            memory_limit=None,
            local_directory=folder,
            silence_logs=50,
            env={"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads)},
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """Dask starts its workers by changing this process's own environment, which later processes would inherit."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def _started_by_python_itself() -> Iterator[None]:
    """Within Slicer ``sys.executable`` is PythonSlicer, a launcher: it does not hand on the pipe by which a process of
    ``multiprocessing`` gets its work, and starting one never ends. Python itself, python-real, lies beside it.
    """
    before = spawn.get_executable()
    python = Path(os.fsdecode(before))
    real = python.with_name(f"python-real{python.suffix}")
    if python.stem == "PythonSlicer" and real.exists():
        spawn.set_executable(str(real))
    try:
        yield
    finally:
        spawn.set_executable(before)


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(address, timeout=_CONNECT_WITHIN_S)
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"No Dask scheduler answers at {address} ({error}); start one or check the address."
        ) from None
    with client:
        yield client
