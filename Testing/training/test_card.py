"""From scores to a card that marks, warns and pictures, and to a bundle whose confidence means something."""

import dataclasses
import json

import numpy as np
import pytest

from hnseg.evaluation.compare import compare
from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segmentation
from hnseg.image.volume import Volume
from hnseg.models.bundle import open_bundle
from hnseg.preprocessing import PreprocessSettings
from hnseg_training.card import model_card
from hnseg_training.config import NetworkConfig, OptimisationConfig, PatchConfig, TrainConfig
from hnseg_training.export import export
from hnseg_training.fit import fit
from hnseg_training.gallery import Gallery
from hnseg_training.scores_file import worst_folder
from hnseg_training.teaching import Taught, read_taught, write_taught
from hnseg_training.validate import structure_confidence, validate

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own advice on workers and devices

GRID = Grid((30, 24, 20), (2.0, 3.0, 4.0), (-30.0, 10.0, 100.0))


def silent(_fraction, _text):
    pass


def drawn(**boxes):
    """Organ → (k, j, i) start of a block of 4 × 5 × 6 voxels."""
    labels = {}
    for name, (k, j, i) in boxes.items():
        mask = np.zeros(GRID.shape_kji, np.uint8)
        mask[k : k + 4, j : j + 5, i : i + 6] = 1
        labels[name] = Volume(mask, GRID)
    return Segmentation.from_masks(labels)


def test_the_worst_organs_hang_each_in_its_worst_case_and_the_worst_first(tmp_path):
    ct = Volume(np.zeros(GRID.shape_kji, np.int16), GRID)
    truth = drawn(Lips=(2, 2, 2), Brainstem=(10, 10, 10), Parotid_L=(2, 12, 20))
    one = drawn(Lips=(2, 2, 3), Brainstem=(10, 10, 13), Parotid_L=(2, 12, 20))
    two = drawn(Lips=(2, 2, 4), Brainstem=(10, 10, 12), Parotid_L=(2, 12, 21))
    (tmp_path / "worst").mkdir()
    (tmp_path / "worst" / "old.png").touch()
    gallery = Gallery(tmp_path / "worst", size=2)
    for case, found in (("one", one), ("two", two)):
        gallery.show(case, compare(found, truth), found, truth, ct)
    assert list(gallery.captions) == ["Brainstem.png", "Lips.png"]
    assert gallery.captions["Brainstem.png"].startswith("Brainstem of one: DSC 0.50, HD95 ")
    assert gallery.captions["Lips.png"].startswith("Lips of two: DSC 0.67")
    assert sorted(path.name for path in (tmp_path / "worst").iterdir()) == ["Brainstem.png", "Lips.png"]


@pytest.fixture(scope="module")
def trained(tiny_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    config = TrainConfig(
        name="tiny",
        organs=("Parotid_R", "Arytenoid", "Lips"),
        cohorts=(tiny_cohort,),
        validation=(tiny_cohort,),
        preprocess=PreprocessSettings(spacing_mm=(4.0, 4.0, 5.0)),
        network=NetworkConfig(arguments={"filters": [4, 8, 8], "factor": [2, 2, 2]}),
        patch=PatchConfig(size_kji=(8, 16, 16)),
        optimisation=OptimisationConfig(steps=1, warmup_steps=1, loader_workers=0),
    )
    fit(config, folder / "tiny", on_progress=silent)
    organs = {**read_taught(folder / "tiny").taught_by, "Lips": ("phantom",)}
    write_taught(folder / "tiny", Taught(tuple(organs), organs))
    return config, folder / "tiny"


def test_scores_calibrate_the_bundle_and_fill_its_card(trained, tmp_path):
    config, run = trained
    scores = tmp_path / "scores.json"
    found = validate(export(config, run, tmp_path / "first"), config.validation, output=scores, on_progress=silent)
    measured = json.loads(scores.read_text())
    assert set(measured["confidence"]) <= set(found)
    # An untrained network finds what it finds; a picture and some more certain organs make the card whole.
    title = next(iter(found))
    for n in range(6):
        measured["cases"][title][f"more {n}"] = {
            "organs": [{"organ": "Lips", "dsc": 0.3 + 0.1 * n, "prediction_ml": 12.0}]
        }
        measured["confidence"].setdefault(title, {})[f"more {n}"] = {"Lips": {"mean": 0.4 + 0.1 * n, "boundary": 0.5}}
    measured["worst"] = {"Lips.png": "Lips of somebody: DSC 0.30"}
    scores.write_text(json.dumps(measured))
    worst_folder(scores).mkdir(exist_ok=True)
    (worst_folder(scores) / "Lips.png").write_bytes(b"a picture")
    bundle = open_bundle(export(config, run, tmp_path / "tiny", scores=scores).folder)
    assert bundle.metadata.calibration is not None
    assert bundle.metadata.calibration.cases["hanseg"] >= 6
    assert {"docs/reliability.svg", "docs/worst/Lips.png"} <= bundle.metadata.files.keys()
    assert (bundle.folder / "docs" / "worst" / "Lips.png").read_bytes() == b"a picture"
    for said in (
        "**Learnt from phantoms only: Lips.**",
        "| Parotid_R | patients |",
        "| Lips | phantoms only |",
        "![Reliability diagram](reliability.svg)",
        "![Lips of somebody: DSC 0.30](worst/Lips.png)",
        "between observers: DSC",
        "76.9 %",
        "hnseg-train",
    ):
        assert said in bundle.card, said


def test_a_card_without_scores_says_so(trained, tmp_path):
    config, run = trained
    bundle = export(config, run, tmp_path / "tiny")
    assert bundle.metadata.calibration is None
    assert "No scores were measured" in bundle.card
    assert model_card(config, dataclasses.replace(bundle.metadata, taught_by={}), {}).count("phantoms only") == 0


def test_a_structure_of_several_organs_is_as_sure_as_its_parts_by_their_volume():
    from types import SimpleNamespace

    from hnseg.inference.confidence import Confidence
    from hnseg.inference.review import OrganFinding

    organs = (
        OrganFinding("Glottis", 3.0, Confidence(0.9, 0.8), "ok"),
        OrganFinding("Larynx_SG", 1.0, Confidence(0.5, 0.4), "ok"),
        OrganFinding("Arytenoid", 0.0, None, "absent"),
    )
    names = {"Larynx_SG": "Larynx_SG + Glottis + Arytenoid", "Lips": "Lips", "Arytenoid": "Arytenoid"}
    found = structure_confidence(SimpleNamespace(organs=organs), names)
    assert list(found) == ["Larynx_SG + Glottis + Arytenoid"]
    sure = found["Larynx_SG + Glottis + Arytenoid"]
    assert (sure.mean, sure.boundary) == (pytest.approx(0.8), pytest.approx(0.7))
