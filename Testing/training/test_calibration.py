"""Confidence becomes an expected DSC and a flag, both tested on cases that they were not fitted on."""

import json

import numpy as np
import pytest

from hnseg.inference.confidence import Confidence
from hnseg.models.calibration import Calibration, shortfall
from hnseg.organs import BY_NAME
from hnseg_training.calibration import Judged, cross_fitted, fit, flagging, judged, reliability_diagram, several_cases

CURVE = Calibration(-6.0, 5.0, 4.0, -1.5, 0.0)


def organs(kind, *, cases, each, seed, noise=0.03):
    """Organs whose DSC follows the curve; one in ten is hardly seen."""
    rng = np.random.default_rng(seed)
    rows = []
    for case in range(cases):
        for _ in range(each):
            mean = rng.uniform(0.35, 0.5) if rng.random() < 0.1 else rng.uniform(0.8, 0.99)
            boundary = 0.8 * mean
            small = max(0.0, rng.normal(0.0, 0.3))
            dsc = float(np.clip(CURVE.expected_dsc(mean, boundary, small) + rng.normal(0, noise), 0, 1))
            rows.append(Judged(kind, f"{kind}-{case}", mean, boundary, small, dsc))
    return rows


@pytest.fixture(scope="module")
def rows():
    return organs("phantom", cases=8, each=20, seed=1) + organs("openkbp", cases=9, each=6, seed=2)


def test_the_expected_dsc_is_a_logistic_curve_of_confidences_and_shortfall():
    calibration = Calibration(-6.0, 5.0, 4.0, -1.5, 0.5)
    assert calibration.expected_dsc(0.8, 0.6, 0.0) == pytest.approx(1 / (1 + np.exp(-0.4)))
    assert calibration.expected_dsc(0.8, 0.6, 0.2) == pytest.approx(1 / (1 + np.exp(-0.1)))


def test_only_what_is_smaller_than_typical_falls_short():
    assert shortfall(10.0, 27.0) == pytest.approx(np.log(2.7))
    assert shortfall(30.0, 27.0) == 0.0


def test_the_fit_finds_the_curve_that_the_organs_follow(rows):
    found = fit(rows)
    for mean in (0.4, 0.85, 0.97):
        for small in (0.0, 0.5):
            expected = CURVE.expected_dsc(mean, 0.8 * mean, small)
            assert found.expected_dsc(mean, 0.8 * mean, small) == pytest.approx(expected, abs=0.03)
    assert found.cases == {"openkbp": 9, "phantom": 8}


def test_more_confidence_never_promises_less():
    rng = np.random.default_rng(3)
    misleading = [
        Judged("phantom", str(n), mean, 0.5, 0.0, 1.2 - mean) for n, mean in enumerate(rng.uniform(0.3, 0.9, 40))
    ]
    found = fit(misleading)
    assert found.expected_dsc(0.9, 0.5, 0.0) >= found.expected_dsc(0.3, 0.5, 0.0)


def test_where_no_organ_is_good_all_are_to_be_checked():
    found = fit([Judged("phantom", str(n), 0.5 + 0.1 * n, 0.5, 0.0, 0.1) for n in range(4)])
    assert found.check_below == 1.0


def test_the_organs_of_one_case_cannot_test_a_curve(rows):
    assert several_cases(rows)
    assert not several_cases([row for row in rows if row.case == "phantom-0"])
    assert not several_cases([])


def test_patients_weigh_as_much_as_phantoms_however_few_they_are():
    many = [Judged("phantom", str(n), 0.9, 0.8, 0.0, 0.9) for n in range(90)]
    few = [Judged("openkbp", str(n), 0.9, 0.8, 0.0, 0.5) for n in range(10)]
    assert fit(many + few).expected_dsc(0.9, 0.8, 0.0) == pytest.approx(0.7, abs=0.01)


def test_a_case_is_never_judged_by_a_curve_that_it_took_part_in(rows, monkeypatch):
    import hnseg_training.calibration as module

    seen = []
    monkeypatch.setattr(module, "fit", lambda others: seen.append({row.case for row in others}) or CURVE)
    cross_fitted(rows)
    everybody = {row.case for row in rows}
    left_out = [everybody - cases for cases in seen]
    assert len(left_out) == 5
    assert set.union(*left_out) == everybody
    assert sum(len(cases) for cases in left_out) == len(everybody)


def test_the_flag_finds_the_bad_organs_with_few_false_alarms(rows):
    tested = cross_fitted(rows)
    for kind in ("phantom", "openkbp"):
        found = flagging(rows, tested, kind)
        assert found.bad + found.good == sum(row.kind == kind for row in rows)
        assert found.bad >= 3
        assert found.caught >= 0.8 * found.bad
        assert found.alarms <= 0.2 * found.good


def test_the_diagram_is_the_same_drawing_each_time(rows):
    tested = cross_fitted(rows)
    drawing = reliability_diagram(rows, tested)
    assert drawing == reliability_diagram(rows, tested)
    assert drawing != reliability_diagram(rows[:-1], tested[:-1])


def test_confidence_is_read_beside_the_scores(tmp_path):
    from hnseg.evaluation.cohort import Cohort
    from hnseg.evaluation.scores import OrganScores, Scores
    from hnseg_training.scores_file import write_scores

    row = OrganScores("Lips", 10.0, 9.0, 1.0, dsc=0.8)
    missed, extra = OrganScores("SpinalCord", 10.0, 0.0, 0.0, dsc=0.0), OrganScores("Glottis", 0.0, 2.0, 2.0)
    cohort = Cohort("ours", (("case 1", Scores((row, missed, extra), 2.0, 300.0)),))
    sure = {"phantom, CT": {"case 1": {"Lips": Confidence(0.9, 0.7), "Glottis": Confidence(0.6, 0.5)}}}
    path = tmp_path / "scores.json"
    write_scores(path, {"phantom, CT": cohort}, model="m", version="1", failed=[], confidence=sure)
    assert judged(json.loads(path.read_text())) == (
        Judged("phantom", "case 1", 0.9, 0.7, shortfall(9.0, BY_NAME["Lips"].typical_ml), 0.8),
    )
    assert judged({}) == ()
