"""What a model bundle says about itself: frozen, checked when made, stored as the ``hnseg`` part of its metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hnseg.errors import ConfigError
from hnseg.models.calibration import Calibration
from hnseg.models.nnunet_input import NnunetSettings
from hnseg.organs import BY_NAME, find_organ
from hnseg.plain import nearest
from hnseg.preprocessing import PreprocessSettings

FORMAT = 1
"""Raised when an older engine could not use a newer bundle."""

BACKGROUND = "background"
MODEL = "model"
"""What the first network's weights are called."""
Teaching = Literal["phantom", "patient", "patient union"]
"""What showed an organ: phantoms; patients; patients on whom it was drawn as one with its neighbours."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """What ``hnseg.models.networks.build_network`` is called with.

    ``members``: how many networks of this kind, those of a cross-validation's folds say, have their probabilities
    averaged; each has weights of its own.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    members: int = 1

    def __post_init__(self) -> None:
        if self.members < 1:
            raise ConfigError(f"A network has at least one member, got {self.members}; correct the metadata.")

    def weight_files(self, stem: str) -> tuple[str, ...]:
        """The bundle's files with the weights of each member: ``stem`` alone, or numbered from 0."""
        names = (stem,) if self.members == 1 else tuple(f"{stem}-{n}" for n in range(self.members))
        return tuple(f"models/{name}.safetensors" for name in names)


@dataclass(frozen=True, slots=True)
class PostprocessSettings:
    """What is corrected after prediction. Every rule can be switched off; all are on by default.

    ``parts``: connected parts kept per organ where it differs from the organ table. ``spare_part``: a part of at least
    this share of the organ's largest is never removed, since a gap in a long thin organ must not cost half of it; above
    1 switches that off. ``body_margin_mm``: how far beyond the body's outline an organ may reach. ``near_place``: parts
    are removed that lie beyond an organ's usual place, as far as the bundle's atlas and the other organs tell it, by
    more than ``place_slack_mm`` (how people differ) and ``place_bend`` (the sine of how far a joint between them may be
    bent) times the distance to those others. ``joined``: groups of organs that training data drew as one; by the same
    atlas their voxels go to the member where they lie. ``volume_tolerance``: share by which a volume may leave its
    published range before a warning. ``ranges_ml``: ranges that differ from the organ table's.
    """

    largest_parts: bool = True
    parts: dict[str, int] = field(default_factory=dict)
    spare_part: float = 0.5
    fill_holes: bool = True
    inside_body: bool = True
    body_margin_mm: float = 3.0
    check_sides: bool = True
    near_place: bool = True
    place_slack_mm: float = 20.0
    place_bend: float = 0.5
    joined: tuple[tuple[str, ...], ...] = ()
    volume_tolerance: float = 0.25
    ranges_ml: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.parts, *self.ranges_ml, *(name for group in self.joined for name in group)):
            find_organ(name)
        if min(self.parts.values(), default=1) < 1:
            raise ConfigError(f"An organ keeps at least one part, got {self.parts}; correct the post-processing.")
        if any(high < low for low, high in self.ranges_ml.values()):
            raise ConfigError(f"ranges_ml needs (low, high) pairs, got {self.ranges_ml}; correct the post-processing.")
        if min(self.spare_part, self.body_margin_mm, self.place_bend, self.volume_tolerance) < 0:
            raise ConfigError("Post-processing shares and margins are at least 0; correct the settings.")
        if self.place_slack_mm <= 0:
            raise ConfigError(f"place_slack_mm is more than 0, got {self.place_slack_mm}; correct the post-processing.")


