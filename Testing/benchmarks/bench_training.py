"""Training: steps and augmented patches per second, ours against nnU-Net v2's trainer and MONAI. As JSON, with memory.

Each route runs in a process of its own on one thread, and routes take turns; a ratio is that of two neighbouring turns,
in processor time, so that other load on the machine matters little. Medians over turns, ratios with their range.

*step*: the same network (nnU-Net's layout; that as many parameters are trained is checked) on the same patch, batch 1:
forward, loss, backward, clipping, optimiser, without the loops around it. Ours is the training module's own step with
its running average of the weights; nnU-Net's is its trainer's ``train_step`` without deep supervision, which would cost
it more; MONAI's is DynUNet with DiceCELoss as they come.
*every change*: turned, zoomed and bent patches with changed grey values out of one case of CT and MR, every change that
both have switched on: our stream against MONAI's transforms of the same kinds. *stock*: our stream as the shipped
configuration has it, MONAI's transforms with the same probabilities, and what nnU-Net's trainer composes of
batchgeneratorsv2, without its mirrors.

nnU-Net is not among this project's requirements; it may live in an environment of its own (``--nnunet-python``), with
the same torch. Without it, its figures are left out.

    python Testing/benchmarks/bench_training.py --out build/bench/training.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

PATCH = (32, 64, 64)
FILTERS = (32, 64, 128, 192)
STRIDES = (1, 2, 2, 2)
CLASSES, CHANNELS = 31, 4
_GIB = 2**30


def ours_step() -> Callable[[], Any]:
    """The training module's step, and the running average of its weights."""
    from hnseg_training.allocator import keep_freed_memory
    from hnseg_training.config import NetworkConfig, OptimisationConfig, TrainConfig
    from hnseg_training.module import SegmentationModule
    from hnseg_training.schedule import optimiser

    keep_freed_memory()
    settings = OptimisationConfig(optimizer="sgd", learning_rate=1e-2, weight_decay=3e-5)
    network = NetworkConfig("nnunet", {"filters": list(FILTERS), "strides": [[stride] * 3 for stride in STRIDES]})
    module = SegmentationModule(TrainConfig(name="bench", network=network, optimisation=settings))
    module.log_dict = lambda *_, **__: None
    parameters = list(module.network.parameters())
    average = [parameter.detach().clone() for parameter in parameters]
    optimizer = optimiser(parameters, settings)
    image, labels = _batch()
    batch = {"image": image, "labels": labels[None].to(torch.uint8), "merge": torch.arange(CLASSES)[None]}

    def run() -> None:
        _descend(optimizer, module.training_step(batch, 0), parameters)
        torch._foreach_lerp_(average, [parameter.detach() for parameter in parameters], 0.01)

    return _counted(run, parameters)


def monai_step() -> Callable[[], Any]:
    """MONAI's network and loss as they come."""
    from monai.losses import DiceCELoss
    from monai.networks.nets import DynUNet

    norm = ("INSTANCE", {"affine": True})
    network = DynUNet(3, CHANNELS, CLASSES, [3] * 4, STRIDES, STRIDES[1:], FILTERS, norm_name=norm)
    criterion = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    parameters = list(network.parameters())
    optimizer = torch.optim.SGD(parameters, 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)
    image, labels = _batch()
    return _counted(lambda: _descend(optimizer, criterion(network(image), labels[None, None]), parameters), parameters)


def nnunet_step() -> Callable[[], Any]:
    """nnU-Net's trainer, given plans for the same network."""
    trainer = _nnunet_trainer()
    trainer.enable_deep_supervision = False
    plans = trainer.plans_manager, trainer.configuration_manager
    trainer.network = trainer.build_network_architecture(*plans, CHANNELS, CLASSES, False)
    trainer.optimizer, _ = trainer.configure_optimizers()
    trainer.loss = trainer._build_loss()
    image, labels = _batch()
    parameters = list(trainer.network.parameters())
    return _counted(lambda: trainer.train_step({"data": image, "target": labels[None, None]}), parameters)


