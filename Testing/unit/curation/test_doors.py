"""The notebook and the script: other doors to the same curation."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from hnseg.curation.settings import CurationSettings
from hnseg.image.files import write_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.jobs.curate import CurateRequest, run_curate

REPOSITORY = Path(__file__).parents[3]
NOTEBOOK = REPOSITORY / "Resources" / "Notebooks" / "curation.ipynb"
SCRIPT = NOTEBOOK.with_name("curate_in_slicer.py")
GRID = Grid((20, 22, 18), (8.0, 8.0, 9.0), (-80.0, -120.0, 300.0))


def head(air, tissue, bone):
    k, j, i = np.indices(GRID.shape_kji)
    x, y, z = np.moveaxis(GRID.to_lps(np.stack([i, j, k], axis=-1)) - (2.0, -30.0, 385.0), -1, 0)
    radius = np.sqrt((x / 60) ** 2 + (y / 70) ** 2 + (z / 75) ** 2)
    values = np.where(radius < 1, tissue, air) + np.random.default_rng(1).normal(0, 8, radius.shape)
    values[(radius > 0.8) & (radius < 0.95) & (z > -10)] = bone
    return Volume(np.round(values).astype(np.int16), GRID)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doors") / "in"
    for name in ("case_01", "case_02"):
        place = folder / name
        place.mkdir(parents=True)
        write_volume(head(-1000, 40, 900), place / f"{name}_IMG_CT.nrrd")
        brainstem = np.zeros(GRID.shape_kji, np.uint8)
        brainstem[8:11, 9:12, 9:12] = 1
        write_volume(Volume(brainstem, GRID), place / f"{name}_OAR_Brainstem.seg.nrrd")
    write_volume(head(15, 420, 60), folder / "case_01" / "case_01_IMG_MR_T1.nrrd")
    return folder


@pytest.fixture(scope="module")
def expected(cohort, tmp_path_factory):
    """What the engine writes when it is called directly."""
    out = tmp_path_factory.mktemp("doors-expected") / "out"
    run_curate(CurateRequest(str(cohort), str(out), CurationSettings(registration="none")))
    return bytes_of(out)


def bytes_of(out):
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


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
