"""An nnU-Net v2 results folder as a model: its plans, its data set's labels and its folds' checkpoints.

Checkpoints are pickles; they are read as weights only, which runs no code of theirs. The network is MONAI's DynUNet,
which is the same function as nnU-Net's PlainConvUNet; other architectures are refused.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hnseg.errors import ModelError, UnknownOrgan
from hnseg.models.metadata import BACKGROUND, BundleMetadata, NetworkSettings, PostprocessSettings
from hnseg.models.nnunet_input import NnunetChannel, NnunetSettings
from hnseg.organs import find_organ
from hnseg.preprocessing import PreprocessSettings, window_of_channel

PLANS, DATASET, CHECKPOINT = "plans.json", "dataset.json", "checkpoint_final.pth"
_PLAIN = "PlainConvUNet"


@dataclass(frozen=True, slots=True)
class NnunetResults:
    """An opened results folder: what it says of itself, and where each member's weights are."""

    folder: Path
    metadata: BundleMetadata
    checkpoints: tuple[Path, ...]
    axes: tuple[int, int, int]

    def state_dict(self, member: int) -> dict[str, Tensor]:
        """A member's weights under the names, and along the axes, of the network in ``metadata``."""
        return translated(_weights(self.checkpoints[member]), self.metadata.network.arguments["kernels"], self.axes)


def is_nnunet_folder(folder: Path) -> bool:
    """Whether it looks like ``TRAINER__PLANS__CONFIGURATION`` of an nnU-Net v2 results folder."""
    return (folder / PLANS).is_file() and (folder / DATASET).is_file()


def open_nnunet(folder: Path) -> NnunetResults:
    """Read plans, labels and the list of folds; ``ModelError`` names what cannot be used. No checkpoint is read yet."""
    plans, dataset = _json(folder / PLANS), _json(folder / DATASET)
    checkpoints = tuple(sorted(folder.glob(f"fold_*/{CHECKPOINT}")))
    if not checkpoints:
        raise ModelError(f"{folder} holds no fold_*/{CHECKPOINT}; train at least one fold to its end.")
    try:
        name = folder.name.split("__")[-1]
        configuration = _configuration(plans, name)
        axes = _axes(plans)
        metadata = _metadata(folder, plans, configuration, dataset, len(checkpoints), axes)
    except (KeyError, TypeError, ValueError, UnknownOrgan) as error:
        raise ModelError(f"{folder.name} is no nnU-Net v2 model that HNSeg can use: {_told(error)}") from error
    return NnunetResults(folder, metadata, checkpoints, axes)


def translated(state: Mapping[str, Tensor], kernels: Sequence[Sequence[int]], axes: Sequence[int]) -> dict[str, Tensor]:
    """PlainConvUNet's weights under DynUNet's names, their last three axes permuted; a 2D kernel becomes a flat 3D one.

    ``kernels``: DynUNet's, by level. Biases in front of an instance norm are dropped: the norm removes what they add.
    """
    found = {}
    for name, tensor in state.items():
        new = _new_name(name.removeprefix("_orig_mod.").removeprefix("module."), len(kernels))
        if new is not None:
            found[new] = _turned(tensor, axes) if tensor.ndim > 1 else tensor
    return {name: _widened(tensor, name, kernels) for name, tensor in found.items()}


