"""The Lightning module: one training step, the validation loss, one schedule."""

from __future__ import annotations

from typing import Any, Self

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from hnseg.errors import ConfigError
from hnseg.models.architectures.planar import Planar
from hnseg.models.networks import SubpixelUNet, build_network
from hnseg_training.classes import to_classes
from hnseg_training.config import TrainConfig
from hnseg_training.losses import class_weights
from hnseg_training.mixup import draw_mix, mixed
from hnseg_training.objective import Objective, adapted_weights, merge_classes
from hnseg_training.patches import Patch
from hnseg_training.schedule import optimiser, scheduler
from hnseg_training.transfer import frozen_norms


class SegmentationModule(pl.LightningModule):  # type: ignore[misc]
    """Trains one network on patches; every loss is the mean over samples, so that batches can be split.

    The validation loss is measured with the final weights of the terms and the classes' first weights, so that all its
    values can be compared.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.network = _network(config)
        planar = isinstance(self.network, Planar)
        weights = _class_weights(config)
        self.objective = Objective(config.loss, weights.clone(), planar=planar)
        self.yardstick = Objective(config.loss, weights, planar=planar)

    def train(self, mode: bool = True) -> Self:
        """Frozen batch norms go on as they predict."""
        super().train(mode)
        for norm in frozen_norms(self.network):
            norm.eval()
        return self

    def training_step(self, batch: Patch, batch_index: int) -> Tensor:
        """Loss of one batch; logged with its terms."""
        labels, merge = self._classes(batch)
        mix = draw_mix(self._rng(), self.config.loss, labels, self.objective.class_weights)
        images = batch["image"] if mix is None else mixed(batch["image"], mix)
        logits = self._logits(images)
        terms = self._terms(self.objective, logits, labels, merge, self._progress)
        if mix is not None:
            others = list(mix.partners)
            partners = self._terms(self.objective, logits, labels[others], merge[others], self._progress)
            terms = {name: torch.lerp(partners[name], value, mix.share) for name, value in terms.items()}
        loss = torch.stack(list(terms.values())).sum()
        self.log_dict({"loss": loss, **terms}, prog_bar=True, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Sums of this validation; no buffer, since averaged weights and buffers take turns with the current ones."""
        self.unseen_losses: list[Tensor] = []
        self.overlaps = torch.zeros(3, len(self.yardstick.class_weights), device=self.device)

    def validation_step(self, batch: Patch, batch_index: int) -> None:
        """Loss of one unseen batch, and what its soft DSC needs."""
        labels, merge = self._classes(batch)
        logits = self._logits(batch["image"])
        loss = torch.stack(list(self._terms(self.yardstick, logits, labels, merge, 1.0).values())).sum()
        self.unseen_losses.append(loss)
        self.overlaps += _overlaps(*self._ordered(logits, labels), merge)

    def on_validation_epoch_end(self) -> None:
        """Log the loss and the mean soft DSC of the validation patches; step the plateau, weigh the organs by it.

        All of it happens before the checkpoint that follows, so that a resumed run knows it.
        """
        reduce = self.trainer.strategy.reduce
        loss = reduce(torch.stack(self.unseen_losses).mean(), reduce_op="mean")
        self.log("val_loss", loss, prog_bar=True)
        plateau = self.lr_schedulers()
        if isinstance(plateau, torch.optim.lr_scheduler.ReduceLROnPlateau):
            plateau.step(loss)
        overlap, predicted, expected = reduce(self.overlaps, reduce_op="sum")
        dice = torch.where(expected > 0, 2 * overlap / (predicted + expected), torch.nan)
        dice[0] = torch.nan
        if not dice.isnan().all():
            self.log("val_dsc", dice.nanmean(), prog_bar=True)
        if self.config.loss.adapt_to_organs:
            self.objective.class_weights.copy_(adapted_weights(self.yardstick.class_weights, dice))

    def configure_optimizers(self) -> Any:
        """As the configuration says; frozen weights are left out."""
        settings = self.config.optimisation
        optimizer = optimiser(self.network.parameters(), settings)
        return {"optimizer": optimizer, "lr_scheduler": scheduler(optimizer, settings)}

    @property
    def _progress(self) -> float:
        return float(self.global_step / max(1, self.config.optimisation.steps))

    def _rng(self) -> np.random.Generator:
        """Depends on seed, step and process, so that a resumed run draws what an uninterrupted one would."""
        return np.random.default_rng([self.config.seed, self.global_step, self.global_rank])

    def _classes(self, batch: Patch) -> tuple[Tensor, Tensor]:
        """Labels (B, K, J, I) and merges (B, C) in the network's classes."""
        pairs = [
            to_classes(*sample, self.config.classes) for sample in zip(batch["labels"], batch["merge"], strict=True)
        ]
        labels, merge = (torch.stack(parts) for parts in zip(*pairs, strict=True))
        return labels, merge

    def _logits(self, images: Tensor) -> Tensor:
        """(B, C, K, J, I), or (B, C, voxels, 1, 1) of our own network in its order where the loss does not mind."""
        if isinstance(self.network, SubpixelUNet) and not self.objective.measures_in_space:
            return self.network.voxel_logits(images).transpose(1, 2)[..., None, None]
        logits: Tensor = self.network(images)
        return logits

    def _ordered(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of ``_logits`` and labels (B, …) of the same voxels in the same order."""
        if not isinstance(self.network, SubpixelUNet) or self.objective.measures_in_space:
            return logits, labels
        return logits, self.network.voxel_order(labels)[..., None, None]

    def _terms(
        self, objective: Objective, logits: Tensor, labels: Tensor, merge: Tensor, progress: float
    ) -> dict[str, Tensor]:
        """The objective's terms, each the mean over the samples."""
        # Iterating over a single sample would have its gradient copied.
        samples = zip(*(_samples(part) for part in (*self._ordered(logits, labels), merge)), strict=True)
        with torch.autocast(self.device.type, enabled=False):  # sums over voxels need all digits
            found = [objective(*sample, progress) for sample in samples]
        return {name: torch.stack([terms[name] for terms in found]).mean() for name in found[0]}


def _samples(batch: Tensor) -> tuple[Tensor, ...]:
    return (batch.squeeze(0),) if len(batch) == 1 else batch.unbind()


def channels(config: TrainConfig) -> dict[str, int]:
    """The network's in and out channels, which follow from the preprocessing and the organs."""
    return {"in_channels": len(config.preprocess.channels), "out_channels": len(config.classes) + 1}


def _network(config: TrainConfig) -> nn.Module:
    network = build_network(config.network.name, **channels(config), **config.network.arguments)
    divisor = getattr(network, "divisor", (1, 1, 1))
    for patch in (config.patch.size_kji, config.patch.predict_kji or config.patch.size_kji):
        if any(n % d for n, d in zip(patch, divisor, strict=True)):
            raise ConfigError(
                f"The network {config.network.name!r} takes patches of multiples of {divisor}, got {patch}; "
                "correct size_kji or predict_kji."
            )
    layout = torch.channels_last if isinstance(network, Planar) else torch.channels_last_3d
    return network.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]


