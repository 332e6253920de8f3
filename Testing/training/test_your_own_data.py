"""Rehearsal of docs/weights.md: HaN-Seg's layout → curate → transfer from the bundle that ships → a bundle in Slicer.

Slow; HNSEG_REHEARSAL_CASES makes it shorter. The effect's worker and a real scene, without Qt.
"""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import yaml

from hnseg.cli.main import main as hnseg
from hnseg.models.bundle import open_bundle
from hnseg.models.places import MODELS_VARIABLE
from hnseg_training.cli import main as hnseg_train

ROOT = Path(__file__).parents[2]
CASES = int(os.environ.get("HNSEG_REHEARSAL_CASES", "42"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.filterwarnings("ignore"),  # Lightning's own advice on workers and devices
]


@pytest.fixture(scope="module")
def transferred(tmp_path_factory):
    """The steps of the documentation, one command each, in a folder of their own."""
    folder = tmp_path_factory.mktemp("own")
    config = yaml.safe_load((ROOT / "HNSegTraining" / "configs" / "hnseg-transfer.yaml").read_text())
    config["start_from"] = str(ROOT / config["start_from"])
    for cohort in (*config["cohorts"], *config["validation"]):
        cohort |= {"path": str(folder / "curated"), "patients": False}
    config["patch"]["size_kji"] = [32, 64, 64]
    config["optimisation"] |= {"loader_workers": 0}
    (folder / "own.yaml").write_text(yaml.safe_dump(config))
    chosen = ["--config", str(folder / "own.yaml"), "--runs", str(folder / "runs")]
    assert hnseg(["phantom", str(folder / "set_1"), "--cases", str(CASES), "--size", "small", "--seed", "42"]) == 0
    assert hnseg(["curate", str(folder / "set_1"), str(folder / "curated")]) == 0
    shutil.rmtree(folder / "set_1")
    assert hnseg_train(["transfer", *chosen, "--steps", "6"]) == 0
    assert hnseg_train(["export", *chosen]) == 0
    yield folder
    shutil.rmtree(folder)


def test_curation_takes_every_case(transferred):
    manifest = json.loads((transferred / "curated" / "manifest.json").read_text())
    assert not manifest["failed"]
    assert len(list((transferred / "curated" / "cases").iterdir())) == CASES


def test_training_saw_the_cases_of_four_folds_and_started_from_the_bundle(transferred):
    prepared = list((transferred / "runs" / "hnseg-own" / "cases").rglob("case.json"))
    assert len(prepared) == CASES - len(range(0, CASES, 5))


def test_the_bundle_says_whose_organs_it_learnt(transferred):
    metadata = open_bundle(transferred / "runs" / "hnseg-own" / "bundle").metadata
    assert set(metadata.taught_by) == set(metadata.organs)
    assert metadata.taught_by["Lips"] == ("phantom",), "the rehearsal's cases are phantoms, and say so"


def test_the_bundle_loads_in_the_effect_and_fills_a_scene(transferred, monkeypatch):
    slicer = pytest.importorskip("slicer")
    from hnseg.image.files import read_volume
    from hnseg.jobs.client import Worker
    from HNSegLib.choices import Choices
    from HNSegLib.desk import WorkerDesk
    from HNSegLib.effect_logic import EffectLogic
    from HNSegLib.reviewing import review_rows
    from HNSegLib.segmenting import SegmentJob
    from HNSegLib.volumes import add_volume

    models = transferred / "models"
    models.mkdir()
    (transferred / "runs" / "hnseg-own" / "bundle").rename(models / "hnseg-own")
    monkeypatch.setenv(MODELS_VARIABLE, str(models))
    scene = slicer.vtkMRMLScene()
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(scene)
    ct = add_volume(scene, read_volume(transferred / "curated" / "cases" / "case_01" / "ct.nrrd"), "CT")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Plan")
    views, desk = [], WorkerDesk(Worker)
    try:
        effect = EffectLogic(SegmentJob(desk), show=views.append, save_state_for_undo=lambda: None)
        effect.apply(ct, None, node, Choices(model="hnseg-own", device="cpu"))
        deadline = time.monotonic() + 1200
        while effect.busy:
            assert time.monotonic() < deadline, views[-1]
            effect.tick(node)
            time.sleep(0.05)
        assert not views[-1].failed, views[-1]
        rows = {row.name: row for row in review_rows(node)}
        assert len(rows) == 30
        assert sum(row.volume_ml > 0 for row in rows.values()) > 20
        assert {row.taught_by for row in rows.values()} == {"phantoms only"}
    finally:
        desk.close()
        logic.SetMRMLScene(None)
