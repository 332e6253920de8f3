"""Scores as files, systems against each other, folds."""

import json
from dataclasses import replace

import pytest
import yaml

from hnseg.errors import ConfigError, InputError, UnreadableFile
from hnseg.evaluation.cohort import Cohort
from hnseg.evaluation.scores import OrganScores, Scores
from hnseg.plain import to_plain
from hnseg_training import systems
from hnseg_training.cli import main
from hnseg_training.comparison import compare_systems
from hnseg_training.config import CohortConfig, OptimisationConfig, TrainConfig, with_steps
from hnseg_training.data import PatchData
from hnseg_training.run_folder import identity
from hnseg_training.scores_file import read_refused, read_scores, write_scores
from hnseg_training.sources import case_loaders
from hnseg_training.systems import cross_validate, folds_of, pool

TITLE = "phantom, CT"


def silent(_fraction, _text):
    pass


def row(organ, dsc, *, missed=False):
    nan = float("nan")
    return OrganScores(
        organ,
        reference_ml=10.0,
        prediction_ml=0.0 if missed else 9.0,
        false_positive_ml=1.0,
        dsc=0.0 if missed else dsc,
        surface_dsc=0.0 if missed else dsc,
        hd95_mm=nan if missed else 30 * (1 - dsc),
        centroid_shift_lps_mm=(nan, nan, nan) if missed else (0.5, -1.0, 2.0),
    )


def cohort(system, values, *, miss=(), start=0):
    cases = [
        (
            f"case {n}",
            Scores((row("Brainstem", dsc), row("Pituitary", dsc - 0.2, missed=n in miss)), 2.0, 400.0, ("w",)),
        )
        for n, dsc in enumerate(values, start)
    ]
    return Cohort(system, tuple(cases))


def refusing(run, sentences=()):
    """A run whose scores file holds nothing but refusals."""
    run.mkdir()
    write_scores(run / "scores.json", {}, model="x", version="1", failed=sentences)


BETTER, WORSE = [0.8, 0.82, 0.84, 0.86, 0.9, 0.91], [0.7, 0.71, 0.75, 0.74, 0.8, 0.83]


def trained(run, config):
    """The folder of a run that came to its end, as far as scores ask for it."""
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    (run / "curves.svg").write_text("<svg/>")
    (run / "config.yaml").write_text(yaml.safe_dump(to_plain(config)))
    return run


def validated(_bundle, _cohorts, *, output, of, on_progress):
    """In place of ``validate``."""
    found = {TITLE: cohort("x", BETTER)}
    write_scores(output, found, model="x", version="1", failed=[], complete=True, of=of)
    return True


def test_scores_survive_the_file(tmp_path):
    before = {TITLE: replace(cohort("ours", BETTER, miss=(2,)), notes=(f"refused: case 9, {TITLE}: no body",))}
    failed = [f"case 9, {TITLE}: no body", f"case 9, {TITLE} + MR: no body"]
    write_scores(tmp_path / "scores.json", before, model="ours", version="1", failed=failed)
    text = (tmp_path / "scores.json").read_text()
    assert "NaN" not in text
    after = read_scores(tmp_path / "scores.json", system="ours")
    assert repr(after) == repr(before)
    document = json.loads(text)
    assert document["about"]["cases"][f"{TITLE}: DSC"] == 6
    assert document["tables"][f"{TITLE}: DSC"]["Brainstem"] == pytest.approx(sum(BETTER) / 6)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UnreadableFile, match="holds no scores"):
        read_scores(tmp_path / "x.json", system="x")


def test_a_better_system_is_first_and_its_difference_is_tested(tmp_path):
    first, second = cohort("plain", WORSE), cohort("residual", BETTER)
    text = compare_systems([{TITLE: first}, {TITLE: second}], tmp_path)
    plain, residual = ([cell.strip() for cell in line.split("|")] for line in text.splitlines() if "| 6 |" in line)
    assert residual[9] == "+0.100"
    assert float(residual[10]) == pytest.approx(2 / 2**6, rel=1e-2), "six differences of one sign: 2 / 2⁶"
    assert (plain[11], residual[11]) == ("2", "1")
    low, high = (float(value) for value in residual[5].split(" … "))
    assert low < sum(BETTER) / 6 - 0.1 < high, "the mean over both organs"
    page = (tmp_path / "phantom-ct.html").read_text()
    assert page.count("data:image/svg") >= 2
    assert json.loads((tmp_path / "phantom-ct.json").read_text())["ranking"][0]["system"] == "residual"


def cells(text, system):
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {system} |"))
    return [cell.strip() for cell in line.split("|")][1:-1]


