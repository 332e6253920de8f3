"""What the commands do with whole systems: train, export, validate; in folds; against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hnseg.errors import ConfigError, InputError
from hnseg.evaluation.cohort import Cohort
from hnseg.models.bundle import open_bundle
from hnseg_training.comparison import compare_systems
from hnseg_training.config import TrainConfig
from hnseg_training.curves import CURVES
from hnseg_training.export import export
from hnseg_training.fit import fit
from hnseg_training.run_folder import SCORES, check_training, identity, started
from hnseg_training.scores_file import read_about, read_refused, read_scores, write_scores
from hnseg_training.sources import case_loaders
from hnseg_training.validate import cases_to_score, validate
from hnseg_training.weights import best_checkpoint

__all__ = ["SCORES", "compare", "cross_validate", "folds_of", "pool", "scored", "transfer"]

Progress = Callable[[float, str], None]


def scored(config: TrainConfig, runs: Path, *, on_progress: Progress) -> dict[str, Cohort]:
    """The scores of a system by title; what is missing of its training and validation is done first.

    A training that came to its end has left its curves; an interrupted one is gone on with. Raises ``ConfigError`` if
    the run was trained with other settings.
    """
    run = runs / config.name
    if started(run):
        check_training(config, run)
    if not (run / CURVES).exists():
        fit(config, run, on_progress=on_progress, resume=started(run), transfer=bool(config.start_from))
    if not _is_scored(config, run):
        export(config, run, run / "bundle")
        bundle, of = open_bundle(run / "bundle"), identity(config, run)
        validate(bundle, config.validation, output=run / SCORES, on_progress=on_progress, of=of)
    return read_scores(run / SCORES, system=config.name)


def _is_scored(config: TrainConfig, run: Path) -> bool:
    """Whether the run's scores are of its network on all validation cases.

    Files from before scores kept a digest count if they name the run, are younger than its checkpoint and have every
    case.
    """
    scores = run / SCORES
    if not scores.exists():
        return False
    about = read_about(scores)
    if about.of is not None:
        return about.complete and about.of == identity(config, run)
    cases = sum(len(case_loaders(cohort)) for cohort in config.validation)
    younger = scores.stat().st_mtime >= best_checkpoint(run).stat().st_mtime
    return about.model == config.name and younger and len(about.cases) == cases


def compare(configs: Sequence[TrainConfig], runs: Path, output: Path, *, on_progress: Progress) -> str:
    """Bring every system to scores and compare them with the first; returns Markdown tables.

    ``InputError`` before any training if one has no case to be scored on.
    """
    for config in configs:
        if not (runs / config.name / SCORES).exists():
            cases_to_score(config.validation)
    return compare_systems([scored(config, runs, on_progress=on_progress) for config in configs], output)


def folds_of(config: TrainConfig, folds: int) -> list[TrainConfig]:
    """The same system for every fold: it is trained without that fold's patients and scored on them alone.

    A validation loss is that of an inner fold of the other patients: those who are scored choose nothing.
    ``InputError`` if a fold leaves nobody to train, to choose by or to score.
    """
    if folds < 2:
        raise ConfigError(f"Cross-validation needs at least 2 folds, got {folds}; 5 are usual.")
    return [_fold(config, fold, folds) for fold in range(folds)]


def _fold(config: TrainConfig, fold: int, folds: int) -> TrainConfig:
    inner = (0, folds) if config.optimisation.validate_every else (0, 0)
    cohorts = [replace(cohort, fold=(fold, folds), inner_fold=inner) for cohort in config.cohorts]
    training = tuple(replace(cohort, part="training") for cohort in cohorts)
    selection = tuple(part for cohort in cohorts if case_loaders(part := replace(cohort, part="selection")))
    held_out = tuple(replace(cohort, part="held-out") for cohort in cohorts)
    for purpose, enough in (
        ("train with in some cohort", all(map(case_loaders, training))),
        ("choose the checkpoint by", not config.optimisation.validate_every or selection),
        ("score", any(map(case_loaders, held_out))),
    ):
        if not enough:
            raise InputError(
                f"Fold {fold + 1} of {folds} leaves no patient to {purpose}; give other --folds or more cases."
            )
    return replace(config, name=f"{config.name}-fold{fold}", cohorts=training, selection=selection, validation=held_out)


def cross_validate(
    config: TrainConfig, runs: Path, *, folds: int, keep_start: bool = False, on_progress: Progress
) -> str:
    """Train and validate each fold, pool their cases; writes scores and a page, returns Markdown tables.

    ``keep_start``: the weights of ``start_from`` learnt from none of these patients; nothing here can tell, so that
    ``ConfigError`` is raised without it.
    """
    if config.start_from and not keep_start:
        raise ConfigError(
            f"{config.name} starts from {config.start_from}, which may have learnt from the patients of every fold; "
            "empty start_from, or give --keep-start if it saw none of them."
        )
    output = runs / f"{config.name}-cross-validation"
    configs = folds_of(config, folds)
    parts = [scored(fold, runs, on_progress=on_progress) for fold in configs]
    refused = [sentence for fold in configs for sentence in read_refused(runs / fold.name / SCORES)]
    pooled = pool(config.name, parts)
    output.mkdir(parents=True, exist_ok=True)
    write_scores(output / SCORES, pooled, model=config.name, version=config.version, failed=refused, complete=True)
    return compare_systems([pooled], output)


def pool(system: str, parts: Sequence[Mapping[str, Cohort]]) -> dict[str, Cohort]:
    """The folds' cases together, by title."""
    titles = dict.fromkeys(title for part in parts for title in part)
    return {
        title: Cohort(
            system,
            tuple(case for part in parts if title in part for case in part[title].cases),
            tuple(note for part in parts if title in part for note in part[title].notes),
        )
        for title in titles
    }


def transfer(config: TrainConfig, runs: Path, *, smoke: bool = False, on_progress: Progress) -> Path:
    """Train from ``start_from``'s weights, whose layers for other organs start anew; returns the last checkpoint.

    A smoke run first trains what it starts from: the same network for all organs.
    """
    if smoke:
        source = replace(config, name=f"{config.name}-source", organs=(), freeze=0.0)
        fit(source, runs / source.name, on_progress=on_progress)
        config = replace(config, start_from=str(runs / source.name))
    if not config.start_from:
        raise ConfigError(f"{config.name} names nothing to start from; set start_from to a run or a bundle.")
    return fit(config, runs / config.name, on_progress=on_progress, transfer=True)
