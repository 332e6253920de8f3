"""Configurations: every shipped one is readable, and mistakes are named."""

from pathlib import Path

import pytest

from hnseg.errors import ConfigError, InputError
from hnseg_training.cases import prepare
from hnseg_training.cli import main
from hnseg_training.config import (
    CohortConfig,
    NetworkConfig,
    PatchConfig,
    TrainConfig,
    load_config,
    smoke,
    with_steps,
)
from hnseg_training.module import SegmentationModule

CONFIGS = sorted((Path(__file__).parents[2] / "HNSegTraining" / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_understood(path):
    config = load_config(path)
    assert config.name
    assert config.title


def test_there_are_configurations():
    assert CONFIGS


def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("name: x\noptimisation: {learning_rat: 0.1}\n")
    with pytest.raises(ConfigError, match="'learning_rat'; did you mean 'learning_rate'"):
        load_config(file)


def test_an_ill_typed_value_is_refused(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("name: x\noptimisation: {steps: many}\n")
    with pytest.raises(ConfigError, match="whole number, got 'many'"):
        load_config(file)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{elastic_probability: 0.6, grid_probability: 0.5}", "at most 1 together, got 0.6 and 0.5"),
        ("{grid_limit: 1.0}", "it would fold"),
    ],
)
def test_bends_that_cannot_be_drawn_are_refused(settings, said, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(f"name: x\naugmentation: {settings}\n")
    with pytest.raises(ConfigError, match=said):
        load_config(file)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimisation: {batch_size: 0}", "batch_size needs values of 1 or more, got 0"),
        ("optimisation: {steps: -3}", "steps needs values of 1 or more, got -3"),
        ("optimisation: {learning_rate: .nan}", "learning_rate needs values of 0 or more, got nan"),
        ("optimisation: {ema_decay: 1.5}", "ema_decay needs values from 0 to 1, got 1.5"),
        ("patch: {size_kji: [0, 7, 7]}", r"size_kji needs values of 1 or more, got \(0, 7, 7\)"),
        ("patch: {predict_kji: [8, 0, 8]}", "predict_kji needs values of 1 or more"),
        ("patch: {organ_share: 3.0}", "organ_share needs values from 0 to 1, got 3"),
        ("augmentation: {rotation_deg: .nan}", "rotation_deg needs values of 0 or more, got nan"),
        ("augmentation: {mr_dropout: 1.2}", "mr_dropout needs values from 0 to 1, got 1.2"),
        ("augmentation: {elastic_knots_mm: 0}", "elastic_knots_mm needs values above 0"),
        ("cohorts: []", "name one or more cohorts"),
        ("cohorts: [{cases: 0}]", "cases needs values of 1 or more, got 0"),
        ("cohorts: [{share: -1}]", "share needs values above 0, got -1"),
        ("cohorts: [{fold: [5, 5]}]", r"got \(5, 5\); the first is \(0, 5\)"),
        ("cohorts: [{slice_mm: [3, 2]}]", "slice_mm needs the smaller number first"),
        ("loss: {terms: {}}", "A loss needs terms, got none"),
        ("loss: {terms: {focal: -1}}", "weights need values of 0 or more"),
        ("seed: -1", "seed needs values from 0 to"),
        ("network: {arguments: {in_channels: 3}}", "in_channels follow from preprocess and organs; leave them out"),
        ("optimisation: {learning_rate: 1e-4}", "got '1e-4', which YAML takes for text; write 1.0e-4"),
        ("optimisation: {learning_rate: 2.5e3}", r"write 2\.5e\+3"),
        ("seed: 1\nseed: 2", "'seed' is set twice"),
        ("patch: {jitter: 0.1, jitter: 0.2}", "'jitter' is set twice"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_trained_with_are_refused(text, words, tmp_path):
    (tmp_path / "run.yaml").write_text(f"name: x\n{text}\n")
    with pytest.raises(ConfigError, match=words):
        load_config(tmp_path / "run.yaml")


@pytest.mark.parametrize("name", ["../../y", "a/b", "", "..", r"a\b"])
def test_a_name_is_that_of_a_folder_in_the_runs(name):
    with pytest.raises(ConfigError, match="name is that of the run's folder"):
        TrainConfig(name=name)


def test_another_encoding_is_one_sentence(tmp_path):
    (tmp_path / "run.yaml").write_bytes("name: x\ntitle: Prüfung\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"cannot be read .*utf-8.*; give a YAML file"):
        load_config(tmp_path / "run.yaml")


def test_no_steps_are_refused_as_an_option_too(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("name: x\n")
    assert main(["fit", "--config", str(tmp_path / "run.yaml"), "--runs", str(tmp_path), "--steps", "0"]) == 1
    assert "steps needs values of 1 or more, got 0" in capsys.readouterr().err


@pytest.mark.parametrize("patch", [PatchConfig((32, 32, 30)), PatchConfig((32, 32, 32), (32, 36, 32))])
def test_a_patch_that_the_network_cannot_halve_is_refused_before_training(patch):
    with pytest.raises(ConfigError, match=r"multiples of \(8, 8, 8\), got \(32, 3.*; correct size_kji"):
        SegmentationModule(TrainConfig(name="x", patch=patch, network=NetworkConfig(arguments={"filters": [4, 8, 8]})))


def test_a_fold_that_leaves_nobody_to_train_on_is_refused(tmp_path):
    config = TrainConfig(name="x", cohorts=(CohortConfig(cases=1, fold=(0, 1)),))
    with pytest.raises(InputError, match="phantom has no training case in fold 0 of 1"):
        prepare(config, tmp_path, on_progress=lambda *_: None)


def test_smoke_is_small_and_named_apart():
    config = load_config(CONFIGS[0])
    small = smoke(with_steps(config, 500))
    assert small.optimisation.steps == 4
    assert small.name != config.name
