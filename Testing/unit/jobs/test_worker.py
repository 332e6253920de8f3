"""The warm worker, with jobs of the test's own: a script serves them, as `hnseg.jobs.worker` serves the real ones."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from hnseg.errors import Cancelled, UnknownOrgan, WorkerError
from hnseg.jobs.client import Worker
from hnseg.jobs.events import Done, Failed, Progress, Stopped
from hnseg.jobs.protocol import PROTOCOL

SERVER = """
import os, subprocess, sys, time
from hnseg.errors import UnknownOrgan
from hnseg.jobs.worker import serve

calls = []

def count(request, on_progress):
    calls.append(request)
    for n in range(request["steps"]):
        on_progress(n / request["steps"], f"Step {n}")
        time.sleep(request.get("pause_s", 0))
    return {"calls": len(calls), "pid": os.getpid()}

def chatter(request, on_progress):
    print("a library prints to standard output")
    os.write(1, b"and C code writes to its descriptor\\n")
    subprocess.run([sys.executable, "-c", "print('so does a child')"], check=True)
    return sys.stdin.read()

def deaf(request, on_progress):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    on_progress(0.5, str(child.pid))
    time.sleep(600)

def refuse(request, on_progress):
    raise UnknownOrgan("No organ is called 'Brian'; did you mean Brainstem?")

def defect(request, on_progress):
    return 1 / 0

def vanish(request, on_progress):
    os._exit(7)