def weights_by_class(config: TrainConfig) -> dict[str, tuple[int, ...]]:
    """The network's weights that go by class, each with the axes along which they do."""
    classes = channels(config)["out_channels"]
    own, wider = (_shapes(config, count) for count in (classes, classes + 1))
    return {
        name: tuple(axis for axis, (n, m) in enumerate(zip(shape, wider[name], strict=True)) if n != m)
        for name, shape in own.items()
        if shape != wider[name]
    }


def _shapes(config: TrainConfig, classes: int) -> dict[str, torch.Size]:
    given = {**config.network.arguments, **channels(config), "out_channels": classes}
    with torch.device("meta"):
        network = build_network(config.network.name, **given)
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _class_weights(config: TrainConfig) -> Tensor:
    every = class_weights()
    told = every[[0, *(organ.label for organ in config.classes)]]
    return told if config.loss.class_weights == "volume" else torch.ones_like(told)


def _overlaps(logits: Tensor, labels: Tensor, merge: Tensor) -> Tensor:
    """(3, C): by class, the sums of its probability where it is the label and everywhere, and of its voxels."""
    sums = torch.zeros(3, merge.shape[1], device=logits.device)
    for sample in zip(logits, labels, merge, strict=True):
        log_p, here, kept = merge_classes(*sample)
        p, here = log_p[0].flatten(1).exp(), here.flatten()
        sums[0].index_add_(0, kept[here], p.gather(0, here[None])[0])
        sums[1, kept] += p.sum(dim=1)
        sums[2, kept] += torch.bincount(here, minlength=len(kept))
    return sums
