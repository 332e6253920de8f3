"""Patches drawn from prepared cases, each organ as often as every other."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import count
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from hnseg_training.artefacts import apply_bias, apply_streaks, draw_streaks
from hnseg_training.augmentation import (
    apply_intensity,
    apply_modality_loss,
    draw_affine,
    draw_bend,
    draw_intensity,
    draw_modality_loss,
    mirror,
    sample_affine,
)
from hnseg_training.cases import PreparedCase, open_case
from hnseg_training.config import TrainConfig


class Patch(TypedDict):
    """``image`` (C, K, J, I) float32, ``labels`` (K, J, I) uint8, ``merge`` (31,) int64: what each label counts as."""

    image: Tensor
    labels: Tensor
    merge: Tensor


class PatchDataset(IterableDataset[Patch]):
    """An endless stream of augmented patches, from batch ``skip`` on. The n-th patch depends on seed and n alone.

    Each of a cohort's organs is drawn as often as every other, however few of its cases show it.
    ``process`` (r, of n): process r draws every n-th number, so that n processes together draw what one would. Workers
    take turns batch by batch, so that a batch holds the same numbers however many they are.
    """

    def __init__(
        self, config: TrainConfig, cohorts: list[list[Path]], *, skip: int = 0, process: tuple[int, int] = (0, 1)
    ) -> None:
        shares = np.array([cohort.share for cohort in config.cohorts])
        self.config = config
        self.cohorts = cohorts
        self.shares = shares / shares.sum()
        self.skip = skip
        self.process = process
        self.spacing_kji = np.asarray(config.preprocess.spacing_mm[::-1])
        self._open = lru_cache(maxsize=None)(open_case)

    def __iter__(self) -> Iterator[Patch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        rank, processes = self.process
        size = self.config.optimisation.batch_size
        for batch in count(self.skip + worker, workers):
            for sample in range(batch * size, (batch + 1) * size):
                yield self.draw(np.random.default_rng([self.config.seed, sample * processes + rank]))

    def draw(self, rng: np.random.Generator) -> Patch:
        """One patch."""
        cases = self._cases[int(rng.choice(len(self.cohorts), p=self.shares))]
        organs = [label for label in cases if label]
        organ = organs[int(rng.integers(len(organs)))] if organs and rng.random() < self.config.patch.organ_share else 0
        case = self._open(cases[organ][int(rng.integers(len(cases[organ])))])
        centre = draw_centre(rng, case.points[organ], self.config)
        settings, size = self.config.augmentation, self.config.patch.size_kji
        matrix = draw_affine(rng, settings, self.spacing_kji)
        image, labels = cut(case, centre, matrix, size, draw_bend(rng, settings, size, self.spacing_kji))
        merge = torch.from_numpy(case.merge)
        if settings.mirror_probability and rng.random() < settings.mirror_probability:
            image, labels, merge = mirror(image, labels, merge)
        return Patch(image=self._augmented(rng, image), labels=labels, merge=merge)

    @cached_property
    def _cases(self) -> list[dict[int, list[Path]]]:
        """For each cohort the cases that show a label: each organ that is trained, and 0, the body without organs."""
        labels = (0, *(organ.label for organ in self.config.classes))
        showing = [
            {label: [folder for folder in cohort if label in self._open(folder).points] for label in labels}
            for cohort in self.cohorts
        ]
        return [{label: folders for label, folders in by_label.items() if folders} for by_label in showing]

    def _augmented(self, rng: np.random.Generator, image: Tensor) -> Tensor:
        config, ct_channels = self.config, len(self.config.preprocess.ct_windows_hu)
        size = config.patch.size_kji
        streaks = draw_streaks(rng, config.augmentation, size)
        if streaks is not None:
            image = apply_streaks(image, streaks, config.preprocess.ct_windows_hu)
        image = apply_bias(image, rng, config.augmentation)
        loss = draw_modality_loss(rng, config.augmentation, size, self.spacing_kji)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        image = apply_modality_loss(image, loss, ct_channels=ct_channels)
        change = draw_intensity(rng, config.augmentation, image.shape[0])
        return apply_intensity(image, change, ct_channels=ct_channels, generator=generator)


def draw_centre(rng: np.random.Generator, points: NDArray[np.int32], config: TrainConfig) -> NDArray[np.float64]:
    """A centre (kji) near one of ``points`` (n, 3), drawn uniformly, with the patch's jitter."""
    jitter = rng.uniform(-0.5, 0.5, 3) * config.patch.jitter * np.asarray(config.patch.size_kji)
    return np.asarray(points[int(rng.integers(len(points)))] + jitter)


def cut(
    case: PreparedCase,
    centre_kji: np.ndarray,
    matrix: np.ndarray | None,
    size_kji: tuple[int, int, int],
    displacement: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The patch around ``centre_kji``, turned and bent; beyond the image CT is air (−1), MR and labels are 0."""
    if matrix is None and displacement is None:
        low = np.floor(centre_kji - np.asarray(size_kji) / 2).astype(int)
        return _block(case, low, low + size_kji)
    matrix = np.eye(3) if matrix is None else matrix
    moved = 0.0 if displacement is None else displacement.abs().amax(dim=(1, 2, 3)).numpy()
    reach = np.abs(matrix) @ (np.asarray(size_kji) / 2) + 1 + moved
    low = np.floor(centre_kji - reach).astype(int)
    image, labels = _block(case, low, low + np.ceil(2 * reach).astype(int) + 1)
    return sample_affine(
        image,
        labels,
        centre_kji=centre_kji - low,
        matrix=matrix,
        size_kji=size_kji,
        fill=image_fill(case),
        displacement=displacement,
    )


def image_fill(case: PreparedCase) -> Tensor:
    """What lies beyond the image, by channel."""
    channels = case.image.shape[0]
    return torch.tensor([-1.0] * (channels - 2) + [0.0, 0.0])


def _block(case: PreparedCase, low: np.ndarray, high: np.ndarray) -> tuple[Tensor, Tensor]:
    size = tuple(int(n) for n in high - low)
    image = image_fill(case)[:, None, None, None].expand(-1, *size).clone()
    labels = torch.zeros(size, dtype=torch.uint8)
    start, stop = np.maximum(low, 0), np.minimum(high, case.labels.shape)
    source = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    target = tuple(slice(int(a), int(b)) for a, b in zip(start - low, stop - low, strict=True))
    image[(slice(None), *target)] = torch.from_numpy(case.image[(slice(None), *source)].astype(np.float32))
    labels[target] = torch.from_numpy(np.array(case.labels[source]))
    return image, labels
