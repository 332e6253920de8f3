"""The notebook and the script: other doors to the same curation."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from tiny_cohort import bytes_of, write_two_heads

from hnseg.cli.main import main
from hnseg.curation.settings import CurationSettings
from hnseg.jobs.curate import CurateRequest, run_curate

REPOSITORY = Path(__file__).parents[3]
NOTEBOOK = REPOSITORY / "Resources" / "Notebooks" / "curation.ipynb"
SCRIPT = NOTEBOOK.with_name("curate_in_slicer.py")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_two_heads(tmp_path_factory.mktemp("doors") / "in")


@pytest.fixture(scope="module")
def expected(cohort, tmp_path_factory):
    """What the engine writes when it is called directly."""
    out = tmp_path_factory.mktemp("doors-expected") / "out"
    run_curate(CurateRequest(str(cohort), str(out), CurationSettings(registration="none")))
    return bytes_of(out)


def test_the_notebook_runs_from_top_to_bottom_and_writes_what_the_engine_writes(
    cohort, expected, tmp_path, monkeypatch
):
    monkeypatch.setenv("HNSEG_CURATE_IN", str(cohort))
    monkeypatch.setenv("HNSEG_CURATE_OUT", str(tmp_path / "out"))
    monkeypatch.setenv("HNSEG_CURATE_REGISTRATION", "none")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "HaN-Seg: 2 cases" in said
    assert "1 good, 1 doubtful, 0 failed" in said
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    assert "case_02" in shown[0]["text/html"]
    assert sum("image/jpeg" in data for data in shown) == 1  # the first case by verdict has no MR
    assert bytes_of(tmp_path / "out") == expected


def test_the_notebook_is_kept_without_outputs_and_without_magics():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert not any(line.lstrip().startswith(("%", "!")) for cell in code for line in cell.source.splitlines())


def test_the_script_for_slicer_without_window_writes_what_the_engine_writes(cohort, expected, tmp_path):
    environment = {**os.environ, "HNSEG_EXTENSION": str(REPOSITORY / "HNSegExtension")}
    command = [sys.executable, str(SCRIPT), str(cohort), str(tmp_path / "out"), "--registration", "none"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert bytes_of(tmp_path / "out") == expected


def test_the_script_tells_failure_by_its_exit_code(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path / "absent"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "There is no folder" in done.stderr


FRESH = (sys.executable, "-S")
"""A Python without a single package, as far as HNSeg is concerned: a fresh Slicer."""


def test_the_script_in_a_fresh_slicer_says_what_is_missing_and_how_to_install_it(cohort, tmp_path):
    command = [*FRESH, str(SCRIPT), str(cohort), str(tmp_path / "out")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (said,) = done.stderr.splitlines()
    assert said.startswith("Curation needs numpy>=1.26, ")
    assert "distributed>=2025.1" in said
    assert '"Head-neck curation (HNSeg)"' in said
    assert f'"{sys.executable}" -m pip install "numpy>=1.26" ' in said


def test_the_notebook_in_a_fresh_slicer_says_so_in_its_first_cell(tmp_path):
    (tmp_path / "slicer.py").write_text("app = 'STAND-IN'")
    cell = next(cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "HNSEG_EXTENSION": str(REPOSITORY / "HNSegExtension")}
    done = subprocess.run([*FRESH, "-c", cell.source], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "SetUpFailed: Curation needs numpy>=1.26, " in done.stderr.splitlines()[-1]


def test_an_interrupted_command_keeps_finished_cases_and_says_that_it_goes_on(
    cohort, expected, tmp_path, monkeypatch, capsys
):
    words = ["curate", str(cohort), str(tmp_path / "out"), "--registration", "none"]

    def interrupt(fraction, text):
        if text.startswith("case_02"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hnseg.jobs.curate.run_curate", lambda request, on_progress: run_curate(request, interrupt))
        assert main(words) == 130
    assert capsys.readouterr().err == "Interrupted; finished cases stay, repeat the command to go on.\n"
    assert [path.name for path in (tmp_path / "out" / "cases").iterdir()] == ["case_01"]
    assert main(words) == 0
    assert bytes_of(tmp_path / "out") == expected
