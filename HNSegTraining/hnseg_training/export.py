"""From a run's checkpoint to a verified model bundle with an honest card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hnseg.image.grid import Grid
from hnseg.models.bundle import Bundle, write_bundle
from hnseg.models.metadata import BACKGROUND, BundleMetadata, FineStage, NetworkSettings
from hnseg.organs import ORGANS
from hnseg_training.calibration import cross_fitted, fit, judged, reliability_diagram
from hnseg_training.card import RELIABILITY, WORST, model_card, training_data
from hnseg_training.config import TrainConfig
from hnseg_training.module import channels
from hnseg_training.scores_file import worst_folder
from hnseg_training.teaching import taught_by
from hnseg_training.weights import averaged_weights, best_checkpoint

LICENCE_NAME = "Apache-2.0"


def export(
    config: TrainConfig,
    run: Path,
    output: Path,
    *,
    fine: Sequence[tuple[TrainConfig, Path]] = (),
    scores: Path | None = None,
) -> Bundle:
    """Write the averaged weights of the best checkpoint as a bundle.

    ``scores`` (of ``validate``) fill the card, with the pictures beside them, and calibrate the confidence. Without a
    validation loss in training the last checkpoint is the best one known. ``fine``: configurations and runs of second
    looks, see ``FineStage``.
    """
    measured = json.loads(scores.read_text()) if scores else {}
    rows = judged(measured)
    organs = tuple(organ.name for organ in config.classes)
    metadata = BundleMetadata(
        name=config.name,
        title=config.title or config.name,
        version=config.version,
        licence=LICENCE_NAME,
        training_data=training_data(config),
        network=_network_settings(config),
        preprocess=config.preprocess,
        patch_kji=config.patch.predict_kji or config.patch.size_kji,
        labels=(BACKGROUND, *organs),
        trained_organs=organs,
        taught_by={**taught_by(config), **{organ: kinds for one, _ in fine for organ, kinds in taught_by(one).items()}},
        calibration=fit(rows) if rows else None,
        organ_centres_mm=organ_centres(),
        stages=tuple(fine_stage(stage) for stage, _ in fine),
    )
    return write_bundle(
        output,
        metadata=metadata,
        state_dict=averaged_weights(best_checkpoint(run)),
        others=[averaged_weights(best_checkpoint(folder)) for _, folder in fine],
        card=model_card(config, metadata, measured),
        licence_text=_licence(),
        documents=_documents(metadata, measured, scores),
    )


def fine_stage(config: TrainConfig) -> FineStage:
    """A second look at the configuration's organs."""
    return FineStage(
        name=config.name,
        network=_network_settings(config),
        preprocess=config.preprocess,
        patch_kji=config.patch.predict_kji or config.patch.size_kji,
        labels=(BACKGROUND, *(organ.name for organ in config.classes)),
    )


def _network_settings(config: TrainConfig) -> NetworkSettings:
    return NetworkSettings(config.network.name, {**config.network.arguments, **channels(config)})


def organ_centres() -> dict[str, tuple[float, float, float]]:
    """Where each organ lies in the average phantom, LPS mm about the midpoint of the ear canals."""
    from hnseg.phantom import average_patient, labels_on

    labels = labels_on(average_patient(), Grid((86, 86, 140), (2.5, 2.5, 2.5), (-107.5, -137.5, -240.0)))
    centres = {}
    for organ in ORGANS:
        voxels = np.argwhere(labels.array_kji == organ.label)[:, ::-1]
        x, y, z = labels.grid.to_lps(voxels.mean(axis=0)).round(1).tolist()
        centres[organ.name] = (x, y, z)
    return centres


def _documents(metadata: BundleMetadata, measured: Mapping[str, Any], scores: Path | None) -> dict[str, bytes]:
    """The card's pictures by their names beside it."""
    if scores is None:
        return {}
    rows, pictures = judged(measured), measured.get("worst", {})
    found = {f"{WORST}/{name}": (worst_folder(scores) / name).read_bytes() for name in pictures}
    return found | ({RELIABILITY: reliability_diagram(rows, cross_fitted(rows))} if metadata.calibration else {})


def _licence() -> str:
    """The project's own licence, from the checkout."""
    return (Path(__file__).resolve().parents[2] / "LICENSE").read_text()