def test_every_column_is_of_the_cases_and_structures_that_all_systems_have(tmp_path):
    """By hand: case 0 has one organ more than case 1, so that means over organs and over cases differ."""
    nobody = (
        "nothing drawn",
        Scores((replace(row("Brainstem", 0.0), reference_ml=0.0, dsc=float("nan")),), 2.0, 400.0),
    )
    only_first = ("case 2", Scores((row("Brainstem", 0.1),), 2.0, 400.0))

    def cases(more, *, miss=False):
        two = row("Brainstem", 0.6 + more), row("Pituitary", 0.4 + more, missed=miss)
        return ("case 0", Scores(two, 2.0, 400.0)), ("case 1", Scores((row("Brainstem", 0.9),), 2.0, 400.0))

    first = Cohort("first", (*cases(0.0, miss=True), nobody, only_first))
    extra = ("case 1", Scores((row("Brainstem", 0.9), row("Lips", 0.2)), 2.0, 400.0))
    second = Cohort("second", (cases(0.1)[0], extra, nobody), (f"refused: case 2, {TITLE}: no body",))
    text = compare_systems([{TITLE: first}, {TITLE: second}], tmp_path)
    assert cells(text, "first")[1:4] == ["2", "0", "0.600"], "(0.6 + 0) / 2 = 0.3; (0.3 + 0.9) / 2"
    assert cells(text, "second")[1:4] == ["2", "1", "0.750"], "(0.7 + 0.5) / 2 = 0.6; (0.6 + 0.9) / 2"
    assert cells(text, "second")[8] == "+0.150"
    assert cells(text, "first")[4] == "0.300 … 0.900", "an interval of two cases is between them"
    assert cells(text, "first")[6:8] == ["104.5", "1"], "(12 + 400 of the diagonal) / 2 = 206; (206 + 3) / 2"
    assert "refused: case 2" in (tmp_path / "phantom-ct.html").read_text()


def test_systems_without_a_common_case_are_refused(tmp_path):
    with pytest.raises(InputError, match="share no scored case of 'phantom, CT'"):
        compare_systems([{TITLE: cohort("x", BETTER)}, {TITLE: cohort("y", BETTER, start=6)}], tmp_path)


def test_systems_that_share_no_cohort_are_refused(tmp_path):
    with pytest.raises(InputError, match="different cohorts"):
        compare_systems([{"a": cohort("x", BETTER)}, {"b": cohort("y", BETTER)}], tmp_path)


def test_no_patient_is_trained_and_validated_in_the_same_fold():
    config = TrainConfig(name="x", cohorts=(CohortConfig(source="phantom", cases=5, seed=1),))
    held_out = []
    for fold in folds_of(config, 3):
        trained, unseen = (set(case_loaders(part[0])) for part in (fold.cohorts, fold.validation))
        assert not trained & unseen
        assert len(trained | unseen) == 5
        held_out += sorted(unseen)
    assert sorted(held_out) == [f"{seed:06d}" for seed in range(1, 6)], "each patient is unseen once"


def test_the_checkpoint_of_a_fold_is_chosen_by_patients_that_are_neither_trained_nor_scored(tmp_path):
    config = TrainConfig(
        name="x",
        cohorts=(CohortConfig(cases=6),),
        validation=(CohortConfig(cases=1, seed=9),),
        optimisation=OptimisationConfig(validate_every=10),
    )
    for fold in folds_of(config, 3):
        parts = (fold.cohorts, fold.selection, fold.validation)
        trained, chosen, scored = (set(case_loaders(part[0])) for part in parts)
        assert (len(trained), len(chosen), len(scored)) == (2, 2, 2)
        assert len(trained | chosen | scored) == 6
        assert PatchData(fold, tmp_path, done=0, on_progress=silent).unseen.cohorts == fold.selection
    assert folds_of(replace(config, optimisation=OptimisationConfig()), 3)[0].selection == ()


@pytest.mark.parametrize(
    ("cases", "every", "lack"), [(3, 0, "Fold 4 of 5 leaves no patient to score"), (1, 0, "Fold 1 .* to train with"),
     (2, 1, "Fold 1 .* to train with")],
)  # fmt: skip
def test_folds_that_leave_nobody_are_refused_before_any_training(cases, every, lack, tmp_path, monkeypatch):
    monkeypatch.setattr(systems, "fit", lambda *_, **__: pytest.fail("trained"))
    cohorts = (CohortConfig(cases=cases),)
    config = TrainConfig(
        name="x", cohorts=cohorts, validation=cohorts, optimisation=OptimisationConfig(validate_every=every)
    )
    with pytest.raises(InputError, match=lack):
        cross_validate(config, tmp_path, folds=5, on_progress=silent)


