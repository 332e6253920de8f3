"""Lightning's view of the data: prepared once by the first process, drawn by number in every process."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from hnseg_training.cases import prepare
from hnseg_training.config import AugmentationConfig, TrainConfig
from hnseg_training.patches import Patch, PatchDataset
from hnseg_training.teaching import taught, write_taught

UNCHANGED = AugmentationConfig(
    affine_probability=0.0,
    contrast=0.0,
    brightness=0.0,
    noise=0.0,
    blur_probability=0.0,
    mr_dropout=0.0,
    mr_cut_probability=0.0,
    mr_shift_mm=0.0,
)
"""Leaves patches as they are."""

_VALIDATION_SEED = 1_000_003


class PatchData(pl.LightningDataModule):  # type: ignore[misc]
    """Training patches from the ``done``-th step on, and the fixed patches of the validation loss."""

    def __init__(
        self, config: TrainConfig, folder: Path, *, done: int, on_progress: Callable[[float, str], None]
    ) -> None:
        super().__init__()
        self.prepare_data_per_node = False
        self.config = config
        self.folder = folder
        self.done = done
        self.on_progress = on_progress

    @property
    def unseen(self) -> TrainConfig:
        """What the patches of the validation loss are drawn by."""
        config, seed = self.config, self.config.seed + _VALIDATION_SEED
        cohorts = config.selection or config.validation
        return dataclasses.replace(config, cohorts=cohorts, augmentation=UNCHANGED, seed=seed)

    def prepare_data(self) -> None:
        """Preprocess every case and note what they teach; Lightning calls this in the first process, others wait.

        ``InputError`` if they teach nothing.
        """
        found = taught(self.config, self._training_cases())
        write_taught(self.folder, found)
        lacking = [organ.name for organ in self.config.classes if organ.name not in found.trained]
        if lacking:
            self.on_progress(0.0, f"No training case shows {', '.join(lacking)}; the network will not find them.")
        if self.config.optimisation.validate_every:
            self._validation_cases()

    def train_dataloader(self) -> TimedLoader:
        """Endless; process r of n draws every n-th patch, so that all together see what one would."""
        settings = self.config.optimisation
        dataset = PatchDataset(
            self.config,
            self._training_cases(),
            skip=self.done,
            process=(self.trainer.global_rank, self.trainer.world_size),
        )
        workers = min(settings.loader_workers, os.cpu_count() or 1)
        return TimedLoader(
            dataset,
            batch_size=settings.batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> Any:
        """The validation patches, or nothing."""
        settings = self.config.optimisation
        if not settings.validate_every:
            return []
        return DataLoader(FixedPatches(self.unseen, self._validation_cases(), settings.validation_patches))

    def _training_cases(self) -> list[list[Path]]:
        return prepare(self.config, self.folder / "cases", on_progress=self.on_progress)

    def _validation_cases(self) -> list[list[Path]]:
        return prepare(self.unseen, self.folder / "unseen", on_progress=self.on_progress)


class FixedPatches(Dataset[Patch]):
    """The same ``count`` patches every time, kept in memory."""

    def __init__(self, config: TrainConfig, cohorts: list[list[Path]], count: int) -> None:
        source = PatchDataset(config, cohorts)
        self.count = count
        self._patch = lru_cache(maxsize=count)(lambda n: source.draw(np.random.default_rng([config.seed, n])))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Patch:
        if index >= self.count:
            raise IndexError(index)
        return self._patch(index)


class TimedLoader(DataLoader[Patch]):
    """Counts the seconds that training waits for patches."""

    waited_s = 0.0

    def __iter__(self) -> Iterator[Patch]:  # type: ignore[override]
        patches = super().__iter__()
        while True:
            begun = time.perf_counter()
            batch = next(patches, None)
            self.waited_s += time.perf_counter() - begun
            if batch is None:
                return
            yield batch
