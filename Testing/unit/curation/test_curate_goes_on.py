"""Commands that were killed, repeated, or decided upon: the real `hnseg curate`, on two tiny heads."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from unittest.mock import patch

import pytest
from tiny_cohort import bytes_of, write_two_heads

from hnseg.cli.main import main
from hnseg.curation.record import read_case
from hnseg.curation.settings import CurationSettings
from hnseg.jobs.curate import CurateRequest, run_curate

OPTIONS = ("--registration", "none", "--no-bias-correction")


@pytest.fixture(autouse=True)
def plain_plots(monkeypatch):
    """Nearly all of the time would go into drawing; test_curate.py compares the drawn page's bytes."""
    for plot in ("imbalance_plot", "intensity_plot"):
        monkeypatch.setattr(f"hnseg.reporting.curation_page.{plot}", lambda cohort: b"<svg/>")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two heads; the first has an MR."""
    return write_two_heads(tmp_path_factory.mktemp("goes-on") / "in")


@pytest.fixture(scope="module")
def curate(cohort):
    """The command, in this process, on the cohort."""

    def run(out, *options):
        return main(["curate", str(cohort), str(out), *OPTIONS, *options])

    return run


@pytest.fixture(scope="module")
def undisturbed(curate, tmp_path_factory):
    """Curated in one go, with these options."""
    made = {}

    def run(*options):
        if options not in made:
            made[options] = tmp_path_factory.mktemp("undisturbed") / "out"
            assert curate(made[options], *options) == 0
        return made[options]

    return run


# Killed

KILLED_AT = """
import os, signal, sys
event, ending = sys.argv[1:3]

def look(name, arguments):
    if name == event and any(str(argument).endswith(ending) for argument in arguments):
        os.kill(os.getpid(), signal.SIGKILL)

from hnseg.cli.main import main
sys.addaudithook(look)
sys.exit(main(sys.argv[3:]))
"""
"""The command, unchanged, until it is about to touch a certain file."""


def killed(cohort, out, event, ending, *options):
    command = [sys.executable, "-c", KILLED_AT, event, ending, "curate", str(cohort), str(out), *OPTIONS, *options]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("event", "ending", "left"),
    [
        pytest.param("os.rename", "out/curation.json", ".hnseg-*.partial.json", id="while the folder is claimed"),
        pytest.param("os.rename", ".case_01.partial/labels.nrrd", "cases/.case_01.partial/.hnseg-*", id="in a case"),
        pytest.param("os.mkdir", ".case_02.partial", "cases/case_01/case.json", id="between cases"),
        pytest.param("os.rename", "cases/case_02", "cases/.case_02.partial/case.json", id="as a case appears"),
        pytest.param("os.rename", "dataset.json", ".nnunet.partial/*/.hnseg-*", id="in the nnU-Net export"),
        pytest.param("os.rename", "datalist.json", ".hnseg-*.partial.json", id="in the MONAI export"),
        pytest.param("os.rename", "report.html", ".hnseg-*.partial.html", id="in the report"),
    ],
)
def test_killed_there_the_same_command_ends_with_the_same_bytes(
    cohort, curate, undisturbed, tmp_path, event, ending, left
):
    out = tmp_path / "out"
    killed(cohort, out, event, ending)
    assert list(out.glob(left))
    assert curate(out) == 0
    assert bytes_of(out) == bytes_of(undisturbed())


# A full disk

ON_A_SMALL_DISK = """
import json, os, shutil, subprocess, sys
from pathlib import Path
from hnseg.cli.main import main

