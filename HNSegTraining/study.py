"""The seed reports' claims, tried on phantom cohorts and on real CTs under equal small budgets.

Every network is narrowed to 8 filters at its finest level, works at 4 mm, and trains for the same number of steps at
the same learning rate; the variants of a claim differ in what it is about and in nothing else.

    python HNSegTraining/study.py --runs runs/study --page docs/systems.md

A run that is there is only read, an interrupted one goes on, and ``--no-run`` reads alone. Tables go to standard
output, the summary between the page's two markers, the figure beside the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hnseg.evaluation.cohort import Cohort
from hnseg.evaluation.statistics import PairedTest, paired_tests
from hnseg.image.files import atomic_write
from hnseg.plain import from_plain, to_plain
from hnseg_training.comparison import compare_systems
from hnseg_training.config import TrainConfig, load_config, smoke, with_steps
from hnseg_training.systems import SCORES, scored
from study_claims import CLAIMS, NOISE, Claim, Overrides, Variant
from study_cohorts import StudyCohort, study_cohorts

CONFIGS = Path(__file__).parent / "configs"
FILTERS = 8
SURE = 0.05
MARKER = "<!-- study -->"


def main() -> int:
    """Try the claims that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*", help=f"of {', '.join(claim.key for claim in CLAIMS)}")
    parser.add_argument("--runs", type=Path, default=Path("runs/study"))
    parser.add_argument("--openkbp", type=Path, default=Path("../shared/data/openkbp"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--no-run", action="store_true", help="leave out what has not been trained")
    parser.add_argument("--page", type=Path, help="put the summary and its figure here")
    arguments = parser.parse_args()
    study = Study(arguments.runs, arguments.steps, arguments.openkbp, train=not arguments.no_run)
    tried: dict[str, list[Cohort]] = {}
    for claim in CLAIMS:
        if (not arguments.claims or claim.key in arguments.claims) and study.can_try(claim):
            systems = study.systems(claim)
            tables = compare_systems(systems, arguments.runs / f"{claim.key}-comparison")
            tried[claim.key] = [next(iter(system.values())) for system in systems]
            sys.stdout.write(f"### {claim.key}: {claim.said}\n\n{tables}\n")
            sys.stdout.flush()
    if arguments.page:
        write_page(arguments.page, tried, arguments.steps)
    return 0


class Study:
    """The runs of all claims in one folder."""

    def __init__(self, runs: Path, steps: int, openkbp: Path, *, train: bool) -> None:
        self.runs, self.steps, self.train = runs, steps, train
        self.cohorts = study_cohorts(runs / "cohorts", openkbp, on_progress=_say)

    def can_try(self, claim: Claim) -> bool:
        """Whether it may train, or all of the claim has been trained."""
        runs = [self.runs / run_name(claim, variant) for variant in claim.variants]
        return self.train or all((run / SCORES).exists() for run in runs)

    def systems(self, claim: Claim) -> list[Mapping[str, Cohort]]:
        """Each variant's scores by title; what is missing is trained."""
        return [self._scored(claim, variant) for variant in claim.variants]

    def _scored(self, claim: Claim, variant: Variant) -> Mapping[str, Cohort]:
        if variant.start:
            noise = next(claim for claim in CLAIMS if claim.key == NOISE)
            self._scored(noise, noise.variants[0])
        config = small(variant, self.cohorts[variant.cohort or claim.cohort], self.steps)
        start = str(self.runs / variant.start) if variant.start else ""
        config = dataclasses.replace(config, name=run_name(claim, variant), start_from=start)
        return scored(config, self.runs, on_progress=_say)


def run_name(claim: Claim, variant: Variant) -> str:
    """Cohort, configuration and variant: runs that several claims share have one name."""
    return "-".join(filter(None, (variant.cohort or claim.cohort, variant.base, variant.name)))


def small(variant: Variant, cohort: StudyCohort, steps: int) -> TrainConfig:
    """The variant's configuration, narrowed, with few steps, on the study's cohort."""
    full = load_config(CONFIGS / f"{variant.base}.yaml")
    narrow = {k: v for k, v in full.network.smoke.items() if not k.endswith("filters")}
    scaled = {k: narrowed(v) for k, v in full.network.arguments.items() if k.endswith("filters")}
    network = dataclasses.replace(full.network, smoke={**narrow, **scaled})
    config = with_steps(smoke(dataclasses.replace(full, network=network)), steps)
    config = dataclasses.replace(config, cohorts=cohort.training, validation=(cohort.unseen,))
    budget: Overrides = {
        "optimisation.batch_size": min(full.optimisation.batch_size, 4),
        "optimisation.learning_rate": 2e-3,
        "optimisation.schedule": "linear",
        "optimisation.warmup_steps": 20,
        "optimisation.validate_every": 50 if full.loss.adapt_to_organs else 0,
        "optimisation.stop_after": 0,
        "optimisation.checkpoint_every": 100,
    }
    return changed(config, {**budget, **variant.changes})


def narrowed(filters: Any) -> Any:
    """The same widths relative to each other, the finest being 8."""
    widths = filters if isinstance(filters, list) else [filters]
    scaled = [max(FILTERS, round(width * FILTERS / min(widths))) for width in widths]
    return scaled if isinstance(filters, list) else scaled[0]


def changed(config: TrainConfig, changes: Overrides) -> TrainConfig:
    """Another value for each setting named by its path; a path that does not exist raises ``ConfigError``."""
    plain = to_plain(config)
    for path, value in changes.items():
        *folders, last = path.split(".")
        place = plain
        for folder in folders:
            place = place[folder]
        place[last] = value
    return from_plain(TrainConfig, plain, where=f"The variant of {config.name}")


@dataclass(frozen=True)
class Finding:
    """The claim's last variant against its first. ``noise``: how far seeds alone lie apart, None where not known."""

    test: PairedTest
    noise: float | None

    @property
    def words(self) -> str:
        """What can be said: a difference counts if it is unlikely by chance and larger than between seeds."""
        if not self.test.p < SURE:
            return "no difference can be told"
        if self.noise is not None and abs(self.test.difference) <= self.noise:
            return "no more than seeds differ"
        words = "as claimed" if self.test.difference > 0 else "**the other way round**"
        return words if self.noise is not None else f"{words}, seeds not compared"


def noise_of(tried: Mapping[str, Sequence[Cohort]]) -> float | None:
    """The largest difference in mean DSC between trainings that differ in their seed alone; None if unknown."""
    means = [cohort.mean()["dsc"] for cohort in tried.get(NOISE, ())]
    return max(means) - min(means) if means else None


def summary(tried: Mapping[str, Sequence[Cohort]], steps: int) -> Iterator[str]:
    """The lines of the page."""
    noise = noise_of(tried)
    apart = "have not been run" if noise is None else f"lie {100 * noise:.1f} apart"
    yield f"{steps} steps each. Trainings of one system that differ in their seed alone {apart}."
    yield ""
    yield "| report | claim | DSC, % | last − first, 95 % interval | p | n | what we see | `study.py …` |"
    yield "|---|---|---|---|---|---|---|---|"
    yield from (_row(claim, tried[claim.key], noise) for claim in CLAIMS if claim.key in tried)
    missing = [claim.key for claim in CLAIMS if claim.key not in tried]
    if missing:
        yield f"\nNot run: {', '.join(missing)}."


def _row(claim: Claim, systems: Sequence[Cohort], noise: float | None) -> str:
    test = paired_tests(systems[-1], systems[0], "dsc")[0]
    shown = "; ".join(
        f"`{variant.name or variant.base}` {100 * system.mean()['dsc']:.1f}"
        for variant, system in zip(claim.variants, systems, strict=True)
    )
    words = Finding(test, noise).words if claim.ordered else "–"
    d, low, high = (f"{100 * value:+.1f}" for value in (test.difference, test.low, test.high))
    cells = (claim.report, claim.said, shown, f"{d} ({low} … {high})", f"{test.p:.2g}", test.cases, words, claim.key)
    return f"| {' | '.join(map(str, cells))} |"


def write_page(page: Path, tried: Mapping[str, Sequence[Cohort]], steps: int) -> None:
    """Put the summary between the page's markers, and the figure beside it."""
    figure = page.with_name("systems.png")
    before, _, after = page.read_text().split(MARKER)
    text = "\n".join(summary(tried, steps))
    picture = f"![Mean DSC of every unseen case, by claim and variant]({figure.name})"
    with atomic_write(page) as partial:
        partial.write_text(f"{before}{MARKER}\n{text}\n\n{picture}\n{MARKER}{after}")
    with atomic_write(figure) as partial:
        plot(tried).savefig(partial, format="png", dpi=80)


def plot(tried: Mapping[str, Sequence[Cohort]]) -> Figure:
    """A row per variant: a dot for each unseen case's mean DSC, a bar for their mean."""
    rows = [
        (claim, variant, system)
        for claim in CLAIMS
        if claim.key in tried
        for variant, system in zip(claim.variants, tried[claim.key], strict=True)
    ]
    figure = Figure(figsize=(8, 0.23 * len(rows) + 0.7), layout="constrained")
    axes = figure.subplots()
    for y, (claim, _, system) in enumerate(rows):
        values = [100 * scores.mean()["dsc"] for _, scores in system.cases]
        colour = f"C{[one.key for one in CLAIMS].index(claim.key) % 10}"
        axes.plot(values, [y] * len(values), ".", color=colour, alpha=0.6)
        axes.plot([float(np.mean(values))] * 2, [y - 0.35, y + 0.35], color=colour, linewidth=2)
    names = [f"{claim.key}: {variant.name or variant.base}" for claim, variant, _ in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("DSC of an unseen case, mean over its organs, %", fontsize=8)
    axes.grid(axis="x", linewidth=0.3)
    return figure


def _say(fraction: float, text: str) -> None:
    sys.stderr.write(f"{fraction:4.0%} {text}\n")


if __name__ == "__main__":
    sys.exit(main())
