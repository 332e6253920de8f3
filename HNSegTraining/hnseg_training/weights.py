"""The weights that a checkpoint, a run or a bundle holds."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from hnseg.errors import ConfigError, OutputError, UnreadableFile
from hnseg.image.files import atomic_write
from hnseg.models.bundle import METADATA, open_bundle
from hnseg_training.config import load_config

CHECKPOINTS = "checkpoints"
CHECKPOINT = "last.ckpt"
BEST = "best.ckpt"
CONFIG = "config.yaml"
"""The configuration in a run's folder."""


class WholeCheckpoints(TorchCheckpointIO):  # type: ignore[misc]
    """Writes beside the target, then renames: an interruption or a full disk leaves the earlier checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """``OutputError`` if it cannot be written."""
        target = Path(path)
        content = io.BytesIO()  # torch reports a full disk as something else
        torch.save(checkpoint, content)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"Cannot write to {target.parent} ({error.strerror}); give other --runs.") from error
        with atomic_write(target) as partial:
            partial.write_bytes(content.getbuffer())


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint of Lightning's, on the CPU. ``UnreadableFile`` if it is none, or a part of one."""
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        return {**checkpoint, "state_dict": checkpoint["state_dict"], "global_step": checkpoint["global_step"]}
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableFile(
            f"{file} is no whole checkpoint ({reason}); put another in its place or fit anew."
        ) from error


def averaged_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The exponential running average of the network's weights, without Lightning's prefix."""
    state = read_checkpoint(checkpoint)["state_dict"]
    prefix = "network."
    return {name.removeprefix(prefix): weight for name, weight in state.items() if name.startswith(prefix)}


def starting_weights(source: Path) -> dict[str, Tensor]:
    """The network's weights in a run (those that are exported of it) or in a bundle."""
    if any((source / CHECKPOINTS / name).exists() for name in (BEST, CHECKPOINT)):
        return averaged_weights(best_checkpoint(source))
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
