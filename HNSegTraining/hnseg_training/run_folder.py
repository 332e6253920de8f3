"""What ties the files in a run's folder to one configuration."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hnseg.errors import ConfigError, OutputError
from hnseg.image.files import atomic_write
from hnseg.models.bundle import file_sha256
from hnseg.plain import to_plain
from hnseg_training.config import TrainConfig, load_config
from hnseg_training.curves import CURVES
from hnseg_training.weights import BEST, CHECKPOINT, CHECKPOINTS, CONFIG, best_checkpoint

SCORES = "scores.json"
_OF_ONE_TRAINING = (CHECKPOINTS, "log", "board", "organ_patches.csv", SCORES, "scores-worst", CURVES)


def begin(config: TrainConfig, folder: Path, *, resume: bool) -> None:
    """Write the configuration; a training from the start removes what an earlier one left, but for prepared cases."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The run cannot be written to {folder} ({error.strerror}); give other --runs.") from error
    for name in (CURVES,) if resume else _OF_ONE_TRAINING:
        _remove(folder / name)
    if not config.optimisation.validate_every:
        (folder / CHECKPOINTS / BEST).unlink(missing_ok=True)  # resumed without the loss that it was the best by
    with atomic_write(folder / CONFIG) as partial:
        partial.write_text(yaml.safe_dump(to_plain(config), sort_keys=False))


def started(run: Path) -> bool:
    """Whether there is a checkpoint to go on from."""
    return (run / CHECKPOINTS / CHECKPOINT).exists()


def check_network(config: TrainConfig, run: Path) -> None:
    """``ConfigError`` unless the run's network has the configuration's architecture, channels and preprocessing."""
    _check(_network(config), _network(load_config(run / CONFIG)), run)


def check_training(config: TrainConfig, run: Path) -> None:
    """``ConfigError`` unless the run was trained as the configuration says."""
    _check(_training(config), _training(load_config(run / CONFIG)), run)


def identity(config: TrainConfig, run: Path) -> str:
    """A digest of what scores depend on: the weights that are exported, the configuration, the validation cases."""
    told = {**_training(config), "validation": _cohorts(config.validation)}
    parts = json.dumps(told, sort_keys=True) + file_sha256(best_checkpoint(run))
    return hashlib.sha256(parts.encode()).hexdigest()


def _network(config: TrainConfig) -> dict[str, Any]:
    network = {"name": config.network.name, "arguments": to_plain(config.network.arguments)}
    return {"organs": list(config.labels[1:]), "network": network, "preprocess": to_plain(config.preprocess)}


def _training(config: TrainConfig) -> dict[str, Any]:
    """All but titles, and the validation where training does not look at it; paths as places."""
    told = to_plain(config) | _network(config)
    told["cohorts"] = _cohorts(config.cohorts)
    told["validation"] = _cohorts(config.validation) if config.optimisation.validate_every else []
    told["start_from"] = _place(config.start_from)
    return {key: value for key, value in told.items() if key not in ("name", "title", "version")}


def _cohorts(cohorts: Any) -> list[dict[str, Any]]:
    return [{**to_plain(cohort), "path": _place(cohort.path)} for cohort in cohorts]


def _place(path: str) -> str:
    return path and str(Path(path).resolve())


def _check(wanted: Mapping[str, Any], there: Mapping[str, Any], run: Path) -> None:
    differing = list(_differences(wanted, there))
    if differing:
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise ConfigError(
            f"{run} was trained with other settings than the configuration's ({differing[0]}{more}); "
            f"give the one in {run / CONFIG}, or another name and `hnseg-train fit`."
        )


def _differences(wanted: Any, there: Any, where: str = "") -> Iterator[str]:
    if isinstance(wanted, Mapping) and isinstance(there, Mapping):
        for key in dict.fromkeys((*wanted, *there)):
            yield from _differences(wanted.get(key), there.get(key), f"{where}.{key}" if where else key)
    elif wanted != there:
        yield f"{where}: {_short(there)}, not {_short(wanted)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 80 else f"{text[:77]}…"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
