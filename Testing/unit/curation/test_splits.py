"""Splits: by patient, by seed, and alike in what is rare."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hnseg.curation.splits import make_splits, spread

FEATURES = st.frozensets(st.sampled_from(["+MR", "-MR", "+Lips", "-Lips", "-OpticChiasm"]), max_size=4)


def split(cases, subjects=None, **changes):
    options = {"test_share": 0.2, "folds": 5, "seed": 0, **changes}
    return make_splits(cases, subjects=subjects or {}, **options)


def cohort(count=42, lacking=(), feature="-OpticChiasm"):
    return {f"case_{n:02d}": frozenset({feature} if n in lacking else {"+OpticChiasm"}) for n in range(1, count + 1)}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), FEATURES, min_size=1, max_size=25), st.integers(0, 99))
def test_every_case_is_in_train_or_test_and_in_one_validation_fold(cases, seed):
    made = split(cases, seed=seed)
    assert sorted((*made.train, *made.test)) == sorted(cases)
    validated = [name for fold in made.folds for name in fold.validation]
    assert sorted(validated) == (sorted(made.train) if made.folds else [])
    assert all(not set(fold.train) & set(fold.validation) for fold in made.folds)
    assert all(set(fold.train) | set(fold.validation) == set(made.train) for fold in made.folds)


def test_han_segs_42_cases_give_8_for_testing_and_folds_of_6_or_7():
    made = split(cohort())
    assert (len(made.train), len(made.test)) == (34, 8)
    assert sorted(len(fold.validation) for fold in made.folds) == [6, 7, 7, 7, 7]


def test_a_seed_gives_the_same_splits_and_another_seed_others():
    assert split(cohort(), seed=3) == split(dict(reversed(cohort().items())), seed=3)
    assert split(cohort(), seed=3).test != split(cohort(), seed=4).test


@pytest.mark.parametrize("seed", range(5))
def test_what_is_rare_is_shared_out_evenly(seed):
    """Ten of 42 lack the chiasm: two for testing, and eight over five folds."""
    lacking = range(1, 11)
    made = split(cohort(lacking=lacking), seed=seed)
    names = {f"case_{n:02d}" for n in lacking}
    assert len(names & set(made.test)) == 2
    assert sorted(len(names & set(fold.validation)) for fold in made.folds) == [1, 1, 2, 2, 2]


def test_cases_of_one_patient_stay_together():
    cases = {f"visit_{n}": frozenset() for n in range(20)}
    subjects = {f"visit_{n}": f"person {n // 2}" for n in range(20)}
    made = split(cases, subjects)
    for part in (made.train, made.test, *(fold.validation for fold in made.folds)):
        people = [subjects[name] for name in part]
        assert all(people.count(person) == 2 for person in people)
    assert len(made.test) == 4


def test_fewer_patients_than_folds_give_as_many_folds_as_patients_and_one_gives_none():
    assert len(split(cohort(3), test_share=0.0).folds) == 3
    assert split(cohort(1)).train == ("case_01",)
    assert split(cohort(1)).folds == ()
    assert split({}).train == ()


def test_parts_follow_the_shares():
    items = {str(n): frozenset() for n in range(10)}
    assert [len(part) for part in spread(items, (0.5, 0.3, 0.2), np.random.default_rng(0))] == [5, 3, 2]
