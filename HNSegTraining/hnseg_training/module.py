"""The Lightning module: one step, one loss, one schedule."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from hnseg.models.networks import SubpixelUNet, build_network, pixel_unshuffle
from hnseg.organs import ORGANS
from hnseg_training.config import TrainConfig
from hnseg_training.losses import class_weights, dice_cross_entropy
from hnseg_training.patches import Patch

CLASSES = len(ORGANS) + 1


class SegmentationModule(pl.LightningModule):  # type: ignore[misc]
    """Trains one network on patches with Dice plus cross-entropy."""

    weights: Tensor

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        channels = len(config.preprocess.channels)
        network = build_network(
            config.network.name, in_channels=channels, out_channels=CLASSES, **config.network.arguments
        )
        self.network: nn.Module = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.register_buffer("weights", class_weights(), persistent=False)

    def training_step(self, batch: Patch, batch_index: int) -> Tensor:
        """Loss of one batch; logged with its two parts."""
        losses = [
            dice_cross_entropy(logits, labels, merge, self.weights)
            for logits, labels, merge in zip(*self._flat(batch), batch["merge"], strict=True)
        ]
        dice, cross_entropy = (torch.stack(values).mean() for values in zip(*losses, strict=True))
        loss = dice + cross_entropy
        self.log_dict({"loss": loss, "dice_loss": dice, "cross_entropy": cross_entropy}, prog_bar=True)
        return loss

    def _flat(self, batch: Patch) -> tuple[Tensor, Tensor]:
        """Logits (B, N, classes) and labels (B, N) in the same order of sub-voxels."""
        labels = batch["labels"][:, None].long()
        if isinstance(self.network, SubpixelUNet):
            logits = self.network.subvoxel_logits(batch["image"])
            labels = pixel_unshuffle(labels, self.network.factor)
        else:
            logits = self.network(batch["image"])
        logits = logits.permute(0, 2, 3, 4, 1).reshape(len(logits), -1, CLASSES)
        return logits, labels.permute(0, 2, 3, 4, 1).reshape(len(labels), -1)

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up, plateau and linear decay."""
        settings = self.config.optimisation
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        settings = self.config.optimisation
        decay_steps = max(1, round(settings.decay_share * settings.steps))
        remaining = max(0.0, (settings.steps - step) / decay_steps)
        return min(1.0, (step + 1) / max(1, settings.warmup_steps), remaining)