serve({"count": count, "chatter": chatter, "deaf": deaf, "refuse": refuse, "defect": defect, "vanish": vanish})
"""


@dataclass(frozen=True)
class Ask:
    job: str
    request: dict[str, Any]
    outputs: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return self.request

    def outcome_from_json(self, data: Any) -> Any:
        return data


def count(steps: int = 2, pause_s: float = 0.0) -> Ask:
    return Ask("count", {"steps": steps, "pause_s": pause_s})


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    return [sys.executable, str(script)]


@pytest.fixture
def worker(command: list[str]) -> Iterator[Worker]:
    with Worker(command=command) as worker:
        yield worker


def until(worker: Worker, kinds: tuple[type, ...], seconds: float = 20.0) -> list[Any]:
    """Every event until there is one of the kinds."""
    seen: list[Any] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen += worker.wait()
        if any(isinstance(event, kinds) for event in seen):
            return seen
    raise AssertionError(f"only {seen}; log: {worker.log.read_text()}")


def child_of_deaf(worker: Worker) -> int:
    """The process that the deaf job started, once it says so."""
    while True:
        for event in until(worker, (Progress,)):
            if isinstance(event, Progress) and event.fraction == 0.5:
                return int(event.text)


def gone(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_a_job_reports_its_steps_in_order_and_then_its_result(worker: Worker) -> None:
    seen: list[tuple[float, str]] = []
    outcome = worker.run(count(4), lambda fraction, text: seen.append((fraction, text)))
    assert outcome["calls"] == 1
    assert seen == [(0.0, "Starting"), (0.0, "Step 0"), (0.25, "Step 1"), (0.5, "Step 2"), (0.75, "Step 3")]


def test_the_process_stays_warm_between_jobs(worker: Worker) -> None:
    first, second = worker.run(count()), worker.run(count())
    assert (first["pid"], second["pid"]) == (worker.pid, worker.pid)
    assert (first["calls"], second["calls"]) == (1, 2)


def test_what_libraries_print_does_not_reach_the_protocol_and_what_they_read_is_empty(worker: Worker) -> None:
    assert worker.run(Ask("chatter", {})) == ""
    log = worker.log.read_text()
    assert "a library prints" in log
    assert "C code writes" in log
    assert "so does a child" in log


def test_requests_queue_and_run_in_the_order_of_submission(worker: Worker) -> None:
    jobs = [worker.submit(count(2)) for _ in range(3)]
    assert worker.busy
    done: list[Done] = []
    while len(done) < 3:
        done += [event for event in until(worker, (Done,)) if isinstance(event, Done)]
    assert [event.job for event in done] == jobs
    assert [event.outcome["calls"] for event in done] == [1, 2, 3]
    assert not worker.busy


def test_an_error_keeps_its_kind_and_sentence_and_the_worker_lives_on(worker: Worker) -> None:
    with pytest.raises(UnknownOrgan, match=r"No organ is called 'Brian'; did you mean Brainstem\?"):
        worker.run(Ask("refuse", {}))
    pid = worker.pid
    assert worker.run(count())["pid"] == pid


def test_a_defect_becomes_one_sentence_and_its_traceback_goes_to_the_log(worker: Worker) -> None:
    with pytest.raises(WorkerError, match=r"A defect of HNSeg stopped the job \(ZeroDivisionError\)") as caught:
        worker.run(Ask("defect", {}))
    assert "\n" not in str(caught.value)
    assert "Traceback" in worker.log.read_text()


def test_a_job_that_nobody_offers_is_refused_by_name(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="knows no job 'paint'; it does chatter, count"):
        worker.run(Ask("paint", {}))


def test_a_job_that_listens_is_cancelled_without_losing_the_worker(worker: Worker) -> None:
    job = worker.submit(count(1000, 0.02))
    until(worker, (Progress,))
    pid = worker.pid
    worker.cancel(job)
    assert [event for event in worker.poll() if not isinstance(event, Progress)] == [Stopped(job)]
    assert worker.run(count())["pid"] == pid


def test_a_job_that_does_not_listen_is_killed_with_its_children_and_the_next_one_gets_a_new_worker(
    worker: Worker,
) -> None:
    job = worker.submit(Ask("deaf", {}))
    child = child_of_deaf(worker)
    pid = worker.pid
    assert pid is not None
    worker.cancel(job)
    assert worker.poll() == [Stopped(job)]
    assert gone(pid)
    assert gone(child)
    assert worker.run(count())["pid"] not in (pid, None)


def test_a_waiting_job_is_cancelled_without_disturbing_the_running_one(worker: Worker) -> None:
    first, second = worker.submit(count(20, 0.01)), worker.submit(count())
    worker.cancel(second)
    events = until(worker, (Done,))
    assert Stopped(second) in events
    assert events[-1].job == first
    assert events[-1].outcome["calls"] == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_worker_is_noticed_named_and_replaced_and_the_queue_goes_on(worker: Worker) -> None:
    lost, next_job = worker.submit(count(1000, 0.02)), worker.submit(count())
    until(worker, (Progress,))
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    events = until(worker, (Done,))
    failed = next(event for event in events if isinstance(event, Failed))
    assert failed.job == lost
    assert isinstance(failed.error, WorkerError)
    assert "was killed by SIGKILL (9)" in str(failed.error)
    assert events[-1].job == next_job
    assert events[-1].outcome["pid"] != pid


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_the_children_of_a_killed_worker_are_killed_too(worker: Worker) -> None:
    worker.submit(Ask("deaf", {}))
    child, pid = child_of_deaf(worker), worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(worker, (Failed,))
    assert gone(child)


def test_a_worker_that_ends_by_itself_is_named_by_its_exit_code(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="ended with exit code 7 and its job is lost"):
        worker.run(Ask("vanish", {}))


def test_cancelled_raised_in_the_callers_callback_cancels_the_job(worker: Worker) -> None:
    def stop(fraction: float, text: str) -> None:
        if fraction > 0:
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        worker.run(count(1000, 0.01), stop)
    assert not worker.busy
    assert worker.poll() == []


def test_closing_ends_the_process_and_removes_the_private_folder(command: list[str]) -> None:
    worker = Worker(command=command)
    worker.submit(Ask("deaf", {}))
    child = child_of_deaf(worker)
    pid, folder = worker.pid, worker.folder
    assert pid is not None
    assert folder.exists()
    worker.close()
    assert gone(pid)
    assert gone(child)
    assert not folder.exists()
    with pytest.raises(WorkerError, match="closed"):
        worker.submit(count())


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_parent_that_is_killed_leaves_no_orphans(command: list[str], tmp_path: Path) -> None:
    parent_script = tmp_path / "parent.py"
    parent_script.write_text(f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from dataclasses import dataclass
from hnseg.jobs.client import Worker
from hnseg.jobs.events import Progress

class Ask:
    job, outputs = "deaf", ()
    def to_json(self): return {{}}
    def outcome_from_json(self, data): return data

worker = Worker(command={command!r})
worker.submit(Ask())
while True:
    for event in worker.wait():
        if isinstance(event, Progress) and event.fraction:
            print(worker.pid, event.text, flush=True)
""")
    parent = subprocess.Popen([sys.executable, str(parent_script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as stream:
        worker_pid, child = map(int, stream.readline().split())
        parent.kill()
        parent.wait()
    assert gone(worker_pid)
    assert gone(child)


def test_a_python_that_does_not_exist_is_one_sentence(tmp_path: Path) -> None:
    with (
        Worker(python_executable=tmp_path / "PythonSlicer") as worker,
        pytest.raises(WorkerError, match=r"cannot be started with .*PythonSlicer"),
    ):
        worker.run(count())


def test_a_program_that_speaks_another_language_is_one_sentence() -> None:
    with Worker(command=[sys.executable, "-c", "print('hello'); import time; time.sleep(60)"]) as worker:
        with pytest.raises(WorkerError, match="A protocol line must be a JSON object with a type, got 'hello'"):
            worker.run(count())
        assert worker.pid is None


def speak(command: list[str], lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Send lines, end the input, return the answers."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    spoken = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=True)
    return [json.loads(line) for line in spoken.stdout.splitlines()]


def test_the_worker_greets_with_its_protocol_and_version(command: list[str]) -> None:
    ready, pong = speak(command, [{"type": "hello", "protocol": PROTOCOL}, {"type": "ping"}])
    assert (ready["type"], ready["protocol"], pong["type"]) == ("ready", PROTOCOL, "pong")
    assert "count" in ready["jobs"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"type": "hello", "protocol": 99}, f"The worker speaks protocol {PROTOCOL}, got 99"),
        ({"type": "sing"}, "does not know the message type 'sing'"),
        ({"kind": "hello"}, "must be a JSON object with a type"),
    ],
)
def test_what_the_worker_does_not_understand_is_answered_in_one_sentence(
    command: list[str], line: dict[str, Any], message: str
) -> None:
    (answer,) = speak(command, [line])
    assert answer["type"] == "error"
    assert answer["kind"] == "WorkerError"
    assert message in answer["message"]


def test_a_worker_whose_input_ends_stops_its_job_and_leaves(command: list[str]) -> None:
    endless = {"steps": 10_000, "pause_s": 0.01}
    answers = speak(command, [{"type": "submit", "id": "a", "job": "count", "request": endless}])
    assert answers[-1] == {"type": "cancelled", "id": "a"}
