"""From a run's checkpoint to a verified model bundle with an honest card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hnseg.image.grid import Grid
from hnseg.models.bundle import Bundle, write_bundle
from hnseg.models.metadata import BACKGROUND, BundleMetadata, FineStage, NetworkSettings
from hnseg.organs import BY_NAME, ORGANS
from hnseg.version import RESEARCH_USE
from hnseg_training.config import TrainConfig
from hnseg_training.module import channels
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
    """Write the averaged weights of the best checkpoint as a bundle; ``scores`` (of ``validate``) fill the card.

    Without a validation loss in training the last checkpoint is the best one known. ``fine``: configurations and runs
    of second looks, see ``FineStage``.
    """
    measured = json.loads(scores.read_text()) if scores else {}
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
        taught_by=taught_by(config),
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


def training_data(config: TrainConfig) -> str:
    """One sentence on what the network saw."""
    parts = []
    for cohort in config.cohorts:
        if cohort.source == "phantom":
            parts.append(f"{cohort.cases} procedural phantoms (all 30 organs, CT and T1 MR)")
        elif cohort.source == "openkbp":
            parts.append(
                "real planning CTs of OpenKBP (MIT licence; Babier et al. 2021, doi:10.1002/mp.14845; brainstem, cord, "
                "parotids, mandible, larynx and oesophagus drawn, no MR)"
            )
        else:
            kind = "curated cases" if cohort.source == "curated" else "cases in HaN-Seg's layout"
            parts.append(f"up to {cohort.cases} {kind}")
    return " and ".join(parts)


def model_card(config: TrainConfig, metadata: BundleMetadata, measured: dict[str, Any]) -> str:
    """The card, Markdown: what it is, what it saw, how well it does, what it must not be used for."""
    lines = [
        f"# {metadata.title}",
        "",
        f"**{RESEARCH_USE}**",
        "",
        f"Trained on {metadata.training_data}. Organs that only phantoms showed were never seen in a patient: "
        "expect failures on real images, and look at every contour.",
        "",
        f"- Network: `{config.network.name}` {json.dumps(metadata.network.arguments)}",
        f"- Input: {', '.join(config.preprocess.channels)} at {config.preprocess.spacing_mm} mm; without an MR its two "
        "channels are zero",
        f"- Training: {config.optimisation.steps} steps, patches {config.patch.size_kji} (k, j, i), seed "
        f"{config.seed}; `hnseg-train fit --config HNSegTraining/configs/…` repeats it",
        f"- Licence: {metadata.licence}",
        "",
    ]
    return "\n".join(lines + _score_lines(measured)) + "\n"


def _score_lines(measured: dict[str, Any]) -> list[str]:
    if not measured:
        return ["No scores were measured for this export."]
    about = measured["about"]
    cases = ", ".join(f"{title}: {count} cases" for title, count in about["cases"].items())
    lines = ["## Scores on unseen cases", "", f"Means per organ. {cases}. Refused: {len(about['failed'])}.", ""]
    columns = list(measured["tables"])
    lines += ["| organ | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    unions = {name for table in measured["tables"].values() for name in table if " + " in name}
    for organ in [*BY_NAME, *sorted(unions), "mean"]:
        cells = [measured["tables"][column].get(organ) for column in columns]
        lines.append(f"| {organ} | " + " | ".join("–" if cell is None else f"{cell:.3f}" for cell in cells) + " |")
    return lines


def _licence() -> str:
    """The project's own licence, from the checkout."""
    return (Path(__file__).resolve().parents[2] / "LICENSE").read_text()
