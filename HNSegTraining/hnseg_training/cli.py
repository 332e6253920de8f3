"""`hnseg-train`: from a configuration to a model bundle."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hnseg.errors import HNSegError


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
    parser = argparse.ArgumentParser(prog="hnseg-train", description="Train, resume and export segmentation networks.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("fit", _fit, "train from the start"),
        ("resume", _resume, "go on from the last checkpoint"),
        ("validate", _validate, "score the network on unseen phantoms and held-out cases"),
        ("export", _export, "write the network as a model bundle"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", type=Path, required=True, help="YAML file, see HNSegTraining/configs")
        command.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs (default: %(default)s)")
        command.set_defaults(run=run)
        if name in ("fit", "resume"):
            command.add_argument("--smoke", action="store_true", help="a few steps on small data, to see that it runs")
            command.add_argument("--steps", type=int, help="train for this many steps instead of the configuration's")
        if name == "export":
            command.add_argument("-o", "--output", type=Path, required=True, help="bundle folder to write")
            command.add_argument("--scores", type=Path, help="JSON of `validate`, for the model card")
        if name == "validate":
            command.add_argument("--model", help="bundle to score (default: the run's last checkpoint)")
            command.add_argument("--cases", type=int, help="at most this many cases a cohort")
            command.add_argument("--json", type=Path, required=True, help="write the scores here")
    return parser


def _fit(arguments: argparse.Namespace) -> int:
    return _train(arguments, resume=False)


def _resume(arguments: argparse.Namespace) -> int:
    return _train(arguments, resume=True)


def _train(arguments: argparse.Namespace, *, resume: bool) -> int:
    from hnseg_training.config import load_config, smoke, with_steps
    from hnseg_training.fit import fit

    config = load_config(arguments.config)
    config = smoke(config) if arguments.smoke else config
    config = with_steps(config, arguments.steps) if arguments.steps else config
    checkpoint = fit(config, arguments.runs / config.name, on_progress=_say, resume=resume)
    sys.stdout.write(f"{checkpoint}\n")
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    from hnseg.models.bundle import open_bundle
    from hnseg_training.config import load_config
    from hnseg_training.export import export
    from hnseg_training.validate import validate

    config = load_config(arguments.config)
    run = arguments.runs / config.name
    bundle = open_bundle(arguments.model) if arguments.model else export(config, run, run / "bundle")
    validate(bundle, config.validation, output=arguments.json, cases=arguments.cases, on_progress=_say)
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from hnseg_training.config import load_config
    from hnseg_training.export import export

    config = load_config(arguments.config)
    export(config, arguments.runs / config.name, arguments.output, scores=arguments.scores)
    sys.stdout.write(f"{arguments.output}\n")
    return 0


def _say(fraction: float, text: str) -> None:
    sys.stderr.write(f"{fraction:4.0%} {text}\n")
