"""`hnseg-train`: from a configuration to a model bundle."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hnseg.errors import HNSegError

if TYPE_CHECKING:
    from hnseg_training.config import TrainConfig


def main(argv: list[str] | None = None) -> int:
    """Entry point; exit codes as in the command line contract."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except HNSegError as error:
        sys.stderr.write(f"hnseg-train: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; the last checkpoint is kept, go on with `hnseg-train resume`.\n")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hnseg-train", description="Train, validate, compare and export segmentation networks."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    found = {}
    for name, run, text in (
        ("fit", _fit, "train from the start"),
        ("resume", _resume, "go on from the last checkpoint"),
        ("transfer", _transfer, "train from another network's weights, with layers frozen and organs changed"),
        ("validate", _validate, "score the network on unseen phantoms and held-out cases"),
        ("cross-validate", _cross_validate, "train and score every fold of the patients"),
        ("compare", _compare, "score several systems on the same cases and test their differences"),
        ("export", _export, "write the network as a model bundle"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        several = "+" if name == "compare" else None
        command.add_argument(
            "--config", type=Path, nargs=several, required=True, help="YAML file, see HNSegTraining/configs"
        )
        command.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs (default: %(default)s)")
        command.add_argument("--smoke", action="store_true", help="a few steps on small data, to see that it runs")
        command.add_argument("--steps", type=int, help="train for this many steps instead of the configuration's")
        command.set_defaults(run=run)
        found[name] = command
    found["export"].add_argument(
        "-o", "--output", type=Path, help="bundle folder (default: bundle in the run's folder)"
    )
    found["export"].add_argument("--scores", type=Path, help="JSON of `validate`, for the model card")
    for name in ("export", "validate"):
        found[name].add_argument(
            "--fine", type=Path, nargs="+", default=[], help="YAML files of second looks, trained too, for the bundle"
        )
    found["validate"].add_argument("--model", help="bundle to score (default: the run's best checkpoint)")
    found["validate"].add_argument("--cases", type=int, help="at most this many cases a cohort")
    found["validate"].add_argument(
        "--json",
        type=Path,
        help="scores (default: the run's scores.json; with --model, --fine or --cases its scores-other.json)",
    )
    found["cross-validate"].add_argument("--folds", type=int, default=5, help="number of folds (default: %(default)s)")
    found["cross-validate"].add_argument(
        "--keep-start", action="store_true", help="start_from learnt from none of these patients: start each fold there"
    )
    found["compare"].add_argument(
        "-o", "--output", type=Path, help="folder for pages and tables (default: RUNS/comparison)"
    )
    return parser


def _fit(arguments: argparse.Namespace) -> int:
    from hnseg_training.fit import fit

    config = _config(arguments)
    checkpoint = fit(config, arguments.runs / config.name, on_progress=_say)
    sys.stdout.write(f"{checkpoint}\n")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    from hnseg_training.fit import fit

    config = _config(arguments)
    checkpoint = fit(config, arguments.runs / config.name, on_progress=_say, resume=True)
    sys.stdout.write(f"{checkpoint}\n")
    return 0


def _transfer(arguments: argparse.Namespace) -> int:
    from hnseg_training.systems import transfer

    checkpoint = transfer(_config(arguments), arguments.runs, smoke=arguments.smoke, on_progress=_say)
    sys.stdout.write(f"{checkpoint}\n")
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    from hnseg.models.bundle import open_bundle
    from hnseg_training.export import export
    from hnseg_training.run_folder import SCORES, identity
    from hnseg_training.validate import validate

    config = _config(arguments)
    run = arguments.runs / config.name
    fine = _fine(arguments)
    bundle = open_bundle(arguments.model) if arguments.model else export(config, run, run / "bundle", fine=fine)
    own = not (arguments.model or fine or arguments.cases)
    output = arguments.json or run / (SCORES if own else "scores-other.json")
    of = identity(config, run) if own else ""
    validate(bundle, config.validation, output=output, cases=arguments.cases, on_progress=_say, of=of)
    return 0


def _cross_validate(arguments: argparse.Namespace) -> int:
    from hnseg_training.systems import cross_validate

    config, folds = _config(arguments), arguments.folds
    if arguments.smoke:  # the fewest: in each of two folds one patient to train with and one to choose by
        config, folds = replace(config, cohorts=tuple(replace(cohort, cases=4) for cohort in config.cohorts)), 2
    text = cross_validate(config, arguments.runs, folds=folds, keep_start=arguments.keep_start, on_progress=_say)
    sys.stdout.write(text)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from hnseg_training.systems import compare

    configs = [_read(path, arguments) for path in arguments.config]
    output = arguments.output or arguments.runs / "comparison"
    sys.stdout.write(compare(configs, arguments.runs, output, on_progress=_say))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from hnseg_training.export import export

    config = _config(arguments)
    run = arguments.runs / config.name
    output = arguments.output or run / "bundle"
    bundle = export(config, run, output, fine=_fine(arguments), scores=arguments.scores)
    sys.stdout.write(f"{bundle.folder}\n")
    return 0


def _fine(arguments: argparse.Namespace) -> list[tuple[TrainConfig, Path]]:
    configs = [_read(path, arguments) for path in arguments.fine]
    return [(config, arguments.runs / config.name) for config in configs]


def _config(arguments: argparse.Namespace) -> TrainConfig:
    return _read(arguments.config, arguments)


def _read(path: Path, arguments: argparse.Namespace) -> TrainConfig:
    from hnseg_training.config import load_config, smoke, with_steps

    config = load_config(path)
    config = smoke(config) if arguments.smoke else config
    return with_steps(config, arguments.steps) if arguments.steps is not None else config


def _say(fraction: float, text: str) -> None:
    sys.stderr.write(f"{fraction:4.0%} {text}\n")
