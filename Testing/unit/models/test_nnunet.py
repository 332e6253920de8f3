"""nnU-Net v2 results folders, with weights and plans as nnU-Net writes them, and a network written out by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hnseg.errors import InputError, ModelError
from hnseg.image.grid import Grid
from hnseg.image.orient import canonical
from hnseg.image.volume import Volume
from hnseg.models.bundle import NnunetBundle, open_bundle, verify_bundle
from hnseg.models.nnunet_input import NnunetChannel, NnunetSettings, nnunet_input
from hnseg.models.store import install_bundle
from hnseg.preprocessing import window_channel

FEATURES, KERNELS, STRIDES = [4, 6, 8], [[1, 3, 3], [3, 3, 3], [3, 3, 3]], [[1, 1, 1], [1, 2, 2], [2, 2, 1]]
STATISTICS = {"mean": 40.0, "std": 120.0, "percentile_00_5": -500.0, "percentile_99_5": 600.0}
RESAMPLING = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}


def plans(**changes: Any) -> dict[str, Any]:
    base = {
        "patch_size": [8, 16, 12],
        "spacing": [2.5, 1.2, 1.4],
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
        "use_mask_for_norm": [False, True],
        "resampling_fn_data_kwargs": RESAMPLING,
        "resampling_fn_probabilities_kwargs": {**RESAMPLING, "order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "features_per_stage": FEATURES,
                "kernel_sizes": KERNELS,
                "strides": STRIDES,
                "n_conv_per_stage": [2, 2, 2],
                "n_conv_per_stage_decoder": [2, 2],
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            },
        },
        **changes,
    }
    return {
        "dataset_name": "Dataset007_Heads",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"base": base, "3d_fullres": {"inherits_from": "base"}},
        "foreground_intensity_properties_per_channel": {"0": STATISTICS, "1": STATISTICS},
    }


LABELS = {"background": 0, "Brain stem": 1, "Parotid_L": 2}
DATASET = {"channel_names": {"0": "CT", "1": "T1"}, "labels": LABELS}


def weights(seed: int) -> dict[str, Tensor]:
    """PlainConvUNet's state dict, the second names and the deep supervision's layers included."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def convolution(name: str, out: int, into: int, kernel: list[int]) -> None:
        shape = (into, out) if "transp" in name else (out, into)
        state[f"{name}.weight"] = torch.randn(*shape, *kernel, generator=generator) * 0.3
        state[f"{name}.bias"] = torch.randn(out, generator=generator)

    def block(name: str, out: int, into: int, kernel: list[int]) -> None:
        for n, channels in enumerate((into, out)):
            convolution(f"{name}.convs.{n}.conv", out, channels, kernel)
            state[f"{name}.convs.{n}.norm.weight"] = torch.rand(out, generator=generator) + 0.5
            state[f"{name}.convs.{n}.norm.bias"] = torch.randn(out, generator=generator)
            state[f"{name}.convs.{n}.all_modules.0.weight"] = state[f"{name}.convs.{n}.conv.weight"]

    for level, into in enumerate((2, *FEATURES[:-1])):
        block(f"encoder.stages.{level}.0", FEATURES[level], into, KERNELS[level])
    for n, level in enumerate((1, 0)):
        block(f"decoder.stages.{n}", FEATURES[level], 2 * FEATURES[level], KERNELS[level])
        convolution(f"decoder.transpconvs.{n}", FEATURES[level], FEATURES[level + 1], STRIDES[level + 1])
        convolution(f"decoder.seg_layers.{n}", 3, FEATURES[level], [1, 1, 1])
    return state