def _widened(kernel: Tensor, name: str, kernels: Sequence[Sequence[int]]) -> Tensor:
    """DynUNet's decoder has the kernel of the level below, which is no smaller: zeros around it change nothing."""
    place = re.fullmatch(r"upsamples\.(\d+)\.conv_block\.conv[12]\.conv\.weight", name)
    if place is None:
        return kernel
    due = kernels[len(kernels) - 1 - int(place[1])]
    ends = [(n - own) // 2 for n, own in zip(reversed(due), reversed(kernel.shape[2:]), strict=True)]
    return F.pad(kernel, [end for end in ends for _ in range(2)])


def _turned(kernel: Tensor, axes: Sequence[int]) -> Tensor:
    solid = kernel if kernel.ndim == 5 else kernel[:, :, None]
    return solid.permute(0, 1, *(2 + axis for axis in axes)).contiguous()


def _new_name(name: str, levels: int) -> str | None:
    encoder = re.fullmatch(r"encoder\.stages\.(\d+)\.0\.convs\.([01])\.(conv\.weight|norm\.weight|norm\.bias)", name)
    if encoder:
        level = int(encoder[1])
        block = "input_block" if level == 0 else "bottleneck" if level == levels - 1 else f"downsamples.{level - 1}"
        return f"{block}.{_layer(encoder[2], encoder[3])}"
    decoder = re.fullmatch(r"decoder\.stages\.(\d+)\.convs\.([01])\.(conv\.weight|norm\.weight|norm\.bias)", name)
    if decoder:
        return f"upsamples.{decoder[1]}.conv_block.{_layer(decoder[2], decoder[3])}"
    up = re.fullmatch(r"decoder\.transpconvs\.(\d+)\.(weight|bias)", name)
    if up:
        return f"upsamples.{up[1]}.transp_conv.conv.{up[2]}"
    last = re.fullmatch(rf"decoder\.seg_layers\.{levels - 2}\.(weight|bias)", name)
    return f"output_block.conv.conv.{last[1]}" if last else None


def _layer(number: str, part: str) -> str:
    kind, parameter = part.split(".")
    n = int(number) + 1
    return f"conv{n}.conv.{parameter}" if kind == "conv" else f"norm{n}.{parameter}"


def _metadata(
    folder: Path,
    plans: Mapping[str, Any],
    configuration: Mapping[str, Any],
    dataset: Mapping[str, Any],
    members: int,
    axes: tuple[int, int, int],
) -> BundleMetadata:
    labels, channels = _labels(dataset), _channels(plans, configuration, dataset)
    arguments = {
        "in_channels": len(channels),
        "out_channels": len(labels),
        "trans_bias": True,
        **_architecture(configuration, axes),
    }
    name = re.sub(r"[^a-z0-9._-]+", "-", f"{plans['dataset_name']}-{folder.name.split('__')[-1]}".lower())
    thick = configuration["resampling_fn_probabilities_kwargs"]
    if thick["order"] != 1 or thick["order_z"] != 0 or configuration["resampling_fn_data_kwargs"]["order_z"] != 0:
        raise ValueError("its resampling is not nnU-Net's usual one.")
    return BundleMetadata(
        name=f"nnunet-{name}"[:64],
        title=f"{plans['dataset_name']}, {folder.name}, trained with nnU-Net v2",
        version="0",
        licence="as its trainer states",
        training_data=f"{plans['dataset_name']}, as its trainer states",
        network=NetworkSettings("nnunet", arguments, members),
        preprocess=PreprocessSettings(),
        nnunet=NnunetSettings(
            channels,
            spacing_kji_mm=_kji([0.0] * (3 - len(configuration["spacing"])) + configuration["spacing"], axes),
            order=configuration["resampling_fn_data_kwargs"]["order"],
            thick_slices=configuration["resampling_fn_data_kwargs"]["force_separate_z"],
        ),
        patch_kji=_kji([1] * (3 - len(configuration["patch_size"])) + configuration["patch_size"], axes),
        overlap=0.5,
        labels=labels,
        # nnU-Net's own prediction has none of these corrections.
        postprocess=PostprocessSettings(
            largest_parts=False, fill_holes=False, inside_body=False, check_sides=False, near_place=False
        ),
    )


def _configuration(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration with what it inherits."""
    own = dict(plans["configurations"][name])
    if own.get("previous_stage"):
        raise ValueError("it is the second stage of a cascade; use its 3d_fullres model.")
    parent = own.pop("inherits_from", None)
    return {**(_configuration(plans, parent) if parent else {}), **own}


def _architecture(configuration: Mapping[str, Any], axes: Sequence[int]) -> dict[str, Any]:
    plan = configuration["architecture"]
    kind, given = plan["network_class_name"].rsplit(".", 1)[-1], plan["arch_kwargs"]
    convolutions = [*given["n_conv_per_stage"], *given["n_conv_per_stage_decoder"]]
    if kind != _PLAIN or set(convolutions) != {2} or not given["norm_op"].rsplit(".", 1)[-1].startswith("InstanceNorm"):
        raise ValueError(f"its network is a {kind}; only a {_PLAIN} with two convolutions a stage can be built.")
    return {
        "filters": list(given["features_per_stage"]),
        "strides": [list(_kji(_three(stride), axes)) for stride in given["strides"]],
        "kernels": [list(_kji(_three(kernel), axes)) for kernel in given["kernel_sizes"]],
    }


def _three(values: Sequence[int]) -> list[int]:
    return [1] * (3 - len(values)) + list(values)


def _labels(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    by_value = sorted(dataset["labels"].items(), key=lambda item: item[1])
    if [value for _, value in by_value] != list(range(len(by_value))) or by_value[0][0] != BACKGROUND:
        raise ValueError("its labels are regions, are ignored in part, or are not 0, 1, 2 …")
    return (BACKGROUND, *(find_organ(name).name for name, _ in by_value[1:]))


def _channels(
    plans: Mapping[str, Any], configuration: Mapping[str, Any], dataset: Mapping[str, Any]
) -> tuple[NnunetChannel, ...]:
    names = [dataset["channel_names"][str(n)] for n in range(len(dataset["channel_names"]))]
    statistics = plans["foreground_intensity_properties_per_channel"]
    masks, schemes = configuration["use_mask_for_norm"], configuration["normalization_schemes"]
    return tuple(
        NnunetChannel(
            image=_image(name),
            scheme=scheme,
            within_mask=bool(mask),
            mean=statistics[str(n)]["mean"],
            deviation=statistics[str(n)]["std"],
            lowest=statistics[str(n)]["percentile_00_5"],
            highest=statistics[str(n)]["percentile_99_5"],
            window_hu=window_of_channel(name),
        )
        for n, (name, scheme, mask) in enumerate(zip(names, schemes, masks, strict=True))
    )


def _image(channel: str) -> Literal["ct", "mr"]:
    if channel.lower() in {"pet", "pt"}:
        raise ValueError(f"its channel {channel!r} is a PET, which HNSeg does not segment from.")
    return "ct" if "ct" in channel.lower() else "mr"


def _axes(plans: Mapping[str, Any]) -> tuple[int, int, int]:
    """For k, j, i: which of the network's axes each is."""
    k, j, i = plans["transpose_backward"]
    return k, j, i


def _kji(values: Sequence[Any], axes: Sequence[int]) -> tuple[Any, Any, Any]:
    k, j, i = (values[axis] for axis in axes)
    return k, j, i


def _weights(path: Path) -> dict[str, Tensor]:
    """Weights alone. The training log in the same file holds numpy numbers, which are data and are let through."""
    scalar = np.float64(0).__reduce__()[0]  # what rebuilds a number; it lives elsewhere in numpy 1 and 2
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    numbers: list[Any] = [np.dtype, *(type(np.dtype(kind)) for kind in (np.float32, np.float64)), *names]
    try:
        with torch.serialization.safe_globals(numbers):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        return dict(loaded["network_weights"])
    except (pickle.UnpicklingError, KeyError, RuntimeError, OSError, EOFError) as error:
        said = str(error).splitlines()[0]
        raise ModelError(f"{path} holds more than weights or is damaged ({said}); do not use it.") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not readable JSON; copy the results folder anew.") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path} holds no named values; copy the results folder anew.")
    return document


def _told(error: Exception) -> str:
    return f"{error} is missing." if isinstance(error, KeyError) else str(error)