@dataclass(frozen=True, slots=True)
class Atlas:
    """Where organs usually lie, in one common frame, LPS mm, and how far they reach along its axes in all."""

    centres_mm: Mapping[str, tuple[float, float, float]]
    sizes_mm: Mapping[str, tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class InputLimits:
    """What the model was trained on; images outside are segmented all the same, with a warning.

    ``coarsest_spacing_mm``: largest voxel, along the axes nearest to x, y, z. ``body_median_hu``: range of the median
    HU inside the body.
    """

    coarsest_spacing_mm: tuple[float, float, float] = (2.5, 2.5, 4.5)
    body_median_hu: tuple[float, float] = (-100.0, 150.0)


@dataclass(frozen=True, slots=True)
class FineStage:
    """A second look at small organs: a network of its own on a finer grid, around where the first one located them.

    ``name``: of its weights, ``models/NAME.safetensors``. ``network``, ``preprocess``, ``patch_kji``, ``overlap`` and
    ``labels`` are as in ``BundleMetadata``. ``organs``: those whose voxels this stage decides, empty means all of
    ``labels``; its other classes are context. ``margin_mm``: how far it looks beyond what the first network saw of an
    organ, or beyond the organ's usual place where it saw nothing.
    """

    name: str
    network: NetworkSettings
    preprocess: PreprocessSettings
    patch_kji: tuple[int, int, int]
    labels: tuple[str, ...]
    organs: tuple[str, ...] = ()
    overlap: float = 0.5
    margin_mm: float = 8.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.split("-")[0] == MODEL:
            raise ConfigError(
                f"A stage's name is made of a-z, 0-9, '.', '_' and '-' and is not {MODEL!r}, got {self.name!r}."
            )
        _check_labels(self.labels)
        for name in self.organs:
            if name not in self.labels[1:]:
                raise ConfigError(f"The stage {self.name!r} has no class {name!r}; {nearest(name, self.labels[1:])}")
        if self.margin_mm < 0:
            raise ConfigError(f"margin_mm is at least 0, got {self.margin_mm}; correct the stage {self.name!r}.")

    @property
    def label_values(self) -> tuple[int, ...]:
        """The organ table's label of each class, in channel order; 0 first."""
        return _label_values(self.labels)

    @property
    def decides(self) -> tuple[str, ...]:
        """The organs that it is responsible for, in label order."""
        known = self.organs or self.labels[1:]
        return tuple(name for name in BY_NAME if name in known)


@dataclass(frozen=True, slots=True)
class BundleMetadata:
    """Everything that the engine needs to use a bundle, and that a person needs to judge it.

    ``labels``: class names in channel order, ``background`` first, then organ names of the table.
    ``trained_organs``: those that had annotations in training; empty means all of ``labels``. The first network's other
    classes count as background. ``taught_by``: what showed each organ to the network that decides on it; empty where
    nobody noted it.
    ``calibration``: what the network's confidence promises, where that was measured.
    ``organ_centres_mm``: mean LPS centroids in the training cohort's own frame; they tell whether an organ that was not
    found should have been in the scan. ``organ_sizes_mm``: how far each organ reaches along that frame's axes, in all;
    with them, what lies far from an organ's place is told from it. ``stages``: second looks, in order. ``nnunet``: for
    a network that nnU-Net trained; it takes the place of ``preprocess``, and logits are blended instead of
    probabilities. ``files``: SHA-256 (hex) of each file by its path in the bundle, except of the metadata file itself.
    """

    name: str
    title: str
    version: str
    licence: str
    training_data: str
    network: NetworkSettings
    preprocess: PreprocessSettings
    patch_kji: tuple[int, int, int]
    overlap: float = 0.5
    labels: tuple[str, ...] = (BACKGROUND, *BY_NAME)
    trained_organs: tuple[str, ...] = ()
    taught_by: dict[str, tuple[Teaching, ...]] = field(default_factory=dict)
    postprocess: PostprocessSettings = field(default_factory=PostprocessSettings)
    limits: InputLimits = field(default_factory=InputLimits)
    calibration: Calibration | None = None
    organ_centres_mm: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    organ_sizes_mm: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    stages: tuple[FineStage, ...] = ()
    nnunet: NnunetSettings | None = None
    files: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"A model's name is made of a-z, 0-9, '.', '_' and '-' (at most 64), got {self.name!r}; rename it."
            )
        if self.format > FORMAT:
            raise ConfigError(f"The bundle has format {self.format}, this engine reads up to {FORMAT}; update HNSeg.")
        _check_labels(self.labels)
        for name in (*self.trained_organs, *self.taught_by, *self.organ_centres_mm):
            find_organ(name)
        if len({stage.name for stage in self.stages}) < len(self.stages):
            raise ConfigError("Two stages have the same name; give each its own.")
        for stage in self.stages:
            if stage.preprocess.takes_mr and not self.preprocess.takes_mr:
                raise ConfigError(
                    f"The second look {stage.name!r} takes an MR, the first network none; train both with one takes_mr."
                )

    @property
    def label_values(self) -> tuple[int, ...]:
        """The organ table's label of each class, in channel order; 0 first."""
        return _label_values(self.labels)

    @property
    def atlas(self) -> Atlas:
        """Where and how large the organs usually are."""
        return Atlas(self.organ_centres_mm, self.organ_sizes_mm)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the first network's input channels."""
        if self.nnunet is not None:
            return tuple(f"{channel.image.upper()}, {channel.scheme}" for channel in self.nnunet.channels)
        return self.preprocess.channels

    @property
    def takes_mr(self) -> bool:
        """Whether an MR beside the CT has a part in the result."""
        if self.nnunet is not None:
            return any(channel.image == "mr" for channel in self.nnunet.channels)
        return self.preprocess.takes_mr

    @property
    def weights(self) -> tuple[str, ...]:
        """The files that hold weights: the first network's, then each stage's."""
        fine = (name for stage in self.stages for name in stage.network.weight_files(stage.name))
        return (*self.network.weight_files(MODEL), *fine)

    @property
    def organs(self) -> tuple[str, ...]:
        """The organs that the model was trained to find, in label order."""
        known = {*(self.trained_organs or self.labels[1:]), *(name for stage in self.stages for name in stage.decides)}
        return tuple(name for name in BY_NAME if name in known)


