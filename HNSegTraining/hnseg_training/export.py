"""From a run's checkpoint to a verified model bundle with an honest card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnseg.errors import ConfigError
from hnseg.image.grid import Grid
from hnseg.models.bundle import Bundle, write_bundle
from hnseg.models.metadata import Atlas, BundleMetadata, FineStage, NetworkSettings, PostprocessSettings, Teaching
from hnseg.organs import ORGANS
from hnseg_training.calibration import cross_fitted, fit, judged, reliability_diagram, several_cases
from hnseg_training.card import RELIABILITY, WORST, model_card, training_data
from hnseg_training.config import TrainConfig
from hnseg_training.module import channels
from hnseg_training.run_folder import check_network
from hnseg_training.scores_file import worst_folder
from hnseg_training.teaching import Taught, read_taught
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
    looks, see ``FineStage``; one that phantoms alone taught leaves organs alone that patients taught the first network.
    Raises ``ConfigError`` if a run was trained for other organs, another network or other preprocessing.
    """
    checkpoints = [_own_checkpoint(*pair) for pair in ((config, run), *fine)]
    measured = json.loads(scores.read_text()) if scores else {}
    rows = judged(measured)
    known, others = read_taught(run), [read_taught(folder) for _, folder in fine]
    stages = [fine_stage(one, other, known) for (one, _), other in zip(fine, others, strict=True)]
    usual = average_atlas()
    metadata = BundleMetadata(
        name=config.name,
        title=config.title or config.name,
        version=config.version,
        licence=LICENCE_NAME,
        training_data="; second look: ".join(training_data(one) for one in (config, *(one for one, _ in fine))),
        network=_network_settings(config),
        preprocess=config.preprocess,
        patch_kji=config.patch.predict_kji or config.patch.size_kji,
        labels=config.labels,
        trained_organs=known.trained,
        taught_by=_taught_by(known, others, stages),
        calibration=fit(rows) if several_cases(rows) else None,
        postprocess=PostprocessSettings(joined=known.joined),
        organ_centres_mm=dict(usual.centres_mm),
        organ_sizes_mm=dict(usual.sizes_mm),
        stages=tuple(stages),
    )
    return write_bundle(
        output,
        metadata=metadata,
        state_dict=averaged_weights(checkpoints[0]),
        others=[averaged_weights(checkpoint) for checkpoint in checkpoints[1:]],
        card=model_card(config, metadata, measured),
        licence_text=_licence(),
        documents=_documents(metadata, measured, scores),
    )


def fine_stage(config: TrainConfig, own: Taught, first: Taught) -> FineStage:
    """A second look at the organs that were taught it, but for those that phantoms taught it and patients the first.

    ``ConfigError`` if none is left.
    """
    by_patients = [
        {organ for organ, kinds in one.taught_by.items() if set(kinds) - {"phantom"}} for one in (own, first)
    ]
    decided = [organ for organ in own.trained if organ in by_patients[0] or organ not in by_patients[1]]
    if not decided:
        raise ConfigError(f"The second look {config.name} knows no organ better than the first; leave it out.")
    return FineStage(
        name=config.name,
        network=_network_settings(config),
        preprocess=config.preprocess,
        patch_kji=config.patch.predict_kji or config.patch.size_kji,
        labels=config.labels,
        organs=tuple(decided),
    )


def _own_checkpoint(config: TrainConfig, run: Path) -> Path:
    checkpoint = best_checkpoint(run)
    check_network(config, run)
    return checkpoint


def _taught_by(first: Taught, others: Sequence[Taught], stages: Sequence[FineStage]) -> dict[str, tuple[Teaching, ...]]:
    """What taught each organ to the network that decides on it."""
    found = dict(first.taught_by)
    for other, stage in zip(others, stages, strict=True):
        found |= {organ: kinds for organ, kinds in other.taught_by.items() if organ in stage.decides}
    return found


def _network_settings(config: TrainConfig) -> NetworkSettings:
    return NetworkSettings(config.network.name, {**config.network.arguments, **channels(config)})


def average_atlas() -> Atlas:
    """Where the average phantom's organs lie, LPS mm about the midpoint of the ear canals, and how far they reach."""
    from hnseg.phantom import average_patient, labels_on

    labels = labels_on(average_patient(), Grid((86, 86, 140), (2.5, 2.5, 2.5), (-107.5, -137.5, -240.0)))
    centres, sizes = {}, {}
    for organ in ORGANS:
        points = labels.grid.to_lps(np.argwhere(labels.array_kji == organ.label)[:, ::-1])
        centres[organ.name] = _triple(points.mean(axis=0))
        sizes[organ.name] = _triple(np.ptp(points, axis=0) + labels.grid.spacing_mm)
    return Atlas(centres, sizes)


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = values.round(1).tolist()
    return x, y, z


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