def _nnunet_trainer() -> Any:
    folder = tempfile.mkdtemp()
    os.environ |= dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), folder)
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    levels = len(FILTERS)
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": levels, "features_per_stage": FILTERS, "conv_op": "torch.nn.Conv3d",
            "kernel_sizes": [[3] * 3] * levels, "strides": [[stride] * 3 for stride in STRIDES],
            "n_conv_per_stage": [2] * levels, "n_conv_per_stage_decoder": [2] * (levels - 1), "conv_bias": False,
            "norm_op": "torch.nn.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
    }  # fmt: skip
    settings = {
        "data_identifier": "bench", "batch_size": 1, "patch_size": PATCH, "batch_dice": False,
        "architecture": architecture,
    }  # fmt: skip
    plans = {"dataset_name": "Dataset001_Bench", "plans_name": "nnUNetPlans", "configurations": {"3d": settings}}
    labels = {"background": 0, **{f"organ {n}": n for n in range(1, CLASSES)}}
    channels = {str(n): "CT" for n in range(CHANNELS)}
    return nnUNetTrainer(
        plans | {"continue_training": False},
        "3d",
        0,
        {"labels": labels, "channel_names": channels},
        torch.device("cpu"),
    )


def _counted(run: Callable[[], Any], parameters: list[torch.nn.Parameter]) -> Callable[[], Any]:
    run.parameters = parameters
    return run


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, CHANNELS, *PATCH, generator=generator), torch.randint(CLASSES, PATCH, generator=generator)


def _descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor, parameters: list[torch.nn.Parameter]) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 12)
    optimizer.step()


def ours_patches(*, every: bool) -> Callable[[], Any]:
    """The stream that training draws from."""
    from hnseg_training.config import AugmentationConfig, PatchConfig, TrainConfig
    from hnseg_training.patches import PatchDataset

    folder = Path(tempfile.mkdtemp()) / "case"
    image, labels = _case()
    folder.mkdir()
    np.save(folder / "image.npy", image.astype(np.float16))
    np.save(folder / "labels.npy", labels)
    np.savez(folder / "points.npz", **{str(n): np.argwhere(labels == n)[:2000] for n in (0, 1, 2)})
    about = {"name": "case", "annotated": list(range(1, CLASSES)), "unions": []}
    (folder / "case.json").write_text(json.dumps(about))
    all_on = AugmentationConfig(
        affine_probability=1.0, elastic_probability=1.0, bias_probability=1.0, blur_probability=1.0, mr_dropout=0.0
    )
    augmentation = all_on if every else AugmentationConfig()
    patches = iter(
        PatchDataset(TrainConfig(name="bench", patch=PatchConfig(PATCH), augmentation=augmentation), [[folder]])
    )
    return lambda: next(patches)