command, disk, kept = sys.argv[4:], Path(sys.argv[1]), Path(sys.argv[2])
cases = [Path(sys.argv[3], name) for name in ("case_01", "case_02")]
one, two = (sum(path.stat().st_blocks * 512 for path in case.iterdir()) for case in cases)
for n, size in enumerate((one // 2, one + two // 2, one + two + 24_000, one + two + 120_000)):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "small", disk], check=True)
    first = main([*command, str(disk / "out")])
    left = sorted(path.name for path in (disk / "out" / "cases").glob("*")) if (disk / "out").exists() else []
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
    second = main([*command, str(disk / "out")])
    shutil.copytree(disk / "out", kept / str(n))
    subprocess.run(["umount", disk], check=True)
    print(json.dumps([first, left, second]))
"""
"""The command, unchanged, on disks that fill up in the first case, the second, the exports, the report; and again."""


def test_on_a_disk_that_is_full_it_says_so_keeps_whole_cases_and_goes_on_when_there_is_room(
    cohort, undisturbed, tmp_path
):
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    (tmp_path / "disk").mkdir()
    mounts = [*own, "mount", "-t", "tmpfs", "-o", "size=1m", "small", tmp_path / "disk"]
    if shutil.which("unshare") is None or subprocess.run(mounts, capture_output=True, check=False).returncode:
        pytest.skip("SKIPPED: no small disk can be mounted here without being root")
    places = [str(path) for path in (tmp_path / "disk", tmp_path / "kept", undisturbed() / "cases")]
    command = [*own, sys.executable, "-c", ON_A_SMALL_DISK, *places, "curate", str(cohort), *OPTIONS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert [left for _, left, _ in rows] == [[], ["case_01"], ["case_01", "case_02"], ["case_01", "case_02"]]
    assert len(re.findall("No space left on device|the disk is full", done.stderr)) == len(rows)
    for n, (first, _, second) in enumerate(rows):
        assert (first, second) == (1, 0)
        again = bytes_of(tmp_path / "kept" / str(n))
        assert again == bytes_of(tmp_path / "kept" / "0")
        assert again.keys() == bytes_of(undisturbed()).keys()


@pytest.mark.parametrize("again", [("--reject-mr", "case_01"), ()], ids=["same command", "without the flag"])
def test_killed_while_a_decided_case_gives_way_to_its_new_result_the_decision_and_the_bytes_hold(
    cohort, curate, undisturbed, tmp_path, again
):
    out = shutil.copytree(undisturbed(), tmp_path / "out")
    killed(cohort, out, "os.remove", "mr.nrrd", "--reject-mr", "case_01")
    assert (out / "cases" / "case_01" / "mr.nrrd").exists()
    assert curate(out, *again) == 0
    assert bytes_of(out) == bytes_of(undisturbed("--reject-mr", "case_01"))


def test_a_half_written_case_that_is_no_longer_asked_for_is_swept(cohort, curate, undisturbed, tmp_path):
    out = shutil.copytree(undisturbed(), tmp_path / "out")
    killed(cohort, out, "os.rename", "labels.nrrd", "--reject-mr", "case_01")
    assert curate(out, "--forget-mr", "case_01") == 0
    assert bytes_of(out) == bytes_of(undisturbed())


def test_a_persons_hidden_file_is_no_leftover_of_ours(curate, tmp_path, capsys):
    (tmp_path / ".letter.partial.json").write_text("keep me")
    assert curate(tmp_path) == 1
    assert "other files than a curation's" in capsys.readouterr().err
    assert (tmp_path / ".letter.partial.json").read_text() == "keep me"


# One at a time


def test_a_second_command_is_refused_while_one_is_at_work_and_sweeps_nothing(cohort, curate, tmp_path, capsys):
    out, codes = tmp_path / "out", []
    half = out / ".hnseg-0123456789ab.partial.json"

    def meanwhile(fraction, text):
        if "case_02" in text and not codes:
            half.write_text("half")
            codes.append(curate(out))
            assert half.exists()

    settings = CurationSettings(registration="none", n4=None)
    run_curate(CurateRequest(str(cohort), str(out), settings), meanwhile)
    assert codes == [1]
    assert "Another command is working on" in capsys.readouterr().err
    assert not list(out.glob("*.lock"))


# Decided


def decision(out):
    return read_case(out / "cases" / "case_01").alignment.overruled


def test_a_persons_decision_holds_in_later_runs_which_say_so(curate, undisturbed, tmp_path, capsys):
    out = shutil.copytree(undisturbed(), tmp_path / "out")
    assert curate(out, "--accept-mr", "case_01") == 0
    assert "earlier run" not in capsys.readouterr().err
    accepted = bytes_of(out)
    assert decision(out) == "accepted"
    assert curate(out) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "case_01: a person accepted its MR in an earlier run, and that holds; --forget-mr case_01" in said
    assert bytes_of(out) == accepted == bytes_of(undisturbed("--accept-mr", "case_01"))
    shutil.rmtree(out / "cases" / "case_01")
    assert curate(out) == 0
    assert bytes_of(out) == accepted


def test_a_new_decision_replaces_the_old_one_and_a_forgotten_one_leaves_no_trace(curate, undisturbed, tmp_path):
    out = shutil.copytree(undisturbed("--accept-mr", "case_01"), tmp_path / "out")
    for options in (("--reject-mr", "case_01"), ()):
        assert curate(out, *options) == 0
        assert bytes_of(out) == bytes_of(undisturbed("--reject-mr", "case_01"))
    for options in (("--forget-mr", "case_01"), ("--forget-mr", "case_01"), ()):
        assert curate(out, *options) == 0
        assert bytes_of(out) == bytes_of(undisturbed())


def test_decisions_of_a_folder_from_before_they_were_kept_are_taken_from_its_cases(curate, undisturbed, tmp_path):
    expected = undisturbed("--accept-mr", "case_01")
    out = shutil.copytree(expected, tmp_path / "out")
    claim = json.loads((out / "curation.json").read_text())
    assert claim.pop("mr_decisions") == {"case_01": "accepted"}
    (out / "curation.json").write_text(json.dumps(claim))
    assert curate(out) == 0
    assert bytes_of(out) == bytes_of(expected)


def test_contradicting_and_unreadable_decisions_are_refused(curate, undisturbed, tmp_path, capsys):
    assert curate(tmp_path / "new", "--accept-mr", "case_01", "--forget-mr", "case_01") == 1
    assert "case_01, choose one" in capsys.readouterr().err
    out = shutil.copytree(undisturbed(), tmp_path / "out")
    claim = json.loads((out / "curation.json").read_text())
    (out / "curation.json").write_text(json.dumps({**claim, "mr_decisions": {"case_01": "perhaps"}}))
    assert curate(out) == 1
    assert "must be accepted or rejected" in capsys.readouterr().err


# On a cluster


def test_workers_of_a_dask_scheduler_elsewhere_give_the_same_bytes(curate, undisturbed, tmp_path):
    from distributed import LocalCluster

    # Dask changes this process's environment to start its workers.
    with (
        patch.dict(os.environ),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            memory_limit=None,
            local_directory=str(tmp_path / "dask"),
            silence_logs=50,
        ) as cluster,
    ):
        assert curate(tmp_path / "out", "--scheduler", cluster.scheduler_address) == 0
    assert bytes_of(tmp_path / "out") == bytes_of(undisturbed())
