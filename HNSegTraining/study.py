"""The published systems' claims, tried on one phantom cohort under equal small budgets.

Each claim is a base configuration with variants that differ in what the claim is about and in nothing else. Every
network is narrowed to 8 filters at its finest level and works at 4 mm; a variant takes about a minute on one core:
``python HNSegTraining/study.py --runs runs/study``. The tables go to standard output; a run that is there is only read.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hnseg.phantom import PhantomOptions
from hnseg.phantom.cohort import write_cohort
from hnseg.plain import from_plain, to_plain
from hnseg_training.config import CohortConfig, TrainConfig, load_config, smoke, with_steps
from hnseg_training.systems import compare, scored

CONFIGS = Path(__file__).parent / "configs"
FILTERS = 8

Overrides = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """What was said, and the variants that try it: settings to change, by name; the first is the one to beat."""

    key: str
    said: str
    base: str
    variants: Mapping[str, Overrides] = field(default_factory=dict)


NETWORK = "network.arguments"
CLAIMS = (
    Claim(
        "residual",
        "003: without residual units the 2D U-Net collapses",
        "resunet2d",
        {"plain": {f"{NETWORK}.residual_units": 0}, "residual": {}},
    ),
    Claim(
        "mixup",
        "003: mixup, weighted for small organs, helps",
        "resunet2d",
        {"none": {"loss.mixup": "none"}, "plain": {"loss.mixup": "plain"}, "weighted": {}},
    ),
    Claim(
        "focal",
        "000: focal cross-entropy fits better than weighted cross-entropy",
        "unet2p5d",
        {"entropy": {"loss.terms": {"cross_entropy": 1.0}}, "focal": {}},
    ),
    Claim(
        "norm",
        "002: at batch size 1, instance norm 0.729, batch norm 0.490",
        "rrse-unet",
        {"batch": {f"{NETWORK}.norm": "batch"}, "instance": {}},
    ),
    Claim(
        "pathway",
        "002: with upsampling pathway 0.716, without 0.688",
        "rrse-unet",
        {"without": {f"{NETWORK}.upsampling_pathway": False}, "with": {}},
    ),
    Claim(
        "weights",
        "004: dynamic weights 73.2, fixed ones 57.4",
        "res3dunet",
        {"fixed": {"loss.final_terms": {}, "loss.adapt_to_organs": False}, "dynamic": {}},
    ),
    Claim(
        "transfer",
        "004: new organs from scratch 47.5, transferred 50.6, first half frozen 54.6",
        "res3dunet-transfer",
        {"scratch": {"start_from": "", "freeze": 0.0}, "transferred": {"freeze": 0.0}, "frozen": {}},
    ),
    Claim("unetr", "004: Res3DUNet 77.1, UNETR 73.7", "unetr", {"unetr": {}}),
)


def main() -> int:
    """Try the claims that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("claims", nargs="*", help=f"of {', '.join(claim.key for claim in CLAIMS)}")
    parser.add_argument("--runs", type=Path, default=Path("runs/study"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--cases", type=int, default=16, help="patients, of which every fourth is held out")
    arguments = parser.parse_args()
    cohort = _cohort(arguments.runs / "cohort", arguments.cases)
    for claim in CLAIMS:
        if not arguments.claims or claim.key in arguments.claims:
            if claim.key == "transfer":
                scored(_baseline(cohort, arguments), arguments.runs, on_progress=_say)
            configs = _configs(claim, cohort, arguments)
            tables = compare(configs, arguments.runs, arguments.runs / f"{claim.key}-comparison", on_progress=_say)
            sys.stdout.write(f"### {claim.said}\n\n{tables}\n")
            sys.stdout.flush()
    return 0


def _configs(claim: Claim, cohort: CohortConfig, arguments: argparse.Namespace) -> list[TrainConfig]:
    found = [
        _small(claim.base, claim.key, name, changes, cohort, arguments) for name, changes in claim.variants.items()
    ]
    return [_baseline(cohort, arguments), *found] if claim.key == "unetr" else found


def _baseline(cohort: CohortConfig, arguments: argparse.Namespace) -> TrainConfig:
    """What the transfer starts from and UNETR is compared with."""
    return _small("res3dunet", "weights", "dynamic", {}, cohort, arguments)


def _small(
    base: str, key: str, name: str, changes: Overrides, cohort: CohortConfig, arguments: argparse.Namespace
) -> TrainConfig:
    """The base configuration with the claim's changes, narrowed and on the study's cohort."""
    full = load_config(CONFIGS / f"{base}.yaml")
    narrow = {k: v for k, v in full.network.smoke.items() if not k.endswith("filters")}
    scaled = {k: _narrowed(v) for k, v in full.network.arguments.items() if k.endswith("filters")}
    network = dataclasses.replace(full.network, smoke={**narrow, **scaled})
    small = with_steps(smoke(dataclasses.replace(full, network=network)), arguments.steps)
    start = str(arguments.runs / "weights-dynamic") if full.start_from else ""
    settings = dataclasses.replace(
        small.optimisation,
        batch_size=min(full.optimisation.batch_size, 4),
        learning_rate=2e-3,
        schedule="linear",
        warmup_steps=20,
        validate_every=50 if full.optimisation.validate_every else 0,
        stop_after=0,
        checkpoint_every=100,
    )
    plain = to_plain(
        dataclasses.replace(
            small,
            name=f"{key}-{name}",
            start_from=start,
            cohorts=(cohort,),
            validation=(dataclasses.replace(cohort, part="held-out"),),
            optimisation=settings,
        )
    )
    for path, value in changes.items():
        *folders, last = path.split(".")
        place = plain
        for folder in folders:
            place = place[folder]
        place[last] = value
    return from_plain(TrainConfig, plain, where=f"The variant {key}-{name}")


def _narrowed(filters: Any) -> Any:
    """The same widths relative to each other, the finest being 8."""
    widths = filters if isinstance(filters, list) else [filters]
    scaled = [max(FILTERS, round(width * FILTERS / min(widths))) for width in widths]
    return scaled if isinstance(filters, list) else scaled[0]


def _cohort(folder: Path, cases: int) -> CohortConfig:
    """Phantoms without MR, written once, in HaN-Seg's layout."""
    write_cohort(folder, cases=cases, seed=40, size="small", options=PhantomOptions(mr=False), on_progress=_say)
    return CohortConfig(source="hanseg", path=str(folder), cases=cases, fold=(0, 4))


def _say(fraction: float, text: str) -> None:
    sys.stderr.write(f"{fraction:4.0%} {text}\n")


if __name__ == "__main__":
    sys.exit(main())