def test_cross_validation_starts_from_nobody_s_weights_unless_told_that_they_saw_none_of_the_patients(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "x.yaml").write_text("name: x\nstart_from: runs/before\n")
    chosen = ["cross-validate", "--config", str(tmp_path / "x.yaml"), "--runs", str(tmp_path), "--folds", "2"]
    started = []

    def scored(config, *_, **__):
        started.append(config.start_from)
        refusing(tmp_path / config.name)
        return {TITLE: cohort(config.name, BETTER, start=10 * len(started))}

    monkeypatch.setattr(systems, "scored", scored)
    assert main(chosen) == 1
    assert "may have learnt from the patients of every fold; empty start_from" in capsys.readouterr().err
    assert not started
    assert main([*chosen, "--keep-start"]) == 0
    assert started == ["runs/before", "runs/before"]


def test_one_fold_is_refused():
    with pytest.raises(ConfigError, match="at least 2 folds, got 1"):
        folds_of(TrainConfig(name="x"), 1)


def test_folds_are_pooled_case_by_case(tmp_path, monkeypatch):
    parts = iter([{TITLE: cohort("x-fold0", BETTER[:3])}, {TITLE: cohort("x-fold1", BETTER[3:], start=3)}])
    monkeypatch.setattr(systems, "scored", lambda *_, **__: next(parts))
    for fold, refused in enumerate(([], ["case 9: no body"])):
        refusing(tmp_path / f"x-fold{fold}", refused)
    text = cross_validate(TrainConfig(name="x"), tmp_path, folds=2, on_progress=silent)
    assert "| x | 6 |" in text
    pooled = tmp_path / "x-cross-validation" / "scores.json"
    assert len(read_scores(pooled, system="x")[TITLE].cases) == 6
    assert read_refused(pooled) == ["case 9: no body"]


def test_two_cases_of_one_name_are_refused_instead_of_one_being_lost(tmp_path):
    twice = pool("x", [{TITLE: cohort("x", BETTER[:2])}, {TITLE: cohort("x", WORSE[:1], start=1)}])
    with pytest.raises(InputError, match="Two cases of 'phantom, CT' are called 'case 1'"):
        write_scores(tmp_path / "scores.json", twice, model="x", version="1", failed=[])
    assert not (tmp_path / "scores.json").exists()


def test_a_system_that_can_be_scored_on_nothing_is_refused_before_any_training(tmp_path, monkeypatch):
    monkeypatch.setattr(systems, "fit", lambda *_, **__: pytest.fail("trained"))
    good = TrainConfig(name="good", validation=(CohortConfig(cases=1),))
    for validation in ((), (CohortConfig(cases=3, fold=(3, 5), part="held-out"),)):
        bad = TrainConfig(name="bad", validation=validation)
        with pytest.raises(InputError, match="no case to score; name cohorts with cases under validation"):
            systems.compare([good, bad], tmp_path, tmp_path / "comparison", on_progress=silent)


def test_pooling_keeps_titles_apart():
    noted = replace(cohort("x", BETTER[:2]), notes=("refused: case 9",))
    pooled = pool("x", [{"a": noted}, {"a": cohort("x", BETTER[2:3]), "b": cohort("x", WORSE)}])
    assert {title: len(found.cases) for title, found in pooled.items()} == {"a": 3, "b": 6}
    assert pooled["a"].notes == ("refused: case 9",)


def test_trained_and_validated_systems_are_only_read(tmp_path, capsys):
    for name, values in (("one", WORSE), ("two", BETTER)):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\n")
        run = tmp_path / "runs" / name
        config = TrainConfig(name=name)
        trained(run, config)
        done = {"model": name, "version": "1", "failed": [], "complete": True, "of": identity(config, run)}
        write_scores(run / "scores.json", {TITLE: cohort(name, values)}, **done)
    configs = [str(tmp_path / "one.yaml"), str(tmp_path / "two.yaml")]
    assert main(["compare", "--config", *configs, "--runs", str(tmp_path / "runs")]) == 0
    assert "| two | 6 |" in capsys.readouterr().out
    assert (tmp_path / "runs" / "comparison" / "phantom-ct.html").exists()


def test_an_interrupted_training_is_gone_on_with(tmp_path, monkeypatch):
    config, resumed = TrainConfig(name="x"), []
    (trained(tmp_path / "x", config) / "curves.svg").unlink()
    monkeypatch.setattr(systems, "fit", lambda config, folder, *, resume, **_: resumed.append(resume))
    monkeypatch.setattr(systems, "export", lambda *_: None)
    monkeypatch.setattr(systems, "open_bundle", lambda _: None)
    monkeypatch.setattr(systems, "validate", validated)
    assert len(systems.scored(config, tmp_path, on_progress=silent)[TITLE].cases) == len(BETTER)
    assert resumed == [True]