def monai_patches(*, every: bool) -> Callable[[], Any]:
    """MONAI's transforms of the same kinds, with the same probabilities."""
    from monai import transforms as t

    both, one = ["image", "labels"], ["image"]
    image, labels = _case()
    case = {"image": torch.from_numpy(image), "labels": torch.from_numpy(labels[None])}
    place: dict[str, Any] = {
        "spatial_size": PATCH, "rotate_range": [0.2] * 3, "scale_range": [0.15] * 3, "mode": ["bilinear", "nearest"],
        "padding_mode": "border",
    }  # fmt: skip
    elastic = t.Rand3DElasticd(both, (5, 8), (0, 50), prob=1.0, **place)
    bias = t.RandBiasFieldd(one, prob=1.0, coeff_range=(-0.3, 0.3))
    chain = t.Compose(
        [
            t.RandCropByPosNegLabeld(both, label_key="labels", spatial_size=[n * 3 // 2 for n in PATCH], num_samples=1),
            elastic if every else t.RandAffined(both, prob=0.5, **place),
            t.RandScaleIntensityd(one, 0.2, prob=1.0, channel_wise=True),
            t.RandShiftIntensityd(one, 0.15, prob=1.0, channel_wise=True),
            t.RandGaussianNoised(one, prob=1.0, std=0.08),
            t.RandSimulateLowResolutiond(one, prob=1.0 if every else 0.2, zoom_range=(0.4, 1.0)),
            *([bias] if every else []),
        ]
    ).set_random_state(0)
    return lambda: chain(case)


def nnunet_patches() -> Callable[[], Any]:
    """What nnU-Net's trainer composes of batchgeneratorsv2, after a crop as large as its loader's."""
    trainer = _nnunet_trainer()
    degrees, flat, first_size, _ = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    chain = trainer.get_training_transforms(PATCH, degrees, None, None, flat)
    image, labels = (torch.from_numpy(array) for array in _case())
    rng = np.random.default_rng(0)

    def run() -> Any:
        start = [rng.integers(0, n - size + 1) for n, size in zip(labels.shape, first_size, strict=True)]
        box = tuple(slice(a, a + size) for a, size in zip(start, first_size, strict=True))
        return chain(image=image[(slice(None), *box)].clone(), segmentation=labels[box][None].to(torch.int16))

    return run


def _case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(CHANNELS, 160, 180, 150)).astype(np.float32)
    image[-1] = 1.0
    labels = np.zeros(image.shape[1:], np.uint8)
    labels[60:100, 60:100, 30:60], labels[60:100, 60:100, 90:120] = 1, 2
    return image, labels


ROUTES: dict[str, dict[str, Callable[[], Callable[[], Any]]]] = {
    "step": {"ours": ours_step, "monai": monai_step, "nnunet": nnunet_step},
    "every change": {"ours": partial(ours_patches, every=True), "monai": partial(monai_patches, every=True)},
    "stock": {
        "ours": partial(ours_patches, every=False),
        "monai": partial(monai_patches, every=False),
        "nnunet": nnunet_patches,
    },
}


def child(kind: str, route: str, count: int) -> None:
    """Time one route in this process and print what was found."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = ROUTES[kind][route]()
    run()
    begun = time.process_time()
    for _ in range(count):
        run()
    cpu_s = (time.process_time() - begun) / count
    trained = sum(p.numel() for p in getattr(run, "parameters", ()) if p.grad is not None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB
    print(json.dumps({"cpu_s": cpu_s, "peak_gib": peak, "parameters": trained}))


def measure(python: str, kind: str, route: str, count: int) -> dict[str, float]:
    """One turn of a route, in a process of its own."""
    command = [python, __file__, "--child", kind, route, "--count", str(count)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def row(kind: str, pythons: dict[str, str], count: int, turns: int) -> dict[str, Any]:
    """All routes of a kind in turn."""
    routes = [route for route in ROUTES[kind] if route in pythons]
    found = [{route: measure(pythons[route], kind, route, count) for route in routes} for _ in range(turns)]
    sizes = {route: found[0][route]["parameters"] for route in routes}
    if len(set(sizes.values())) > 1:
        raise SystemExit(f"The networks differ in their number of parameters: {sizes}; make them the same.")
    told: dict[str, Any] = {"kind": kind} | ({"parameters": sizes["ours"]} if sizes["ours"] else {})
    for route in routes:
        cpu_s = median(turn[route]["cpu_s"] for turn in found)
        told[route] = {"per_cpu_s": 1 / cpu_s, "peak_gib": max(turn[route]["peak_gib"] for turn in found)}
    for route in routes[1:]:
        ratios = [turn[route]["cpu_s"] / turn["ours"]["cpu_s"] for turn in found]
        told[route] |= {"ours_times_faster": median(ratios), "from": min(ratios), "to": max(ratios)}
    return told | {route: {"left_out": "nnunetv2 is not installed"} for route in ROUTES[kind] if route not in pythons}


def _has_nnunet(python: str) -> bool:
    return subprocess.run([python, "-c", "import nnunetv2"], capture_output=True, check=False).returncode == 0


def main() -> None:
    """Run the benchmark, or, as a child, one route."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--count", type=int, default=5, help="steps or patches of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--nnunet-python", default=sys.executable, help="the Python that has nnunetv2")
    parser.add_argument("--child", nargs=2, metavar=("KIND", "ROUTE"))
    args = parser.parse_args()
    if args.child:
        child(*args.child, args.count)
        return
    pythons = {"ours": sys.executable, "monai": sys.executable}
    pythons |= {"nnunet": args.nnunet_python} if _has_nnunet(args.nnunet_python) else {}
    rows = [row(kind, pythons, args.count, args.turns) for kind in ROUTES]
    machine = {"processor": platform.processor(), "cores": os.cpu_count(), "threads": 1, "torch": torch.__version__}
    text = json.dumps({"rows": rows, "patch_kji": list(PATCH), "turns": args.turns, "machine": machine}, indent=2)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
