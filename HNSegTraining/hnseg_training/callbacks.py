"""What a run writes down about itself beside its losses."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only

from hnseg.image.files import atomic_write
from hnseg.organs import ORGANS
from hnseg_training.patches import Patch


class DataWait(pl.Callback):  # type: ignore[misc]
    """Logs ``data_wait``: the share of training's time since the last log that it waited for patches.

    Validation and what comes before the first step, such as the preparation of cases, are no part of that time.
    """

    def __init__(self) -> None:
        self._begun = self._paused = self._waited_s = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        self._begun, self._waited_s = time.perf_counter(), trainer.train_dataloader.waited_s

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Let the clock go on."""
        self._begun += time.perf_counter() - self._paused

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Log, as often as the trainer does."""
        if trainer.global_step % trainer.log_every_n_steps:
            return
        now, waited_s = time.perf_counter(), trainer.train_dataloader.waited_s
        module.log("data_wait", (waited_s - self._waited_s) / (now - self._begun))
        self._begun, self._waited_s = now, waited_s


class LastCheckpoint(Checkpoint):  # type: ignore[misc]
    """Saves after each validation, and after the last step, before the average replaces the weights.

    ModelCheckpoint's own "last" is that of the last validation that brought something better.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Save, better or not."""
        trainer.save_checkpoint(self.file)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Save if this was the last step, which need not be a multiple of any interval."""
        if trainer.global_step >= trainer.max_steps:
            trainer.save_checkpoint(self.file)


class OrganCounts(pl.Callback):  # type: ignore[misc]
    """Counts, per organ, the patches that showed it and its voxels in them; ``organ_patches.csv`` in the run's folder.

    Of several processes the first one counts; all draw alike. The counts survive an interruption.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "organ_patches.csv"
        self.patches = torch.zeros(len(ORGANS) + 1, dtype=torch.int64)
        self.voxels = torch.zeros(len(ORGANS) + 1, dtype=torch.int64)
        self.seen = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Patch, index: int
    ) -> None:
        """Count."""
        for labels in batch["labels"]:
            here = torch.bincount(labels.flatten().long().cpu(), minlength=len(self.voxels))
            self.voxels += here
            self.patches += here > 0
            self.seen += 1

    @rank_zero_only  # type: ignore[untyped-decorator]
    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write the table."""
        with atomic_write(self.file) as partial, partial.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["organ", "patches", "share", "voxels"])
            for organ in ORGANS:
                patches = int(self.patches[organ.label])
                share = f"{patches / max(self.seen, 1):.3f}"
                table.writerow([organ.name, patches, share, int(self.voxels[organ.label])])

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"patches": self.patches, "voxels": self.voxels, "seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.patches, self.voxels, self.seen = (state_dict[key] for key in ("patches", "voxels", "seen"))