def by_hand(state: dict[str, Tensor], image: Tensor) -> Tensor:
    """PlainConvUNet, layer by layer."""

    def block(x: Tensor, name: str, stride: list[int]) -> Tensor:
        for n in (0, 1):
            weight, bias = (state[f"{name}.convs.{n}.conv.{part}"] for part in ("weight", "bias"))
            padding = [size // 2 for size in weight.shape[2:]]
            x = F.conv3d(x, weight, bias, stride=stride if n == 0 else 1, padding=padding)
            x = F.instance_norm(
                x, weight=state[f"{name}.convs.{n}.norm.weight"], bias=state[f"{name}.convs.{n}.norm.bias"]
            )
            x = F.leaky_relu(x, 0.01)
        return x

    skips = [image]
    for level in range(3):
        skips.append(block(skips[-1], f"encoder.stages.{level}.0", STRIDES[level]))
    x = skips.pop()
    for n, level in enumerate((1, 0)):
        up = [state[f"decoder.transpconvs.{n}.{part}"] for part in ("weight", "bias")]
        x = torch.cat([F.conv_transpose3d(x, *up, stride=STRIDES[level + 1]), skips.pop()], dim=1)
        x = block(x, f"decoder.stages.{n}", [1, 1, 1])
    return F.conv3d(x, state["decoder.seg_layers.1.weight"], state["decoder.seg_layers.1.bias"])


def results(place: Path, *, folds: int = 2, named: dict[str, Any] | None = None, data: Any = DATASET) -> Path:
    folder = place / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    for fold in range(folds):
        (folder / f"fold_{fold}").mkdir(parents=True)
        log = {"mean_fg_dice": [np.float64(0.5), np.float32(0.25)], "epoch_start_timestamps": [1.5]}
        checkpoint = {"network_weights": weights(fold), "logging": log, "_best_ema": np.float64(0.4), "init_args": {}}
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(named or plans()))
    (folder / "dataset.json").write_text(json.dumps(data))
    return folder


def test_the_network_is_the_same_function_and_folds_average_their_logits(tmp_path: Path) -> None:
    bundle = open_bundle(results(tmp_path))
    network = bundle.load_network()
    image = torch.randn(1, 2, 8, 16, 12, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        expected = (by_hand(weights(0), image) + by_hand(weights(1), image)) / 2
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-4)


def test_axes_that_nnunet_turned_are_turned_back_in_the_weights(tmp_path: Path) -> None:
    turned = {**plans(), "transpose_forward": [1, 2, 0], "transpose_backward": [2, 0, 1]}
    bundle = open_bundle(results(tmp_path, folds=1, named=turned))
    image = torch.randn(1, 2, 8, 16, 12, generator=torch.Generator().manual_seed(9))
    kji = image.permute(0, 1, 4, 2, 3)  # the network's axes 0, 1, 2 are the image's j, i, k
    assert bundle.metadata.patch_kji == (12, 8, 16)
    with torch.inference_mode():
        expected = by_hand(weights(0), image).permute(0, 1, 4, 2, 3)
        torch.testing.assert_close(bundle.load_network()(kji), expected, rtol=1e-4, atol=1e-4)


def test_the_folder_tells_labels_channels_and_spacing(tmp_path: Path) -> None:
    metadata = open_bundle(results(tmp_path)).metadata
    assert metadata.labels == ("background", "Brainstem", "Parotid_L")
    assert metadata.label_values == (0, 5, 27)
    assert metadata.nnunet is not None
    assert metadata.nnunet.spacing_kji_mm == (2.5, 1.2, 1.4)
    assert [channel.image for channel in metadata.nnunet.channels] == ["ct", "mr"]
    assert metadata.network.members == 2
    assert "nnU-Net v2" in metadata.title


def test_a_window_that_a_channels_name_tells_is_kept(tmp_path: Path) -> None:
    named = {"0": window_channel(-160, 240), "1": window_channel(1e-7, 1800)}
    metadata = open_bundle(results(tmp_path, data={**DATASET, "channel_names": named})).metadata
    assert metadata.nnunet is not None
    assert [channel.window_hu for channel in metadata.nnunet.channels] == [(-160, 240), (1e-7, 1800)]
    assert {channel.image for channel in metadata.nnunet.channels} == {"ct"}


def test_an_installed_folder_is_a_bundle_of_safetensors_with_the_same_weights(tmp_path: Path) -> None:
    folder = results(tmp_path)
    installed = install_bundle(folder, into=tmp_path / "models")
    assert verify_bundle(installed.folder).name == "nnunet-dataset007_heads-3d_fullres"
    assert not list(installed.folder.rglob("*.pth"))
    image = torch.randn(1, 2, 8, 16, 12)
    with torch.inference_mode():
        torch.testing.assert_close(installed.load_network()(image), open_bundle(folder).load_network()(image))


def test_the_digest_changes_with_a_checkpoint(tmp_path: Path) -> None:
    folder = results(tmp_path)
    before = open_bundle(folder).digest
    with (folder / "fold_1" / "checkpoint_final.pth").open("ab") as stream:
        stream.write(b"\0")
    assert open_bundle(folder).digest != before


