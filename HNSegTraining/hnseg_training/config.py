"""A training run as data: frozen dataclasses, read from YAML, unknown keys refused with the nearest known one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from hnseg.errors import ConfigError
from hnseg.plain import from_plain
from hnseg.preprocessing import PreprocessSettings


@dataclass(frozen=True, slots=True)
class CohortConfig:
    """Where cases come from, and how often a patch is drawn from them (``share``, relative to the other cohorts).

    ``source``: "phantom" (one seed a case, from ``seed`` on; ``variation`` scales the anatomical variation), "hanseg"
    (a folder in HaN-Seg's layout) or "openkbp". ``fold`` (n, k) sets every k-th case from the n-th on apart; ``part``
    says whether those or the others are meant. ``phantom_size``: "organs" cuts the CT to the organs' surroundings, the
    others are whole scans.
    """

    source: Literal["phantom", "hanseg", "openkbp"] = "phantom"
    path: str = ""
    cases: int = 100
    seed: int = 1000
    variation: float = 1.0
    share: float = 1.0
    fold: tuple[int, int] = (0, 0)
    part: Literal["training", "held-out"] = "training"
    phantom_size: Literal["organs", "small", "medium", "full"] = "organs"

    def __post_init__(self) -> None:
        if self.source != "phantom" and not self.path:
            raise ConfigError(f"A cohort of source {self.source!r} needs a path, got none; give the cohort's folder.")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """A network of ``hnseg.models.networks`` by name, with its arguments (in and out channels are filled in)."""

    name: str = "subpixel_unet"
    arguments: dict[str, Any] = field(default_factory=dict)
    compile: bool = False


@dataclass(frozen=True, slots=True)
class PatchConfig:
    """Patch sampling: ``size_kji`` voxels, centred on an organ drawn uniformly with probability ``organ_share``."""

    size_kji: tuple[int, int, int] = (80, 112, 112)
    organ_share: float = 0.85
    jitter: float = 0.3


@dataclass(frozen=True, slots=True)
class AugmentationConfig:
    """Ranges and probabilities; a mirror is not among them, because left and right are different organs."""

    affine_probability: float = 0.5
    rotation_deg: float = 12.0
    zoom: float = 0.15
    contrast: float = 0.2
    brightness: float = 0.15
    noise: float = 0.08
    blur_probability: float = 0.2
    mr_dropout: float = 0.35
    mr_cut_probability: float = 0.2
    mr_shift_mm: float = 2.0


@dataclass(frozen=True, slots=True)
class OptimisationConfig:
    """AdamW; warm-up, a constant stretch, then a linear decay to zero over the last ``decay_share`` of the steps."""

    steps: int = 2000
    batch_size: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 50
    decay_share: float = 0.4
    gradient_clip: float = 1.0
    ema_decay: float = 0.99
    checkpoint_every: int = 100
    loader_workers: int = 1


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One system. ``start_from``: a model bundle or a run's folder whose weights training starts from."""

    name: str
    title: str = ""
    version: str = "0.1.0"
    seed: int = 0
    start_from: str = ""
    cohorts: tuple[CohortConfig, ...] = (CohortConfig(),)
    validation: tuple[CohortConfig, ...] = ()
    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    patch: PatchConfig = field(default_factory=PatchConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimisation: OptimisationConfig = field(default_factory=OptimisationConfig)


def load_config(path: Path) -> TrainConfig:
    """Read a YAML file; unknown keys and ill-typed values raise ``ConfigError`` naming the key."""
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"The configuration {path} cannot be read ({error}); give a YAML file.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"The configuration {path} holds no keys; see HNSegTraining/configs for examples.")
    return from_plain(TrainConfig, data, where=f"the configuration {path.name}")


def with_steps(config: TrainConfig, steps: int) -> TrainConfig:
    """The same run, for another number of steps; its schedule is stretched or shortened with it."""
    return dataclasses.replace(config, optimisation=dataclasses.replace(config.optimisation, steps=steps))


def smoke(config: TrainConfig) -> TrainConfig:
    """A run of a few steps on two phantoms, to see that everything works; its folder is named apart."""
    return dataclasses.replace(
        with_steps(config, 4),
        name=f"{config.name}-smoke",
        cohorts=(CohortConfig(cases=2, seed=config.seed),),
        patch=dataclasses.replace(config.patch, size_kji=(32, 48, 48)),
    )
