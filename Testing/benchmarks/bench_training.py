"""Training: steps and augmented patches per second, ours against MONAI's stock parts. Time and memory, as JSON.

Each route runs in a process of its own with the same threads; routes take turns, and each one's fastest turn counts.
*step*: the same DynUNet on the same patch, forward, loss, backward, AdamW: ours with quick layers and the Dice +
weighted cross-entropy whose gradient is written out, MONAI's with its DiceCELoss. *patches*: turned, zoomed and bent
patches with changed grey values out of one case of CT and MR: our stream against MONAI's transforms of the same kinds,
every one of them switched on in both. nnU-Net's trainer and batchgeneratorsv2 are not among this project's requirements
and are left out.

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
from pathlib import Path
from typing import Any

import numpy as np
import torch

PATCH = (48, 80, 80)
FILTERS = (32, 64, 128, 192)
CLASSES, CHANNELS = 31, 4
_GIB = 2**30


def ours_step() -> Callable[[], Any]:
    """Quick layers and the written-out gradient."""
    from hnseg.models.networks import build_network
    from hnseg_training.losses import class_weights, dice_cross_entropy

    strides = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    network = build_network(
        "nnunet", in_channels=CHANNELS, out_channels=CLASSES, filters=list(FILTERS), strides=strides
    ).to(memory_format=torch.channels_last_3d)
    weights, merge = class_weights(), torch.arange(CLASSES)

    def loss(image: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = network(image)[0].flatten(1).transpose(0, 1)
        return sum(dice_cross_entropy(logits, labels.flatten(), merge, weights))

    return _step(network, loss)


def monai_step() -> Callable[[], Any]:
    """MONAI's network and loss as they come."""
    from monai.losses import DiceCELoss
    from monai.networks.nets import DynUNet

    strides = [1, 2, 2, 2]
    norm = ("INSTANCE", {"affine": True})
    network = DynUNet(3, CHANNELS, CLASSES, [3] * 4, strides, strides[1:], FILTERS, norm_name=norm)
    criterion = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)

    def loss(image: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return criterion(network(image), labels[None, None])

    return _step(network, loss)


def _step(network: torch.nn.Module, loss: Callable[..., torch.Tensor]) -> Callable[[], Any]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, CHANNELS, *PATCH, generator=generator)
    labels = torch.randint(CLASSES, PATCH, generator=generator)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def run() -> None:
        optimizer.zero_grad()
        loss(image, labels).backward()
        optimizer.step()

    return run


def ours_patches() -> Callable[[], Any]:
    """The stream that training draws from, every change switched on."""
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
    config = TrainConfig(
        name="bench",
        patch=PatchConfig(size_kji=PATCH),
        augmentation=AugmentationConfig(
            affine_probability=1.0, elastic_probability=1.0, bias_probability=1.0, blur_probability=1.0, mr_dropout=0.0
        ),
    )
    patches = iter(PatchDataset(config, [[folder]]))
    return lambda: next(patches)


def monai_patches() -> Callable[[], Any]:
    """MONAI's transforms of the same kinds."""
    from monai import transforms as t

    both, one = ["image", "labels"], ["image"]
    image, labels = _case()
    case = {"image": torch.from_numpy(image), "labels": torch.from_numpy(labels[None])}
    chain = t.Compose(
        [
            t.RandCropByPosNegLabeld(both, label_key="labels", spatial_size=[n * 3 // 2 for n in PATCH], num_samples=1),
            t.Rand3DElasticd(
                both, (5, 8), (0, 50), prob=1.0, spatial_size=PATCH, rotate_range=[0.2] * 3, scale_range=[0.15] * 3,
                mode=["bilinear", "nearest"], padding_mode="border",
            ),
            t.RandScaleIntensityd(one, 0.2, prob=1.0, channel_wise=True),
            t.RandShiftIntensityd(one, 0.15, prob=1.0, channel_wise=True),
            t.RandGaussianNoised(one, prob=1.0, std=0.08),
            t.RandSimulateLowResolutiond(one, prob=1.0, zoom_range=(0.4, 1.0)),
            t.RandBiasFieldd(one, prob=1.0, coeff_range=(-0.3, 0.3)),
        ]
    ).set_random_state(0)  # fmt: skip
    return lambda: chain(case)


def _case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(CHANNELS, 160, 180, 150)).astype(np.float32)
    image[-1] = 1.0
    labels = np.zeros(image.shape[1:], np.uint8)
    labels[60:100, 60:100, 30:60], labels[60:100, 60:100, 90:120] = 1, 2
    return image, labels


ROUTES = {
    "step": {"ours": ours_step, "monai": monai_step},
    "patches": {"ours": ours_patches, "monai": monai_patches},
}


def child(kind: str, route: str, count: int) -> None:
    """Time one route in this process and print what was found."""
    torch.manual_seed(0)
    run = ROUTES[kind][route]()
    run()
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB
    print(json.dumps({"per_s": 1 / float(np.median(times)), "peak_gib": peak}))


def measure(kind: str, route: str, count: int) -> dict[str, float]:
    """One turn of a route, in a process of its own."""
    command = [sys.executable, __file__, "--child", kind, route, "--count", str(count)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def benchmark(count: int, turns: int) -> dict[str, Any]:
    """All routes in turn; the fastest turn of each."""
    rows = []
    for kind, routes in ROUTES.items():
        found: dict[str, list[dict[str, float]]] = {route: [] for route in routes}
        for _ in range(turns):
            for route in routes:
                found[route].append(measure(kind, route, count))
        best = {route: max(runs, key=lambda run: run["per_s"]) for route, runs in found.items()}
        rows.append({"kind": kind, **best, "times_faster": best["ours"]["per_s"] / best["monai"]["per_s"]})
    return {"rows": rows, "patch_kji": list(PATCH)}


def main() -> None:
    """Run the benchmark, or, as a child, one route."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--child", nargs=2, metavar=("KIND", "ROUTE"))
    args = parser.parse_args()
    if args.child:
        child(*args.child, args.count)
        return
    result = benchmark(args.count, args.turns) | {
        "machine": {
            "processor": platform.processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
    }
    text = json.dumps(result, indent=2)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
