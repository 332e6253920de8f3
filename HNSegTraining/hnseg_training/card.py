"""The model card: what a network is, what it saw, how well it does and where it fails."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from hnseg.evaluation.observers import PUBLISHED_DSC
from hnseg.models.metadata import BundleMetadata
from hnseg.organs import BY_NAME
from hnseg.terminology import taught_words
from hnseg.version import RESEARCH_USE
from hnseg_training.calibration import BAD_DSC, FOLDS, Flagging, cross_fitted, flagging, judged
from hnseg_training.config import TrainConfig

RELIABILITY = "reliability.svg"
WORST = "worst"
"""The diagram, and the folder of pictures, beside the card."""

_PUBLISHED = """\
## What to compare with

On HaN-Seg's own hidden test cases (its challenge, 30 organs, CT and MR) the winner reached a mean DSC of 76.9 % and a
HD95 of 3.5 mm; a plain nnU-Net 77.5 % and 3.26 mm, as one group reports it; modality dropout, with 296 patients, 78.1 %
and 3.42 mm (Quetin et al.); the best self-reported result, on its authors' own split, 79.8 % and 2.47 mm. Two observers
agree to about 0.9 on mandible, brainstem and parotids, 0.8 on the submandibular glands, and less than 0.6 on lips and
buccal mucosa (Podobnik et al. 2023, doi:10.1002/mp.16197). Figures on phantoms compare with none of these."""


def training_data(config: TrainConfig) -> str:
    """One sentence on what the network saw."""
    parts, images = [], "CT and T1 MR" if config.preprocess.takes_mr else "CT"
    for cohort in config.cohorts:
        if cohort.source == "phantom":
            parts.append(f"{cohort.cases} procedural phantoms (all 30 organs, {images})")
        elif cohort.source == "openkbp":
            parts.append(
                "real planning CTs of OpenKBP (MIT licence; Babier et al. 2021, doi:10.1002/mp.14845; brainstem, cord, "
                "parotids, mandible, larynx and oesophagus drawn, no MR)"
            )
        else:
            whose = "" if cohort.patients else "phantom "
            kind = f"curated {whose}cases" if cohort.source == "curated" else f"{whose}cases in HaN-Seg's layout"
            parts.append(f"up to {cohort.cases} {kind}")
    return " and ".join(parts)


def model_card(config: TrainConfig, metadata: BundleMetadata, measured: Mapping[str, Any]) -> str:
    """The card, Markdown; ``measured``: a scores file of ``validate``, empty where there is none."""
    lines = [
        f"# {metadata.title}",
        "",
        f"**{RESEARCH_USE}**",
        "",
        f"Trained on {metadata.training_data}.",
        "",
        *_unseen_organs(metadata),
        f"- Network: `{config.network.name}` {json.dumps(metadata.network.arguments)}",
        f"- Input: {', '.join(config.preprocess.channels)} at {config.preprocess.spacing_mm} mm; {_without_mr(config)}",
        f"- Training: {config.optimisation.steps} steps, patches {config.patch.size_kji} (k, j, i), seed "
        f"{config.seed}{_started(config)}; `hnseg-train fit --config HNSegTraining/configs/…` repeats it",
        *_second_looks(metadata),
        f"- Licence: {metadata.licence}",
        "",
        *(_scores(metadata, measured) if measured else ["No scores were measured for this export."]),
        *_confidence(metadata, measured),
        *_worst(measured),
    ]
    return "\n".join(lines) + "\n"


def _without_mr(config: TrainConfig) -> str:
    if config.preprocess.takes_mr:
        return "without an MR its two channels are zero"
    return "the network takes no MR: its two channels are always zero"


def _started(config: TrainConfig) -> str:
    return f", from the weights of {config.start_from}" if config.start_from else ""


def _second_looks(metadata: BundleMetadata) -> list[str]:
    return [
        f"- Second look `{stage.name}`: `{stage.network.name}` at {stage.preprocess.spacing_mm} mm, patches "
        f"{stage.patch_kji}; decides {', '.join(stage.decides)}"
        for stage in metadata.stages
    ]


def _unseen_organs(metadata: BundleMetadata) -> list[str]:
    unseen = [name for name in metadata.organs if metadata.taught_by.get(name) == ("phantom",)]
    if not unseen:
        return []
    return [
        f"**Learnt from phantoms only: {', '.join(unseen)}.** No patient showed these organs to the network: expect "
        "failures on real images, and look at every contour.",
        "",
    ]


def _scores(metadata: BundleMetadata, measured: Mapping[str, Any]) -> list[str]:
    about, tables = measured["about"], measured["tables"]
    titles = dict.fromkeys(title.rpartition(":")[0] for title in tables)
    cases = ", ".join(f"{title}: {about['cases'][f'{title}: DSC']}" for title in titles)
    unions = sorted({name for table in tables.values() for name in table} - BY_NAME.keys() - {"mean"})
    rows = [_row(name, metadata, tables.values()) for name in (*BY_NAME, *unions, "mean")]
    return [
        "## Scores on unseen cases",
        "",
        f"Means per organ. Cases: {cases}. Refused: {len(about['failed'])}.",
        "",
        *_table(["organ", "learnt from", *tables, "between observers: DSC"], rows),
        "",
        _PUBLISHED,
        "",
    ]


def _row(name: str, metadata: BundleMetadata, tables: Iterable[Mapping[str, float | None]]) -> list[str]:
    taught = taught_words(metadata.taught_by.get(name, ())) or "–"
    ceiling = PUBLISHED_DSC.get(name)
    cells = [table.get(name) for table in tables]
    return [
        name,
        taught if name in BY_NAME else "–",
        *("–" if cell is None else f"{cell:.3f}" for cell in cells),
        "–" if ceiling is None else f"{ceiling:.1f}",
    ]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _confidence(metadata: BundleMetadata, measured: Mapping[str, Any]) -> list[str]:
    rows = judged(measured)
    if metadata.calibration is None:
        return []
    tested = cross_fitted(rows)
    kinds = sorted({row.kind for row in rows})
    flags = [_flag_row(kind, count, flagging(rows, tested, kind)) for kind, count in metadata.calibration.cases.items()]
    return [
        "## What the confidence is worth",
        "",
        f"The review gives, for each organ, the DSC that organs of such confidence had in cases ({', '.join(kinds)}) "
        f"that were not trained on, and flags it below {metadata.calibration.check_below:.2f}. Measured in {FOLDS} "
        "folds: curve and threshold come from the other folds' cases. Organs that were not found at all are not in "
        "these figures; the review names them.",
        "",
        *_table(
            ["", "cases", f"organs with DSC < {BAD_DSC:g}", "flagged", "other organs", "false alarms"],
            flags,
        ),
        "",
        f"![Reliability diagram]({RELIABILITY})",
        "",
    ]


def _flag_row(kind: str, cases: int, found: Flagging) -> list[str]:
    caught = f"{found.caught} ({found.caught / found.bad:.0%})" if found.bad else "–"
    alarms = f"{found.alarms} ({found.alarms / found.good:.0%})" if found.good else "–"
    return [kind, str(cases), str(found.bad), caught, str(found.good), alarms]


def _worst(measured: Mapping[str, Any]) -> list[str]:
    pictures = measured.get("worst", {})
    if not pictures:
        return []
    return [
        "## The worst of it",
        "",
        "The worst organs of the unseen phantoms, each in its worst case; drawn green, predicted red, both yellow. No "
        "patient is pictured.",
        "",
        *(line for name, caption in pictures.items() for line in (f"![{caption}]({WORST}/{name})", "", caption, "")),
    ]