@pytest.fixture
def scores_of(tmp_path, monkeypatch):
    """``scored`` of a run whose validation is imitated: the number of cases, and whether they were made anew."""
    made = []
    monkeypatch.setattr(systems, "export", lambda *_: None)
    monkeypatch.setattr(systems, "open_bundle", lambda _: None)
    monkeypatch.setattr(
        systems, "validate", lambda *arguments, **options: made.append(validated(*arguments, **options))
    )

    def run(config):
        made.clear()
        return len(systems.scored(config, tmp_path, on_progress=silent)[TITLE].cases), bool(made)

    return run


SIX = TrainConfig(name="x", validation=(CohortConfig(cases=6),))


@pytest.mark.parametrize(
    "change",
    [{"complete": False}, {"of": "another network's"}, {"of": ""}],
    ids=["killed", "stale", "of another model"],
)
def test_scores_that_are_not_all_the_network_s_are_made_anew(change, scores_of, tmp_path):
    run = trained(tmp_path / "x", SIX)
    about = {"model": "x", "version": "1", "failed": [], "complete": True, "of": identity(SIX, run)}
    write_scores(run / "scores.json", {TITLE: cohort("x", BETTER)}, **{**about, **change})
    assert scores_of(SIX) == (6, True)
    assert scores_of(SIX) == (6, False)


def test_scores_are_of_one_checkpoint_and_one_set_of_cases(scores_of, tmp_path):
    run = trained(tmp_path / "x", SIX)
    assert scores_of(SIX) == (6, True)
    (run / "checkpoints" / "last.ckpt").write_bytes(b"trained on")
    assert scores_of(SIX) == (6, True)
    assert scores_of(SIX) == (6, False)
    assert scores_of(replace(SIX, validation=(CohortConfig(cases=7),))) == (6, True)


@pytest.mark.parametrize(
    ("values", "model", "anew"), [(BETTER, "x", False), (BETTER[:5], "x", True), (BETTER, "y", True)]
)
def test_scores_of_earlier_versions_count_if_no_case_is_missing(values, model, anew, scores_of, tmp_path):
    scores = trained(tmp_path / "x", SIX) / "scores.json"
    write_scores(scores, {TITLE: cohort("x", values)}, model=model, version="1", failed=[])
    document = json.loads(scores.read_text())
    del document["about"]["complete"], document["about"]["of"]
    scores.write_text(json.dumps(document))
    assert scores_of(SIX) == (6, anew)


def test_a_run_that_was_trained_otherwise_is_refused_by_compare(scores_of, tmp_path):
    trained(tmp_path / "x", SIX)
    with pytest.raises(ConfigError, match=r"other settings .*\(optimisation\.steps: 2000, not 5000\)"):
        scores_of(with_steps(SIX, 5000))
    assert scores_of(replace(SIX, title="A better title"))[1]


def test_where_a_run_s_cohorts_lie_may_be_written_in_two_ways(scores_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = replace(SIX, cohorts=(CohortConfig(source="curated", path="cohort"),))
    trained(tmp_path / "x", told)
    cohorts = (CohortConfig(source="curated", path=str(tmp_path / "cohort")),)
    assert scores_of(replace(told, cohorts=cohorts))[0] == 6


@pytest.mark.parametrize(
    ("options", "file"),
    [([], "scores.json"), (["--cases", "1"], "scores-other.json"), (["--model", "m"], "scores-other.json")],
)
def test_only_the_run_s_own_scores_take_their_place(options, file, tmp_path, monkeypatch):
    run = trained(tmp_path / "runs" / "x", SIX)
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(to_plain(SIX)))
    seen = {}
    monkeypatch.setattr("hnseg_training.validate.validate", lambda *_, **given: seen.update(given))
    monkeypatch.setattr("hnseg_training.export.export", lambda *_, **__: None)
    monkeypatch.setattr("hnseg.models.bundle.open_bundle", lambda _: None)
    assert main(["validate", "--config", str(tmp_path / "x.yaml"), "--runs", str(tmp_path / "runs"), *options]) == 0
    assert seen["output"] == run / file
    assert seen["of"] == ("" if options else identity(SIX, run))


@pytest.mark.parametrize("command", ["fit", "resume", "transfer", "validate", "cross-validate", "compare", "export"])
def test_every_command_takes_a_configuration_and_refuses_an_unknown_key(command, tmp_path, capsys):
    (tmp_path / "x.yaml").write_text("name: x\npatch: {size: [1, 2, 3]}\n")
    assert main([command, "--config", str(tmp_path / "x.yaml"), "--smoke"]) == 1
    assert "has no setting 'size'; did you mean 'size_kji'?" in capsys.readouterr().err


def test_transfer_without_a_start_says_so(tmp_path, capsys):
    (tmp_path / "x.yaml").write_text("name: x\n")
    assert main(["transfer", "--config", str(tmp_path / "x.yaml"), "--runs", str(tmp_path)]) == 1
    assert "names nothing to start from" in capsys.readouterr().err
