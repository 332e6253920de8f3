"""From a configuration to a checkpoint that can be resumed and exported."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from hnseg.errors import ConfigError, DeviceError
from hnseg_training.allocator import keep_freed_memory
from hnseg_training.callbacks import DataWait, LastCheckpoint, OrganCounts
from hnseg_training.config import TrainConfig
from hnseg_training.curves import write_curves
from hnseg_training.data import PatchData
from hnseg_training.module import SegmentationModule, weights_by_class
from hnseg_training.run_folder import begin, check_network, started
from hnseg_training.transfer import freeze, start
from hnseg_training.weights import (
    BEST,
    CHECKPOINT,
    CHECKPOINTS,
    WholeCheckpoints,
    averaged_weights,
    read_checkpoint,
    starting_classes,
    starting_weights,
)

__all__ = ["CHECKPOINT", "averaged_weights", "fit", "starting_weights"]


def fit(
    config: TrainConfig,
    folder: Path,
    *,
    on_progress: Callable[[float, str], None],
    resume: bool = False,
    transfer: bool = False,
) -> Path:
    """Train into ``folder`` (configuration, cases, log, checkpoints, at the end curves); returns the last checkpoint.

    What an earlier training left there is removed, but for prepared cases. With ``resume`` training goes on from the
    last checkpoint instead: patches are drawn by number, so none is seen twice. With ``transfer`` layers that do not
    fit the weights of ``start_from`` start anew; else that is an error. Raises ``ConfigError`` if there is nothing to
    resume or the run's network is another, ``KeyboardInterrupt`` after Ctrl-C. Under torchrun all processes call this
    alike.
    """
    keep_freed_memory()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # else it advertises
    checkpoint = folder / CHECKPOINTS / CHECKPOINT
    done = _steps_done(config, folder) if resume else 0
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module = SegmentationModule(config)
    if config.start_from and not resume:
        source = Path(config.start_from)
        if source.resolve() == folder.resolve():
            raise ConfigError(f"start_from names the run's own folder {folder}; give the run another name.")
        fresh = start(
            module.network,
            starting_weights(source),
            partly=transfer,
            classes=config.labels,
            source_classes=starting_classes(source),
            by_class=weights_by_class(config),
        )
        on_progress(0.0, f"Weights from {config.start_from}; anew: {', '.join(fresh) or 'none'}")
    freeze(module.network, config.freeze)
    module.train()
    if config.network.compile:
        module.network.compile()
    rank_zero_only(begin)(config, folder, resume=resume)
    trainer = _trainer(config, folder)
    data = PatchData(config, folder, done=done, on_progress=on_progress)
    with redirect_stdout(sys.stderr):  # where Lightning's progress bar belongs
        try:
            trainer.fit(module, data, ckpt_path=checkpoint if resume else None, weights_only=True)
        except SystemExit:  # what Lightning makes of Ctrl-C
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
    rank_zero_only(write_curves)(folder)
    return checkpoint


def _trainer(config: TrainConfig, folder: Path) -> pl.Trainer:
    settings = config.optimisation
    return pl.Trainer(
        max_steps=settings.steps,
        accelerator="auto",
        precision=_precision(config),
        gradient_clip_val=settings.gradient_clip,
        logger=[CSVLogger(folder, name="log", flush_logs_every_n_steps=20), TensorBoardLogger(folder, name="board")],
        log_every_n_steps=max(1, min(10, settings.steps // 100)),
        val_check_interval=settings.validate_every or None,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=_callbacks(config, folder),
        enable_model_summary=False,
        plugins=[WholeCheckpoints()],
        **_processes(),
    )


def _callbacks(config: TrainConfig, folder: Path) -> list[pl.Callback]:
    settings, checkpoints = config.optimisation, folder / CHECKPOINTS
    found = [
        EMAWeightAveraging(decay=settings.ema_decay),
        DataWait(),
        OrganCounts(folder),
        TQDMProgressBar(refresh_rate=20),
        _checkpoints(config, checkpoints),
        LastCheckpoint(checkpoints / CHECKPOINT),  # after the others, whose state it keeps
    ]
    if settings.stop_after:
        found.append(EarlyStopping("val_loss", patience=settings.stop_after, check_on_train_epoch_end=False))
    return found


def _checkpoints(config: TrainConfig, folder: Path) -> ModelCheckpoint:
    """With a validation loss the best one, else one every so many steps."""
    settings = config.optimisation
    if settings.validate_every:
        return ModelCheckpoint(folder, filename=Path(BEST).stem, monitor="val_loss", enable_version_counter=False)
    return ModelCheckpoint(
        folder,
        filename="step-{step}",
        auto_insert_metric_name=False,
        every_n_train_steps=settings.checkpoint_every,
        save_last=True,
        enable_version_counter=False,
    )


def _precision(config: TrainConfig) -> str:
    """Lightning's name of it; ``DeviceError`` where bf16 would be slower or impossible."""
    wanted = config.optimisation.precision
    from hnseg.inference.devices import network_type

    if torch.cuda.is_available():
        return "32-true" if wanted == "float32" else "bf16-mixed"
    if wanted == "bf16" and network_type(torch.device("cpu")) != torch.bfloat16:
        raise DeviceError("Training in bf16 needs a GPU or a CPU with AMX, which this is not; set precision: auto.")
    return "bf16-mixed" if wanted == "bf16" else "32-true"


def _processes() -> dict[str, Any]:
    """One process, or those that torchrun started, on one machine or several."""
    world, local = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if world == 1:
        return {"devices": 1}
    return {"devices": local, "num_nodes": world // local, "strategy": "ddp"}


def _steps_done(config: TrainConfig, folder: Path) -> int:
    """Optimiser steps in the last checkpoint of the configuration's network."""
    if not started(folder):
        raise ConfigError(f"{folder} holds no checkpoint to go on from; train with `hnseg-train fit`.")
    check_network(config, folder)
    return int(read_checkpoint(folder / CHECKPOINTS / CHECKPOINT)["global_step"])
