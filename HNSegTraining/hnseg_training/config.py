"""A training run as data: frozen dataclasses, read from YAML, unknown keys refused with the nearest known one."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from hnseg.errors import ConfigError
from hnseg.models.metadata import BACKGROUND
from hnseg.organs import ORGANS, Organ, find_organs
from hnseg.plain import from_plain, nearest
from hnseg.preprocessing import PreprocessSettings

Part = Literal["training", "selection", "held-out"]
_LARGEST_SEED = 2**31


def _within(config: Any, low: float, high: float, *names: str) -> None:
    """``ConfigError`` unless these settings, or each number of a tuple, are finite and from ``low`` to ``high``."""
    reach = f"values of {low:g} or more" if high == math.inf else f"values from {low:g} to {high:g}"
    _each(config, names, lambda number: low <= number <= high, reach)


def _above_zero(config: Any, *names: str) -> None:
    _each(config, names, lambda number: number > 0, "values above 0")


def _each(config: Any, names: Iterable[str], fits: Callable[[float], bool], reach: str) -> None:
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not (math.isfinite(number) and fits(number)):
                raise ConfigError(f"{name} needs {reach}, got {value}; correct it.")


@dataclass(frozen=True, slots=True)
class CohortConfig:
    """Where cases come from, and how often a patch is drawn from them (``share``, relative to the other cohorts).

    ``source``: "phantom" (one seed a case, from ``seed`` on; ``variation`` scales the anatomical variation), "curated"
    (what `hnseg curate` wrote), "hanseg" (a folder in HaN-Seg's layout) or "openkbp". ``fold`` (n, k) sets every k-th
    patient from the n-th on apart, with all cases of theirs; ``part`` says whether those ("held-out") or the others
    are meant. ``inner_fold`` does the same among the others: "selection" means the ones apart. ``patients``:
    false for phantoms that were written to disk, whose organs no patient then taught. ``registered``: where the second
    image lies is known, as in PET/CT: its transform is the case's own, or without one the two share one frame.
    ``phantom_size``: "organs" cuts the CT to the surroundings (``margin_mm``) of the organs ``around`` (empty means
    all) and draws pixels and slices from ``pixel_mm`` and ``slice_mm``; the others are whole scans.
    ``unions``: structures that a curated cohort has beside the organs (``Larynx``), each with the organs that it is
    made of; those that a case has on their own stay out of it.
    """

    source: Literal["phantom", "curated", "hanseg", "openkbp"] = "phantom"
    path: str = ""
    cases: int = 100
    seed: int = 1000
    variation: float = 1.0
    share: float = 1.0
    fold: tuple[int, int] = (0, 0)
    inner_fold: tuple[int, int] = (0, 0)
    part: Part = "training"
    patients: bool = True
    registered: bool = False
    phantom_size: Literal["organs", "small", "medium", "full"] = "organs"
    around: tuple[str, ...] = ()
    margin_mm: float = 45.0
    pixel_mm: tuple[float, float] = (1.2, 1.5)
    slice_mm: tuple[float, float] = (2.0, 3.0)
    unions: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        find_organs(self.around)
        parts = [organ for organs in self.unions.values() for organ in find_organs(organs)]
        if len(set(parts)) < len(parts) or not all(self.unions.values()):
            raise ConfigError(f"Each union needs organs of its own, got {self.unions}; name every organ once.")
        if self.unions and self.source != "curated":
            raise ConfigError(f"unions are read from curated cases, not from source {self.source!r}; curate it first.")
        if self.source != "phantom" and not self.path:
            raise ConfigError(f"A cohort of source {self.source!r} needs a path, got none; give the cohort's folder.")
        _within(self, 1, math.inf, "cases")
        _within(self, 0, _LARGEST_SEED, "seed")
        _within(self, 0, math.inf, "variation", "margin_mm", "fold")
        _above_zero(self, "share", "pixel_mm", "slice_mm")
        index, folds = self.fold
        if index >= max(folds, 1):
            raise ConfigError(
                f"fold needs a number below that of the folds, got {self.fold}; the first is (0, {folds})."
            )
        for name in ("pixel_mm", "slice_mm"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"{name} needs the smaller number first, got {(low, high)}; exchange them.")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """A network of ``hnseg.models.networks`` by name, with its arguments (in and out channels are filled in).

    ``smoke``: arguments that a smoke run replaces, so that it is as deep but narrower.
    """

    name: str = "subpixel_unet"
    arguments: dict[str, Any] = field(default_factory=dict)
    smoke: dict[str, Any] = field(default_factory=dict)
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels"):
            if name in self.arguments or name in self.smoke:
                raise ConfigError(f"A network's {name} follow from preprocess and organs; leave them out.")


@dataclass(frozen=True, slots=True)
class PatchConfig:
    """Patch sampling: ``size_kji`` voxels, centred on an organ drawn uniformly with probability ``organ_share``.

    ``predict_kji``: size of the predictor's windows where it differs, as for 2D networks.
    """

    size_kji: tuple[int, int, int] = (80, 112, 112)
    predict_kji: tuple[int, int, int] | None = None
    organ_share: float = 0.85
    jitter: float = 0.3

    def __post_init__(self) -> None:
        _within(self, 1, math.inf, "size_kji", *(["predict_kji"] if self.predict_kji else []))
        _within(self, 0, 1, "organ_share")
        _within(self, 0, math.inf, "jitter")


@dataclass(frozen=True, slots=True)
class AugmentationConfig:
    """Ranges and probabilities. A mirror swaps the labels of left and right in the same step.

    ``in_plane``: turn about the body's axis only, as for 2D networks.
    ``elastic_mm``: deviation of a smooth displacement whose knots are ``elastic_knots_mm`` apart. ``grid_limit``: share
    by which each of ``grid_cells`` cells along an axis is widened or narrowed; a patch is bent in one way or the other.
    ``bias``: largest
    coefficient of MONAI's bias field of the MR. ``streak_hu``: strength of metal streaks in the CT.
    ``mr_dropout``: at 1 the network takes no MR, as with ``preprocess.takes_mr: false``.
    """

    mirror_probability: float = 0.0
    elastic_probability: float = 0.0
    elastic_mm: float = 3.0
    elastic_knots_mm: float = 24.0
    grid_probability: float = 0.0
    grid_cells: int = 5
    grid_limit: float = 0.3
    bias_probability: float = 0.0
    bias: float = 0.3
    streak_probability: float = 0.0
    streak_hu: float = 400.0
    mr_turn_deg: float = 0.0
    affine_probability: float = 0.5
    in_plane: bool = False
    rotation_deg: float = 12.0
    zoom: float = 0.15
    contrast: float = 0.2
    brightness: float = 0.15
    noise: float = 0.08
    blur_probability: float = 0.2
    mr_dropout: float = 0.35
    mr_cut_probability: float = 0.2
    mr_shift_mm: float = 2.0

    def __post_init__(self) -> None:
        names = [field.name for field in dataclasses.fields(self) if field.name != "in_plane"]
        shares = [name for name in names if name.endswith("_probability") or name == "mr_dropout"]
        _within(self, 0, 1, *shares)
        _within(self, 0, math.inf, *(name for name in names if name not in shares))
        _above_zero(self, "elastic_knots_mm")
        if self.elastic_probability + self.grid_probability > 1:
            raise ConfigError(
                "A patch is bent in one way or the other: elastic_probability and grid_probability are at most 1 "
                f"together, got {self.elastic_probability:g} and {self.grid_probability:g}."
            )
        if self.grid_cells < 1 or not 0 <= self.grid_limit < 1:
            raise ConfigError(
                "Grid distortion needs grid_cells of at least 1 and a grid_limit from 0 up to 1 (excluded, it would "
                f"fold), got {self.grid_cells} and {self.grid_limit:g}."
            )


LOSS_TERMS = ("dice_cross_entropy", "cross_entropy", "focal", "soft_dice", "generalised_dice", "boundary")


@dataclass(frozen=True, slots=True)
class LossConfig:
    """A weighted sum of ``terms`` (of ``LOSS_TERMS``), whose weights move to ``final_terms`` during training.

    ``gamma``: of the focal loss. ``class_weights``: small organs weigh more in entropies ("volume") or not ("none").
    ``adapt_to_organs``: organs that validate badly weigh more. ``mixup``: pairs of patches are blended, the partner
    drawn evenly ("plain") or with small organs preferred ("weighted"); ``mixup_alpha`` is the Beta distribution's.
    """

    terms: dict[str, float] = field(default_factory=lambda: {"dice_cross_entropy": 1.0})
    final_terms: dict[str, float] = field(default_factory=dict)
    gamma: float = 2.0
    class_weights: Literal["volume", "none"] = "volume"
    adapt_to_organs: bool = False
    mixup: Literal["none", "plain", "weighted"] = "none"
    mixup_alpha: float = 0.2

    def __post_init__(self) -> None:
        for name in (*self.terms, *self.final_terms):
            if name not in LOSS_TERMS:
                raise ConfigError(f"No loss is called {name!r}; {nearest(name, LOSS_TERMS)}")
        if not self.terms:
            raise ConfigError(f"A loss needs terms, got none; name one or more of {', '.join(LOSS_TERMS)}.")
        for weights in (self.terms, self.final_terms):
            if not all(math.isfinite(weight) and weight >= 0 for weight in weights.values()):
                raise ConfigError(f"The losses' weights need values of 0 or more, got {weights}; correct them.")
        _within(self, 0, math.inf, "gamma")
        _above_zero(self, "mixup_alpha")


@dataclass(frozen=True, slots=True)
class OptimisationConfig:
    """Optimiser, schedule, checkpoints.

    ``schedule``: after ``warmup_steps`` "linear" is constant, then falls over the last ``decay_share`` of the steps;
    "cosine" falls from the start; "restarts" is a cosine anew every ``restart_steps``; "plateau", which has no warm-up,
    is divided by ten after ``patience`` validations without a better loss. All end at ``least_learning_rate``. Every
    ``validate_every`` steps (0: never) the loss of ``validation_patches`` unseen, unaugmented patches is measured: the
    best checkpoint, "plateau" and ``stop_after`` (validations without a better loss; 0: never) follow it, and the last
    checkpoint, else saved every ``checkpoint_every`` steps, is that after the last validation. ``precision``: "auto" is
    bf16 on a GPU and float32 elsewhere.
    """

    steps: int = 2000
    batch_size: int = 1
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = 2e-3
    least_learning_rate: float = 0.0
    weight_decay: float = 1e-2
    schedule: Literal["linear", "cosine", "restarts", "plateau"] = "linear"
    warmup_steps: int = 50
    decay_share: float = 0.4
    restart_steps: int = 0
    patience: int = 3
    validate_every: int = 0
    validation_patches: int = 16
    stop_after: int = 0
    gradient_clip: float = 1.0
    ema_decay: float = 0.99
    checkpoint_every: int = 100
    loader_workers: int = 1
    precision: Literal["auto", "float32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        if self.schedule == "restarts" and self.restart_steps < 1:
            raise ConfigError(f"The schedule 'restarts' needs restart_steps of 1 or more, got {self.restart_steps}.")
        if (self.schedule == "plateau" or self.stop_after) and not self.validate_every:
            raise ConfigError("The schedule 'plateau' and stop_after follow the validation loss; set validate_every.")
        _within(self, 1, math.inf, "steps", "batch_size", "validation_patches", "checkpoint_every")
        _within(self, 0, math.inf, "learning_rate", "least_learning_rate", "weight_decay", "gradient_clip")
        _within(self, 0, math.inf, "warmup_steps", "restart_steps", "patience", "validate_every", "stop_after")
        _within(self, 0, math.inf, "loader_workers")
        _within(self, 0, 1, "decay_share", "ema_decay")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One system.

    ``validation``: cohorts to score. ``selection``: those of the validation loss; empty means ``validation``.
    ``start_from``: a model bundle or a run's folder whose weights training starts from. ``freeze``: share of the
    layers, counted from the input, that keep them. ``organs``: what the network tells apart; empty means all.
    """

    name: str
    title: str = ""
    version: str = "0.1.0"
    seed: int = 0
    start_from: str = ""
    freeze: float = 0.0
    organs: tuple[str, ...] = ()
    cohorts: tuple[CohortConfig, ...] = (CohortConfig(),)
    validation: tuple[CohortConfig, ...] = ()
    selection: tuple[CohortConfig, ...] = ()
    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    patch: PatchConfig = field(default_factory=PatchConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimisation: OptimisationConfig = field(default_factory=OptimisationConfig)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w .+-]*", self.name):
            raise ConfigError(f"name is that of the run's folder, got {self.name!r}; use letters, digits, . + - and _.")
        if not self.cohorts:
            raise ConfigError("A training needs cases; name one or more cohorts.")
        _within(self, 0, _LARGEST_SEED, "seed")
        if not 0.0 <= self.freeze < 1.0:
            raise ConfigError(f"freeze is a share of the layers from 0 up to 1 (excluded), got {self.freeze}.")
        if self.optimisation.validate_every and not (self.selection or self.validation):
            raise ConfigError("validate_every needs cases that are not trained on; name cohorts under validation.")
        find_organs(self.organs)
        if self.augmentation.mr_dropout >= 1.0:
            object.__setattr__(self, "preprocess", dataclasses.replace(self.preprocess, takes_mr=False))

    @property
    def classes(self) -> tuple[Organ, ...]:
        """The organs that the network tells apart, in the order of its channels after the background."""
        return find_organs(self.organs) if self.organs else ORGANS

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the network's channels."""
        return (BACKGROUND, *(organ.name for organ in self.classes))


def load_config(path: Path) -> TrainConfig:
    """Read a YAML file; unknown keys and ill-typed values raise ``ConfigError`` naming the key."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _EachKeyOnce)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"The configuration {path} cannot be read ({reason}); give a YAML file.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"The configuration {path} holds no keys; see HNSegTraining/configs for examples.")
    return from_plain(TrainConfig, data, where=f"the configuration {path.name}")


def with_steps(config: TrainConfig, steps: int) -> TrainConfig:
    """The same run, for another number of steps; its schedule is stretched or shortened with it."""
    return dataclasses.replace(config, optimisation=dataclasses.replace(config.optimisation, steps=steps))


def smoke(config: TrainConfig) -> TrainConfig:
    """A run of four steps on two coarse phantoms, to see that everything works; its folder is named apart."""
    patch, settings = config.patch, config.optimisation
    predict = patch.predict_kji and (min(patch.predict_kji[0], 8), *_SMOKE_KJI[1:])
    return dataclasses.replace(
        config,
        name=f"{config.name}-smoke",
        start_from="",
        cohorts=(CohortConfig(cases=2, seed=config.seed),),
        validation=(CohortConfig(cases=1, seed=config.seed + 900_000),),
        selection=(),
        preprocess=dataclasses.replace(config.preprocess, spacing_mm=(4.0, 4.0, 4.0)),
        network=dataclasses.replace(
            config.network, arguments={**config.network.arguments, **config.network.smoke}, compile=False
        ),
        patch=dataclasses.replace(
            patch, size_kji=(min(patch.size_kji[0], _SMOKE_KJI[0]), *_SMOKE_KJI[1:]), predict_kji=predict
        ),
        optimisation=dataclasses.replace(
            settings,
            steps=4,
            batch_size=min(settings.batch_size, 2),
            warmup_steps=1,
            restart_steps=min(settings.restart_steps, 2),
            validate_every=min(settings.validate_every, 2),
            validation_patches=2,
            checkpoint_every=2,
            loader_workers=0,
        ),
    )


_SMOKE_KJI = (32, 64, 64)


class _EachKeyOnce(yaml.SafeLoader):
    """YAML would keep the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        name, count = names.most_common(1)[0] if names else ("", 0)
        if count > 1:
            raise yaml.constructor.ConstructorError(problem=f"{name!r} is set twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)