class Harmful:
    """What a pickle would run when it is opened carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    folder = results(tmp_path, folds=1)
    checkpoint = {"network_weights": weights(0), "logging": Harmful(tmp_path / "harm")}
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(ModelError, match="more than weights or is damaged"):
        open_bundle(folder).load_network()
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("named", "data", "said"),
    [
        (plans(previous_stage="3d_lowres"), DATASET, "cascade"),
        (plans(spacing=None), DATASET, "no nnU-Net v2 model"),
        ({"configurations": {}}, DATASET, "is missing"),
        (plans(), {**DATASET, "labels": {"background": 0, "Spleen": 1}}, "Spleen"),
        (plans(), {**DATASET, "channel_names": {"0": "CT", "1": "PET"}}, "'PET' is a PET"),
        (plans(), {**DATASET, "labels": {"background": 0, "whole": [1, 2]}}, "no nnU-Net v2 model"),
        (plans(), {**DATASET, "labels": {"background": 0, "Brainstem": 2}}, "0, 1, 2"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(tmp_path: Path, named: Any, data: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        open_bundle(results(tmp_path, folds=1, named=named, data=data))


def test_another_architecture_is_refused_by_its_name(tmp_path: Path) -> None:
    other = plans()
    other["configurations"]["base"]["architecture"]["network_class_name"] = "a.b.ResidualEncoderUNet"
    with pytest.raises(ModelError, match="ResidualEncoderUNet"):
        open_bundle(results(tmp_path, named=other))


def test_a_folder_without_a_finished_fold_is_refused(tmp_path: Path) -> None:
    folder = results(tmp_path, folds=1)
    (folder / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(ModelError, match="at least one fold"):
        open_bundle(folder)


GRID = Grid((14, 12, 9), (1.2, 1.5, 2.0), (10.0, -20.0, 300.0), (-1, 0, 0, 0, 1, 0, 0, 0, 1))
CHANNEL = NnunetChannel("ct", "CTNormalization", mean=40.0, deviation=120.0, lowest=-60.0, highest=110.0)


def ct() -> Volume:
    hu = np.random.default_rng(0).normal(20, 60, GRID.shape_kji)
    hu[:, :2] = 0
    return Volume(hu, GRID)


def test_the_box_of_what_is_not_zero_is_clipped_and_scaled_by_the_training_datas_statistics() -> None:
    given = nnunet_input(ct(), settings=NnunetSettings((CHANNEL,), (2.0, 1.5, 1.2)))
    expected = (np.clip(canonical(ct()).array_kji[:, 2:], -60, 110) - 40) / 120
    np.testing.assert_allclose(given.array_ckji[0], expected, rtol=1e-5, atol=1e-5)
    assert given.grid.is_close(canonical(ct()).grid.cropped((0, 2, 0), (14, 10, 9)))
    assert given.nearest_axis is None


def test_a_window_comes_before_the_scheme() -> None:
    soft = NnunetChannel("ct", "NoNormalization", window_hu=(-60.0, 140.0))
    given = nnunet_input(ct(), settings=NnunetSettings((soft,), (2.0, 1.5, 1.2)))
    expected = np.clip((canonical(ct()).array_kji - 40) / 100, -1, 1)
    np.testing.assert_allclose(given.array_ckji[0], expected, rtol=1e-5, atol=1e-5)


def test_the_grid_has_nnunets_number_of_voxels_over_the_same_box() -> None:
    given = nnunet_input(ct(), settings=NnunetSettings((CHANNEL,), (3.0, 2.0, 1.0)))
    assert given.array_ckji.shape[1:] == (6, 8, 17)  # 9·2/3, 10·1.5/2 = 7.5 to even, 14·1.2/1 = 16.8
    np.testing.assert_allclose(np.multiply(given.grid.spacing_mm, (17, 8, 6)), (16.8, 15.0, 18.0))


def test_thick_slices_are_taken_whole_and_labels_come_back_by_the_nearest() -> None:
    thick = Volume(ct().array_kji, Grid(GRID.size_ijk, (1.2, 1.5, 6.0)))
    given = nnunet_input(thick, settings=NnunetSettings((CHANNEL,), (3.0, 1.5, 1.2)))
    assert given.array_ckji.shape[1:] == (18, 10, 14)
    np.testing.assert_array_equal(given.array_ckji[0, ::2], given.array_ckji[0, 1::2])
    assert given.nearest_axis == 0


def test_a_missing_mr_is_said() -> None:
    mr = NnunetChannel("mr", "ZScoreNormalization", within_mask=True)
    with pytest.raises(InputError, match="needs an MR"):
        nnunet_input(ct(), settings=NnunetSettings((CHANNEL, mr), (2.0, 1.5, 1.2)))


def test_it_is_named_as_what_it_is(tmp_path: Path) -> None:
    bundle = open_bundle(results(tmp_path))
    assert isinstance(bundle, NnunetBundle)
    assert "Folds: 2" in bundle.card
