"""Optimisers and learning rates."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hnseg_training.config import OptimisationConfig


def optimiser(parameters: Iterable[Tensor], settings: OptimisationConfig) -> torch.optim.Optimizer:
    """The optimiser that the configuration names."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=rate, momentum=0.99, nesterov=True, weight_decay=decay)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(trained, lr=rate, weight_decay=decay)


def scheduler(optimizer: torch.optim.Optimizer, settings: OptimisationConfig) -> dict[str, Any]:
    """The schedule as Lightning takes it: stepped with the optimiser, or by the module with the validation loss."""
    if settings.schedule == "plateau":
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.1, patience=settings.patience, min_lr=settings.least_learning_rate
        )
        return {"scheduler": plateau, "interval": "step", "frequency": sys.maxsize, "monitor": "val_loss"}
    stepwise = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(rate_share, settings=settings))
    return {"scheduler": stepwise, "interval": "step"}


def rate_share(step: int, *, settings: OptimisationConfig) -> float:
    """The learning rate at a step as a share of the configured one."""
    least = settings.least_learning_rate / settings.learning_rate if settings.learning_rate else 0.0
    return min(1.0, (step + 1) / max(1, settings.warmup_steps), least + (1 - least) * _falling(step, settings))


def _falling(step: int, settings: OptimisationConfig) -> float:
    """From 1 to 0."""
    if settings.schedule == "linear":
        return min(1.0, max(0.0, (settings.steps - step) / max(1, round(settings.decay_share * settings.steps))))
    period = settings.restart_steps if settings.schedule == "restarts" else max(1, settings.steps)
    within = step % period if settings.schedule == "restarts" else min(step, period)
    return 0.5 * (1 + math.cos(math.pi * within / period))
