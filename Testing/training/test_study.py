"""The study of the seed reports' claims: its cohorts are what they are called, and its words are earned."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hnseg.errors import InputError
from hnseg.evaluation.cohort import Cohort
from hnseg.evaluation.scores import OrganScores, Scores
from hnseg.evaluation.statistics import PairedTest
from hnseg.image.files import read_volume, write_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.organs import BY_NAME, ORGANS
from hnseg_training import validate
from hnseg_training.config import CohortConfig
from hnseg_training.sources import case_loaders

sys.path.insert(0, str(Path(__file__).parents[2] / "HNSegTraining"))
import study
import study_claims
import study_cohorts

COHORT = study_cohorts.StudyCohort((CohortConfig(),), CohortConfig(seed=7))


def parotids(folder):
    return [
        read_volume(folder / f"{folder.name}_OAR_{name}.seg.nrrd").array_kji.nonzero()[2].mean()
        for name in ("Parotid_L", "Parotid_R")
    ]


@pytest.fixture
def patient(tmp_path, write_patient):
    return write_patient(tmp_path / "whole" / "case_01", organs=("Parotid_R", "Cavity_Oral", "Parotid_L"))


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "made" / "case_01"
    folder.mkdir(parents=True)
    return folder


def test_a_mirrored_case_has_its_organs_on_the_wrong_side_and_its_ct_with_them(patient, target):
    study_cohorts.mirrored(patient, target, np.random.default_rng(0))
    assert parotids(patient)[0] > parotids(patient)[1]
    assert parotids(target)[0] < parotids(target)[1]
    before, after = (read_volume(folder / "case_01_IMG_CT.nrrd") for folder in (patient, target))
    assert np.array_equal(after.array_kji, before.array_kji[:, :, ::-1])
    assert after.grid.is_close(before.grid)


def test_about_a_fifth_of_the_masks_is_missing_and_the_ct_never(tmp_path, write_patient):
    case = write_patient(tmp_path / "case_01", organs=("Parotid_R", "Brainstem", "Parotid_L", "Arytenoid"))
    kept = []
    for seed in range(60):
        target = tmp_path / str(seed)
        target.mkdir()
        study_cohorts.thinned_out(case, target, np.random.default_rng(seed))
        names = {file.name for file in target.iterdir()}
        assert "case_01_IMG_CT.nrrd" in names
        kept.append(len([name for name in names if "_OAR_" in name]) / 3)
        assert not any("Arytenoid" in name or "MR" in name for name in names), "not one of the nine; on the CT alone"
    assert np.mean(kept) == pytest.approx(0.8, abs=0.08)


def test_a_lesion_is_soft_tissue_that_the_pet_shows_and_the_one_thing_drawn(patient, target):
    study_cohorts.as_petct(patient, target, np.random.default_rng(3))
    (load,) = case_loaders(CohortConfig(source="hanseg", path=str(target.parent), registered=True)).values()
    case = load()
    lesion = case.labels.array_kji > 0
    assert len(case.annotated) == 1
    assert lesion.sum() > 5
    assert case.ct_to_mr is None, "PET and CT share one frame"
    assert np.median(case.mr.array_kji[lesion]) > 2 * np.median(case.mr.array_kji[case.ct.array_kji > 0])
    assert (np.abs(case.ct.array_kji[lesion] - 60) < 80).all()
    before = read_volume(patient / "case_01_IMG_CT.nrrd").array_kji
    assert np.array_equal(case.ct.array_kji[~lesion], before[~lesion])


def test_a_second_image_whose_place_is_known_is_not_registered(patient, target, tmp_path, monkeypatch):
    study_cohorts.as_petct(patient, target, np.random.default_rng(3))
    places = []

    def look(ct, mr, *, ct_to_mr, **_):
        places.append(ct_to_mr)
        raise InputError("enough")

    monkeypatch.setattr(validate, "segment", look)
    about = SimpleNamespace(version="1", takes_mr=True, organs=tuple(BY_NAME))
    bundle = SimpleNamespace(name="x", metadata=about)
    cohort = CohortConfig(source="hanseg", path=str(target.parent), registered=True)
    cases = case_loaders(cohort)
    monkeypatch.setattr(validate, "case_loaders", lambda _: cases)
    for registered in (True, False):
        cohort = dataclasses.replace(cohort, registered=registered)
        validate.validate(bundle, (cohort,), output=tmp_path / "scores.json", on_progress=lambda *_: None)
    known, unknown = places[0], places[2]
    assert known.TransformPoint((1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)
    assert unknown is None


def test_every_variant_is_a_configuration_that_differs_from_the_others_of_its_claim():
    for claim in study_claims.CLAIMS:
        configs = [study.small(variant, COHORT, 10) for variant in claim.variants]
        assert {config.optimisation.steps for config in configs} == {10}
        assert {config.optimisation.learning_rate for config in configs} == {2e-3}
        names = [study.run_name(claim, variant) for variant in claim.variants]
        assert len(set(names)) == len(names)


def test_variants_differ_in_what_the_claim_is_about_and_in_nothing_else():
    claim = next(claim for claim in study_claims.CLAIMS if claim.key == "norm")
    batch, instance = (study.small(variant, COHORT, 10) for variant in claim.variants)
    assert batch.network.arguments["norm"] == "batch"
    same = dataclasses.replace(batch.network, arguments={**batch.network.arguments, "norm": "instance"})
    assert dataclasses.replace(batch, network=same) == instance


def test_transfer_starts_from_a_run_of_the_study():
    runs = {study.run_name(claim, variant) for claim in study_claims.CLAIMS for variant in claim.variants}
    starts = {variant.start for claim in study_claims.CLAIMS for variant in claim.variants if variant.start}
    assert starts == {study_claims.SOURCE}
    assert study_claims.SOURCE in runs


@pytest.mark.parametrize(
    ("difference", "p", "words"),
    [(0.1, 0.01, "as claimed"), (-0.1, 0.01, "**the other way round**"), (0.02, 0.01, "no more than seeds differ"),
     (0.1, 0.2, "no difference can be told"), (0.1, float("nan"), "no difference can be told")],
)  # fmt: skip
def test_a_difference_counts_if_it_is_unlikely_and_larger_than_between_seeds(difference, p, words):
    assert study.Finding(PairedTest("all", "dsc", 8, difference, -1.0, 1.0, p), noise=0.05).words == words


def test_a_difference_is_not_weighed_against_seeds_that_were_not_run():
    found = study.Finding(PairedTest("all", "dsc", 8, 0.06, 0.01, 0.1, 0.01), noise=study.noise_of({}))
    assert found.words == "as claimed, seeds not compared"
    assert next(study.summary({}, 1000)) == (
        "1000 steps each. Trainings of one system that differ in their seed alone have not been run."
    )


def cohort(system, *values):
    cases = [(f"case {n}", Scores((OrganScores("Brainstem", 20.0, 20.0, 0.0, dsc=dsc),), 2.0, 400.0, ()))
             for n, dsc in enumerate(values)]  # fmt: skip
    return Cohort(system, tuple(cases))


def test_the_page_gets_the_summary_between_its_markers_and_names_what_was_not_run(tmp_path):
    page = tmp_path / "systems.md"
    page.write_text("before\n<!-- study -->\nold\n<!-- study -->\nafter\n")
    worse, better = (np.linspace(0.5, 0.6, 8) + shift for shift in (0.0, 0.2))
    tried = {
        "seeds": [cohort("a", 0.5), cohort("b", 0.53), cohort("c", 0.52)],
        "norm": [cohort("batch", *worse), cohort("instance", *better)],
    }
    study.write_page(page, tried, 200)
    text = page.read_text()
    assert text.startswith("before\n<!-- study -->\n200 steps each.")
    assert text.endswith("<!-- study -->\nafter\n")
    assert "lie 3.0 apart" in text
    assert "old" not in text
    (row,) = (line for line in text.splitlines() if line.startswith("| 002 | batch size 1"))
    assert "`batch-norm` 55.0; `rrse-unet` 75.0 | +20.0" in row
    assert row.endswith("| 8 | as claimed | norm |")
    assert "Not run: residual, focal," in text
    assert (tmp_path / "systems.png").stat().st_size > 5000


def write_tiny_cohort(folder, *, cases, **_):
    """In place of phantoms: blocks of tissue with a small block for each organ."""
    grid = Grid((30, 34, 20), (4.0, 4.0, 5.0), (-60.0, -66.0, -40.0))
    for number in range(1, cases + 1):
        case = folder / f"case_{number:02d}"
        case.mkdir(parents=True, exist_ok=True)
        ct = np.full(grid.shape_kji, -1000, np.int16)
        ct[1:19, 4:31, 2:28] = 30
        for organ in ORGANS:
            mask = np.zeros(grid.shape_kji, np.uint8)
            k, j, i = np.unravel_index(organ.label - 1, (5, 3, 2))
            mask[2 + 3 * k : 5 + 3 * k, 7 + 7 * j : 13 + 7 * j, 4 + 12 * i : 14 + 12 * i - number % 2] = 1
            ct[mask > 0] = 40 + 5 * organ.label
            write_volume(Volume(mask, grid), case / f"{case.name}_OAR_{organ.name}.seg.nrrd")
        write_volume(Volume(ct, grid), case / f"{case.name}_IMG_CT.nrrd")
        write_volume(Volume(ct + 1100, grid), case / f"{case.name}_IMG_MR_T1.nrrd")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Lightning's own advice on workers and devices
@pytest.mark.parametrize("claim", [claim.key for claim in study_claims.CLAIMS if claim.key != "openkbp"])
def test_every_claim_can_be_tried(claim, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study_cohorts, "write_cohort", write_tiny_cohort)
    monkeypatch.setattr(study_cohorts, "TRAINED", 2)
    monkeypatch.setattr(study_cohorts, "UNSEEN", 2)
    page = tmp_path / "page.md"
    page.write_text(f"{study.MARKER}{study.MARKER}")
    monkeypatch.setattr(sys, "argv", ["study.py", claim, "--runs", str(tmp_path), "--steps", "2", "--page", str(page)])
    assert study.main() == 0
    assert f"### {claim}: " in capsys.readouterr().out
    assert f"| {claim} |" in page.read_text()
