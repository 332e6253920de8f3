"""From a configuration to a checkpoint that can be resumed and exported."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from hnseg.errors import ConfigError
from hnseg.plain import to_plain
from hnseg_training.cases import prepare
from hnseg_training.config import TrainConfig
from hnseg_training.module import SegmentationModule
from hnseg_training.patches import Patch, PatchDataset

CHECKPOINT = "last.ckpt"


def fit(config: TrainConfig, folder: Path, *, on_progress: Callable[[float, str], None], resume: bool = False) -> Path:
    """Train into ``folder`` (configuration, prepared cases, log, checkpoints); returns the last checkpoint.

    With ``resume`` training goes on from the last checkpoint: patches are drawn by number, so none is seen twice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_plain(config), sort_keys=False))
    cases = prepare(config, folder / "cases", on_progress=on_progress)
    checkpoint = folder / "checkpoints" / CHECKPOINT
    done = _steps_done(checkpoint) if resume else 0
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module = SegmentationModule(config)
    if config.start_from and not done:
        module.network.load_state_dict(starting_weights(Path(config.start_from)))
    if config.network.compile:
        module.network.compile()
    trainer = _trainer(config, folder)
    trainer.fit(module, _loader(config, cases, skip=done), ckpt_path=checkpoint if done else None, weights_only=True)
    return checkpoint


def starting_weights(source: Path) -> dict[str, Tensor]:
    """The network's weights in a run's last checkpoint (their running average) or in a bundle."""
    checkpoint, safetensors = source / "checkpoints" / CHECKPOINT, source / "models" / "model.safetensors"
    if checkpoint.exists():
        return averaged_weights(checkpoint)
    if safetensors.exists():
        return {name: weight.float() for name, weight in load_file(safetensors).items()}
    raise ConfigError(f"start_from names {source}, which is neither a run nor a bundle; give one of these.")


def averaged_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The exponential running average of the network's weights, without Lightning's prefix."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "network."
    return {name.removeprefix(prefix): weight for name, weight in state.items() if name.startswith(prefix)}


def _trainer(config: TrainConfig, folder: Path) -> pl.Trainer:
    settings = config.optimisation
    return pl.Trainer(
        max_steps=settings.steps,
        accelerator="auto",
        devices=1,
        precision="bf16-mixed" if torch.cuda.is_available() else "32-true",
        gradient_clip_val=settings.gradient_clip,
        logger=CSVLogger(folder, name="log", flush_logs_every_n_steps=20),
        log_every_n_steps=10,
        callbacks=[
            EMAWeightAveraging(decay=settings.ema_decay),
            ModelCheckpoint(
                folder / "checkpoints",
                filename="step-{step}",
                auto_insert_metric_name=False,
                every_n_train_steps=settings.checkpoint_every,
                save_last=True,
                enable_version_counter=False,
            ),
            TQDMProgressBar(refresh_rate=20),
        ],
        enable_model_summary=False,
    )


def _loader(config: TrainConfig, cases: list[list[Path]], *, skip: int) -> DataLoader[Patch]:
    settings = config.optimisation
    dataset = PatchDataset(config, cases, skip=skip * settings.batch_size)
    workers = min(settings.loader_workers, os.cpu_count() or 1)
    return DataLoader(
        dataset,
        batch_size=settings.batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
    )


def _steps_done(checkpoint: Path) -> int:
    """Optimiser steps in a checkpoint; 0 where there is none."""
    if not checkpoint.exists():
        return 0
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])
