"""The weights that a checkpoint, a run or a bundle holds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hnseg.errors import ConfigError
from hnseg.models.bundle import METADATA, open_bundle
from hnseg_training.config import load_config

CHECKPOINTS = "checkpoints"
CHECKPOINT = "last.ckpt"
BEST = "best.ckpt"
CONFIG = "config.yaml"
"""The configuration in a run's folder."""


def averaged_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The exponential running average of the network's weights, without Lightning's prefix."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "network."
    return {name.removeprefix(prefix): weight for name, weight in state.items() if name.startswith(prefix)}


def starting_weights(source: Path) -> dict[str, Tensor]:
    """The network's weights in a run's last checkpoint (their running average) or in a bundle."""
    checkpoint = source / CHECKPOINTS / CHECKPOINT
    if checkpoint.exists():
        return averaged_weights(checkpoint)
    if (source / METADATA).exists():
        return dict(open_bundle(source).load_network().state_dict())
    raise ConfigError(f"start_from names {source}, which is neither a run nor a bundle; give one of these.")


def starting_classes(source: Path) -> tuple[str, ...]:
    """What the network of a run or a bundle tells apart, in the order of its channels."""
    if (source / CONFIG).exists():
        return load_config(source / CONFIG).labels
    return open_bundle(source).metadata.labels


def best_checkpoint(run: Path) -> Path:
    """The checkpoint with the least validation loss, or the last one of a run that measured none."""
    best, last = (run / CHECKPOINTS / name for name in (BEST, CHECKPOINT))
    if not best.exists() and not last.exists():
        raise ConfigError(f"{run} holds no checkpoint; train it first with `hnseg-train fit`.")
    return best if best.exists() else last
