"""Labels against nnU-Net v2's own predictor, where it is installed: the same weights, the same case, nothing shared.

It is no dependency of ours. An environment that has nnunetv2 and can import hnseg runs this file with its own Python.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.inference.segment import segment
from hnseg.models.bundle import open_bundle

pytest.importorskip("nnunetv2", reason="nnU-Net v2 is not installed")

STATISTICS = {"mean": 40.0, "std": 120.0, "percentile_00_5": -500.0, "percentile_99_5": 600.0}
LABELS = {"background": 0, "Brainstem": 1, "Parotid_L": 2, "Lips": 3}
NETWORK = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
GRID = Grid((52, 60, 44), (1.4, 1.2, 2.0), (-30.0, 40.0, 500.0))


def plans(turn: list[int], spacing: list[float], patch: list[int]) -> dict[str, Any]:
    flat = len(patch) == 2
    kernels = [[3] * len(patch)] * 3
    arguments = {
        "n_stages": 3,
        "features_per_stage": [8, 12, 16],
        "conv_op": f"torch.nn.modules.conv.Conv{len(patch)}d",
        "kernel_sizes": kernels,
        "strides": [[1] * len(patch), [2] * len(patch), [2] * len(patch)],
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{len(patch)}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "peer", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2, "patch_size": patch,
        "median_image_size_in_voxels": [40, 60, 50][-len(patch):], "spacing": spacing,
        "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling, "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": NETWORK, "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }  # fmt: skip
    return {
        "dataset_name": "Dataset007_Heads", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "original_median_spacing_after_transp": [2.0, 1.2, 1.4], "original_median_shape_after_transp": [44, 60, 52],
        "transpose_forward": turn, "transpose_backward": [turn.index(n) for n in range(3)],
        "configurations": {"2d" if flat else "3d_fullres": configuration}, "label_manager": "LabelManager",
        "experiment_planner_used": "ExperimentPlanner",
        "foreground_intensity_properties_per_channel": {"0": STATISTICS},
    }  # fmt: skip


def trained(place: Path, named: dict[str, Any]) -> Path:
    """A results folder with two folds of random weights of nnU-Net's own network."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    dataset = {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 2, "file_ending": ".nrrd"}
    (kind,) = named["configurations"]
    folder = place / f"nnUNetTrainer__nnUNetPlans__{kind}"
    manager = PlansManager(named)
    for fold in (0, 1):
        torch.manual_seed(fold)
        network = nnUNetTrainer.build_network_architecture(
            manager, manager.get_configuration(kind), 1, len(LABELS), False
        )
        state = {
            "network_weights": network.state_dict(), "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": kind}, "inference_allowed_mirroring_axes": None,
        }  # fmt: skip
        (folder / f"fold_{fold}").mkdir(parents=True)
        torch.save(state, folder / f"fold_{fold}" / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(named))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


def case() -> Volume:
    """Smooth noise in HU with air about it."""
    rng = np.random.default_rng(4)
    hu = ndimage.gaussian_filter(rng.normal(0, 1, GRID.shape_kji), 3.0)
    hu = 30 + 150 * hu / hu.std()
    _, j, i = np.indices(GRID.shape_kji)
    hu[((j - 29) / 27) ** 2 + ((i - 25) / 23) ** 2 > 1] = -1000
    return Volume(hu.astype(np.float32), GRID)


def by_nnunet(folder: Path, ct: Volume) -> np.ndarray:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), (0, 1))
    spacing = {"spacing": list(ct.grid.spacing_mm[::-1])}
    return np.asarray(predictor.predict_single_npy_array(ct.array_kji[None].astype(np.float32), spacing))


@pytest.mark.parametrize(
    ("turn", "spacing", "patch"),
    [
        ([0, 1, 2], [2.0, 1.3, 1.5], [16, 24, 20]),
        ([1, 2, 0], [1.5, 1.5, 2.2], [24, 20, 16]),
        ([2, 0, 1], [1.6, 2.0, 1.2], [20, 16, 24]),
        ([0, 1, 2], [1.3, 1.5], [32, 28]),
        ([1, 0, 2], [2.0, 1.4], [28, 32]),
    ],
    ids=["3D", "3D, turned", "3D, turned back", "2D", "2D, coronal"],
)
def test_labels_are_those_of_nnunets_own_predictor(
    tmp_path: Path, turn: list[int], spacing: list[float], patch: list[int]
) -> None:
    folder, ct = trained(tmp_path, plans(turn, spacing, patch)), case()
    theirs = by_nnunet(folder, ct)
    ours = segment(ct, bundle=open_bundle(folder)).labels.array_kji
    values = np.array([0, 5, 27, 23])[theirs]
    assert len(np.unique(values)) > 1
    agreement = float((ours == values).mean())
    print(f"agreement {agreement:.6f}")
    assert agreement >= 0.999
