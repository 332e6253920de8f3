"""Cohorts, paired tests, intervals, Bland–Altman, and the challenge's ranking."""

import csv
import io

import numpy as np
import pytest
from scipy import stats

from hnseg.errors import InputError, UnreadableFile
from hnseg.evaluation.cohort import Cohort, to_csv, to_plain
from hnseg.evaluation.observers import PUBLISHED_DSC, read_ceiling
from hnseg.evaluation.scores import NAN, OrganScores, Scores
from hnseg.evaluation.statistics import (
    bland_altman,
    bootstrap_interval,
    challenge_ranking,
    comparison_to_plain,
    paired_tests,
)

DIAGONAL_MM = 500.0
ORGANS = ("Brainstem", "Parotid_L", "Lips")


def row(organ, dsc, hd95=3.0, *, reference_ml=10.0, prediction_ml=10.0, extra_ml=0.0):
    return OrganScores(organ, reference_ml, prediction_ml, extra_ml, dsc=dsc, hd95_mm=hd95)


def cohort(system, dscs, hd95s=None):
    """Cases × organs of DSC and HD95."""
    hd95s = np.full(np.shape(dscs), 3.0) if hd95s is None else hd95s
    cases = []
    for n, (some, others) in enumerate(zip(dscs, hd95s, strict=True), start=1):
        rows = tuple(row(organ, float(d), float(h)) for organ, d, h in zip(ORGANS, some, others, strict=True))
        cases.append((f"case_{n:02d}", Scores(rows, 2.0, DIAGONAL_MM)))
    return Cohort(system, tuple(cases))


def random_cohort(system, seed, *, better=0.0, cases=12):
    rng = np.random.default_rng(seed)
    base = 0.7 + 0.05 * rng.standard_normal((cases, 3))
    shared = np.random.default_rng(0).normal(0, 0.1, (cases, 3))
    return cohort(system, base + shared + better, 4.0 + 0.5 * rng.standard_normal((cases, 3)) - 10 * better)


def missed(organ):
    return row(organ, 0.0, NAN, prediction_ml=0.0)


def test_means_count_missed_and_unscored_organs_apart():
    rows = (row("Brainstem", 0.8, 2.0), missed("Lips"), row("Parotid_L", NAN, NAN, reference_ml=0.0, extra_ml=4.0))
    cases = Cohort("A", (("case_01", Scores(rows, 2.0, DIAGONAL_MM)),))
    mean = cases.mean()
    assert mean["dsc"] == pytest.approx(0.4)
    assert (mean["hd95_mm"], mean["hd95_penalised_mm"]) == (2.0, pytest.approx((2.0 + DIAGONAL_MM) / 2))
    assert (mean["organs_scored"], mean["organs_missed"], mean["false_positive_ml"]) == (2, 1, 4.0)
    assert cases.organs == ("Brainstem", "Lips")
    assert cases.penalised("hd95_mm")[("case_01", "Lips")] == DIAGONAL_MM
    assert cases.penalised("dsc")[("case_01", "Lips")] == 0.0


def test_the_worst_list_names_each_organ_once_and_missed_ones_first():
    cases = Cohort(
        "A",
        (
            ("case_01", Scores((row("Brainstem", 0.9), row("Lips", 0.2), row("Parotid_L", 0.5)), 2.0, 1.0)),
            ("case_02", Scores((row("Brainstem", 0.8), row("Lips", 0.1), missed("Parotid_L")), 2.0, 1.0)),
        ),
    )
    named = [(case, scores.organ) for case, scores in cases.worst()]
    assert named == [("case_02", "Parotid_L"), ("case_02", "Lips"), ("case_02", "Brainstem")]
    assert len(cases.worst(count=2)) == 2


def test_the_csv_has_a_row_per_case_and_organ_and_empty_cells_for_no_value():
    rows = list(csv.DictReader(io.StringIO(to_csv([cohort("A", [[0.9, 0.8, 0.7]]), cohort("B", [[0.6, 0.5, 0.4]])]))))
    assert [(r["system"], r["organ"], r["dsc"]) for r in rows][3] == ("B", "Brainstem", "0.6")
    assert len(rows) == 6
    assert rows[0]["centroid_shift_mm"] == ""


def test_the_json_of_a_cohort_has_means_per_organ_and_every_case():
    plain = to_plain(cohort("A", [[0.9, 0.8, 0.7], [0.7, 0.6, 0.5]]))
    assert plain["organs"]["Brainstem"]["dsc"] == pytest.approx(0.8)
    assert plain["mean"]["dsc"] == pytest.approx(0.7)
    assert set(plain["cases"]) == {"case_01", "case_02"}
    assert plain["mean"]["volume_error"] is None


