"""What becomes of cases that cannot be told apart, or that show nothing which the model knows."""

import dataclasses
import json
from types import SimpleNamespace

import pytest

from hnseg.errors import InputError
from hnseg_training import validate as room
from hnseg_training.config import CohortConfig
from hnseg_training.sources import case_loaders
from hnseg_training.validate import validate

BUNDLE = SimpleNamespace(
    name="x", metadata=SimpleNamespace(version="1", takes_mr=True, organs=("Parotid_L", "Brainstem"))
)


@pytest.fixture
def cohorts(tmp_path, write_patient):
    """Two hospitals with a case_01 each."""
    for name, organs in (("one", ("Parotid_L", "Lips")), ("two", ("Brainstem",))):
        write_patient(tmp_path / name / "case_01", organs=organs, mr=False)
    return tuple(CohortConfig(source="hanseg", path=str(tmp_path / name)) for name in ("one", "two"))


@pytest.fixture
def perfect(monkeypatch, cohorts):
    """A model that finds whatever was drawn; the CTs that it saw."""
    seen = []

    def segment(ct, *_, **__):
        seen.append(ct)
        drawn = [load() for cohort in cohorts for load in case_loaders(cohort).values()]
        (case,) = (case for case in drawn if (case.ct.array_kji == ct.array_kji).all())
        return SimpleNamespace(labels=case.labels, organs=())

    monkeypatch.setattr(room, "segment", segment)
    return seen


def scores_of(cohorts, output, bundle=BUNDLE):
    validate(bundle, cohorts, output=output, on_progress=lambda _fraction, _text: None)
    return json.loads(output.read_text())


def test_equal_names_of_two_cohorts_are_told_apart(cohorts, perfect, tmp_path):
    scores = scores_of(cohorts, tmp_path / "scores.json")
    cases = scores["cases"]["hanseg, CT"]
    found = {name: [row["organ"] for row in case["organs"]] for name, case in cases.items()}
    assert found == {"case_01 of cohort 1": ["Parotid_L"], "case_01 of cohort 2": ["Brainstem"]}
    assert scores["about"]["cases"]["hanseg, CT: DSC"] == 2
    alone = scores_of(cohorts[:1], tmp_path / "alone.json")
    assert list(alone["cases"]["hanseg, CT"]) == ["case_01"]


def test_a_case_that_shows_nothing_which_the_model_knows_is_named_and_not_segmented(cohorts, perfect, tmp_path):
    stem = SimpleNamespace(name="x", metadata=SimpleNamespace(version="1", takes_mr=True, organs=("Brainstem",)))
    scores = scores_of(cohorts, tmp_path / "scores.json", stem)
    assert scores["about"]["failed"] == ["case_01 of cohort 1: nothing is drawn that the model knows"]
    assert list(scores["cases"]["hanseg, CT"]) == ["case_01 of cohort 2"]
    assert len(perfect) == 1


def test_validation_without_cases_is_refused(cohorts, tmp_path):
    for none in ((), (dataclasses.replace(cohorts[0], fold=(1, 2), part="held-out"),)):
        with pytest.raises(InputError, match="no case to score; name cohorts with cases under validation"):
            scores_of(none, tmp_path / "scores.json")
