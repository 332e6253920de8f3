"""Configurations: every shipped one is readable, and mistakes are named."""

from pathlib import Path

import pytest

from hnseg.errors import ConfigError
from hnseg_training.config import load_config, smoke, with_steps

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


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml")


def test_smoke_is_small_and_named_apart():
    config = load_config(CONFIGS[0])
    small = smoke(with_steps(config, 500))
    assert small.optimisation.steps == 4
    assert small.name != config.name