def test_paired_tests_are_scipys_on_the_shared_cases():
    first, second = random_cohort("A", 1, better=0.03), random_cohort("B", 2)
    overall, *per_organ = paired_tests(first, second, "dsc")
    mine = np.array([[scores[organ].dsc for organ in ORGANS] for _, scores in first.cases])
    theirs = np.array([[scores[organ].dsc for organ in ORGANS] for _, scores in second.cases])
    difference = (mine - theirs).mean(axis=1)
    assert (overall.organ, overall.cases) == ("all", 12)
    assert overall.difference == pytest.approx(difference.mean())
    assert overall.p == pytest.approx(stats.wilcoxon(difference, method="exact").pvalue)
    assert overall.low < overall.difference < overall.high
    assert [test.organ for test in per_organ] == ["Brainstem", "Lips", "Parotid_L"]
    by_organ = {test.organ: test for test in per_organ}
    assert by_organ["Brainstem"].p == pytest.approx(stats.wilcoxon((mine - theirs)[:, 0], method="exact").pvalue)


def test_holm_multiplies_the_smallest_p_most_and_never_reorders():
    first, second = random_cohort("A", 1, better=0.05), random_cohort("B", 2)
    _, *tests = paired_tests(first, second, "dsc")
    tests.sort(key=lambda test: test.p)
    assert tests[0].p_holm == pytest.approx(min(1.0, 3 * tests[0].p))
    assert [test.p_holm for test in tests] == sorted(test.p_holm for test in tests)
    assert all(test.p_holm >= test.p for test in tests)


def test_equal_systems_do_not_differ():
    first = random_cohort("A", 1)
    assert all(test.p == 1.0 and test.difference == 0.0 for test in paired_tests(first, first, "dsc"))


def test_systems_without_a_common_case_are_refused():
    other = Cohort("B", (("case_99", Scores((row("Brainstem", 0.5),), 2.0, 1.0)),))
    with pytest.raises(InputError, match="share no scored organ"):
        paired_tests(random_cohort("A", 1), other, "dsc")


def test_a_missed_organ_counts_in_the_comparison():
    whole = Cohort("A", tuple((f"case_{n}", Scores((row("Lips", 0.5 + n / 100),), 2.0, 300.0)) for n in range(6)))
    none = Cohort("B", tuple((f"case_{n}", Scores((missed("Lips"),), 2.0, 300.0)) for n in range(6)))
    overall, _ = paired_tests(whole, none, "hd95_mm")
    assert overall.difference == pytest.approx(3.0 - 300.0)


def test_the_bootstrap_interval_covers_the_mean_of_a_normal_sample_about_95_times_in_100():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.normal(1.0, 2.0, 40).tolist(), rng)
        hits += low <= 1.0 <= high
    assert 180 <= hits <= 198
    assert np.isnan(bootstrap_interval([0.3], rng)).all()


def test_bland_altman_limits_are_the_bias_and_its_spread():
    bias, low, high = bland_altman([11.0, 13.0, 15.0], [10.0, 10.0, 10.0])
    assert (bias, low, high) == pytest.approx((3.0, 3.0 - 1.96 * 2.0, 3.0 + 1.96 * 2.0))
    assert np.isnan(bland_altman([11.0], [10.0])[1])
    assert np.isnan(bland_altman([], [])).all()


def test_the_ranking_counts_the_systems_that_one_beats_significantly():
    best, middle, worst = (
        random_cohort(name, seed, better=better)
        for seed, (name, better) in enumerate([("best", 0.2), ("middle", 0.1), ("worst", 0.0)])
    )
    ranks = challenge_ranking([worst, best, middle])
    assert [(rank.system, rank.place, rank.significance["dsc"]) for rank in ranks] == [
        ("best", 1, 2), ("middle", 2, 1), ("worst", 3, 0),
    ]  # fmt: skip


def test_systems_that_do_not_differ_significantly_share_ranks_and_are_ordered_by_their_means():
    first = cohort("first", [[0.80, 0.81, 0.79]] * 2)
    second = cohort("second", [[0.81, 0.80, 0.80]] * 2)
    ranks = {rank.system: rank for rank in challenge_ranking([first, second])}
    assert ranks["first"].metric_ranks == ranks["second"].metric_ranks == {"dsc": 1, "hd95_mm": 1}
    assert (ranks["second"].place, ranks["first"].place) == (1, 2)


def test_comparisons_are_plain_values():
    import json

    plain = comparison_to_plain([random_cohort("A", 1), random_cohort("B", 2)])
    json.dumps(plain, allow_nan=False)
    assert {test["metric"] for test in plain["tests"]} == {"dsc", "hd95_mm"}
    assert len(plain["ranking"]) == 2


def test_the_ceiling_comes_from_an_evaluation_of_two_observers(tmp_path):
    (tmp_path / "observers.json").write_text('{"organs": {"Lips": {"dsc": 0.55}, "Glottis": {"dsc": null}}}')
    assert read_ceiling(tmp_path / "observers.json") == {"Lips": 0.55}
    assert PUBLISHED_DSC["Parotid_R"] == 0.9
    for text in ("[]", "{", '{"organs": 3}', '{"organs": {"Lips": 3}}'):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(UnreadableFile, match=r"broken\.json is no JSON"):
            read_ceiling(tmp_path / "broken.json")
    with pytest.raises(UnreadableFile, match="check the path"):
        read_ceiling(tmp_path / "absent.json")