def _check_labels(labels: tuple[str, ...]) -> None:
    if not labels or labels[0] != BACKGROUND or len(set(labels)) != len(labels):
        raise ConfigError(f"labels begins with {BACKGROUND!r} and names each class once; correct the metadata.")
    for name in labels[1:]:
        find_organ(name)


def _label_values(labels: tuple[str, ...]) -> tuple[int, ...]:
    return (0, *(find_organ(name).label for name in labels[1:]))


def monai_metadata(metadata: BundleMetadata, *, versions: Mapping[str, str]) -> dict[str, Any]:
    """The keys that MONAI's bundle schema asks for (docs.monai.io, "MONAI Bundle Specification")."""
    channels = metadata.channels
    patch = list(metadata.patch_kji)
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": metadata.version,
        "changelog": {metadata.version: "see docs/README.md"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {"hnseg": versions["hnseg"], "safetensors": versions["safetensors"]},
        "name": metadata.title,
        "task": "Segmentation of head-and-neck organs at risk",
        "description": metadata.title,
        "authors": "HNSeg contributors",
        "copyright": f"HNSeg contributors, {metadata.licence}",
        "data_source": metadata.training_data,
        "data_type": "nrrd",
        "image_classes": f"{'CT and T1 MR' if metadata.takes_mr else 'CT'}, normalised as channel_def says",
        "label_classes": "integer data, one value per organ",
        "pred_classes": "logits, one channel per class",
        "intended_use": "Research use only, not a medical device",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "multimodal",
                    "modality": "CT, MR" if metadata.takes_mr else "CT",
                    "num_channels": len(channels),
                    "spatial_shape": patch,
                    "dtype": "float32",
                    "value_range": [-metadata.preprocess.mr_clip, metadata.preprocess.mr_clip],
                    "is_patch_data": True,
                    "channel_def": {str(n): name for n, name in enumerate(channels)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(metadata.labels),
                    "spatial_shape": patch,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": {str(n): name for n, name in enumerate(metadata.labels)},
                }
            },
        },
    }


def monai_inference(metadata: BundleMetadata, weights: str) -> dict[str, Any]:
    """A MONAI bundle configuration that builds the same network, with its weights, and a sliding-window inferer.

    Not strict, since the weights hold a tensor with two names once.
    """
    return {
        "bundle_root": ".",
        "weights": f"$@bundle_root + '/{weights}'",
        "network_def": {
            "_target_": "hnseg.models.networks.build_network",
            "name": metadata.network.name,
            **metadata.network.arguments,
        },
        "state_dict": {"_target_": "safetensors.torch.load_file", "filename": "@weights"},
        "load_weights": "$@network_def.load_state_dict(@state_dict, strict=False)",
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(metadata.patch_kji),
            "overlap": metadata.overlap,
            "mode": "gaussian",
        },
    }
