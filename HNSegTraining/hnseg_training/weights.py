"""The weights that a checkpoint, a run or a bundle holds."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from hnseg.errors import ConfigError

CHECKPOINT = "last.ckpt"
BEST = "best.ckpt"


def averaged_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The exponential running average of the network's weights, without Lightning's prefix."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "network."
    return {name.removeprefix(prefix): weight for name, weight in state.items() if name.startswith(prefix)}


def starting_weights(source: Path) -> dict[str, Tensor]:
    """The network's weights in a run's last checkpoint (their running average) or in a bundle."""
    checkpoint, safetensors = source / "checkpoints" / CHECKPOINT, source / "models" / "model.safetensors"
    if checkpoint.exists():
        return averaged_weights(checkpoint)
    if safetensors.exists():
        return {name: weight.float() for name, weight in load_file(safetensors).items()}
    raise ConfigError(f"start_from names {source}, which is neither a run nor a bundle; give one of these.")
