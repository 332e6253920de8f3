"""Inference: ours against MONAI's sliding_window_inference + resample + argmax and against nnU-Net v2's predictor, if
nnunetv2 is installed. Wall time and peak memory, as JSON.

All run the same network, weights, input, windows and threads in one go, each in a process of its own. The network is
that of the model that ships with random weights, on top of a known label map with organ-like shapes: the arithmetic is
that of a trained model, and so are the borders between labels. Peak memory is what the route needs beyond the input,
the network and the libraries. Every window is computed and the field of view is the body's box for all: what ours gains
by leaving out windows without any body, and what nnU-Net loses on the air about a patient, is not in the figures.

nnU-Net may live in an environment of its own that can import hnseg as well (``--nnunet-python``).

    python Testing/benchmarks/bench_inference.py --sizes small --out build/bench/inference.json
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hnseg.image.grid import Grid
from hnseg.inference.devices import Precision
from hnseg.inference.predictor import predict_labels
from hnseg.inference.tiles import TileSettings
from hnseg.models.bundle import open_bundle
from hnseg.models.metadata import BundleMetadata
from hnseg.models.networks import build_network
from hnseg.preprocessing import NetworkInput

SIZES = {
    "tiny": Grid((128, 128, 60), (2.2, 2.2, 3.0)),
    "small": Grid((256, 256, 100), (1.5, 1.5, 3.0)),
    "medium": Grid((512, 512, 200), (0.98, 0.98, 2.0)),
    "full": Grid((1024, 1024, 202), (0.56, 0.56, 2.0)),
}
WORKING_MM = (1.5, 1.5, 1.5)
SHIPPED = "hnseg-base"
BODY_MM = (440.0, 230.0)
"""Width and depth of the body, an ellipse along the whole scan."""

_CERTAIN = 12.0
"""Logit of the true class above the others, whose probabilities are then 6e-6 each. Those of a trained network spread:
in a tile of 16 × 16 voxels of a window, four of the shipped one's 31 classes reach 1e-4, on average.
"""
_GIB = 2**30


def make_input(ct_grid: Grid, classes: int) -> NetworkInput:
    """Four channels on the working grid: channel 0 carries the labels (n / 100), the others noise."""
    grid = ct_grid.cropped(*body_box(ct_grid)).respaced(WORKING_MM)
    rng = np.random.default_rng(0)
    array = rng.normal(0, 0.3, (4, *grid.shape_kji)).astype(np.float32)
    array[0] = organ_like(rng, grid.shape_kji, classes) / 100
    _, j, i = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in grid.shape_kji)]  # type: ignore[misc]
    body = np.broadcast_to(i**2 + j**2 <= 1, grid.shape_kji)
    return NetworkInput(array, grid, np.array(body))


def body_box(ct_grid: Grid) -> tuple[list[int], list[int]]:
    """The body's box in the CT: first voxel and size (i, j, k)."""
    size = np.asarray(ct_grid.size_ijk)
    box = np.minimum(np.array([*BODY_MM, np.inf]) / ct_grid.spacing_mm, size).astype(int)
    return ((size - box) // 2).tolist(), box.tolist()


def organ_like(rng: np.random.Generator, shape_kji: tuple[int, int, int], classes: int) -> NDArray[np.float32]:
    """Ellipsoids of 2 to 40 mm half-axes in the middle half, one for each class."""
    labels = np.zeros(shape_kji, np.float32)
    axes = np.ogrid[tuple(slice(0, n) for n in shape_kji)]
    for label in range(1, classes):
        centre = [rng.uniform(0.25 * n, 0.75 * n) for n in shape_kji]
        radius = rng.uniform(2, 40, 3) ** 0.8 / WORKING_MM[0]
        labels[sum(((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radius, strict=True)) <= 1] = label  # type: ignore[operator]
    return labels


class LabelledUNet(nn.Module):
    """The shipped architecture, whose logits are added, faintly, to those of the label map in channel 0.

    Faintly, as the two routes place their windows a few voxels apart, and random weights answer to that.
    """

    def __init__(self, model: BundleMetadata, classes: int, *, with_unet: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        arguments = {**model.network.arguments, "in_channels": 4, "out_channels": classes}
        self.network = build_network(model.network.name, **arguments) if with_unet else None
        self.classes = classes

    def forward(self, image: Tensor) -> Tensor:
        label = (image[:, 0] * 100).round().long().clamp_(0, self.classes - 1)
        shape = (len(image), self.classes, *image.shape[2:])
        logits: Tensor = self.network(image) if self.network else image.new_zeros(shape)
        return logits.mul_(0.02).scatter_add_(1, label[:, None], torch.full_like(logits[:, :1], _CERTAIN))


@dataclass(frozen=True, slots=True)
class Task:
    """What both routes are given."""

    network: nn.Module
    given: NetworkInput
    ct_grid: Grid
    tiles: TileSettings
    classes: int
    device: str
    precision: Precision


def ours(task: Task) -> NDArray[Any]:
    """The streaming predictor."""
    return predict_labels(
        task.network,
        task.given,
        labels=range(task.classes),
        output_grid=task.ct_grid,
        tiles=task.tiles,
        device=task.device,
        precision=task.precision,
    ).labels.array_kji


def monai_route(task: Task) -> NDArray[Any]:
    """Blend all probabilities, resample all classes to the CT grid, argmax: what a MONAI pipeline does."""
    from monai.inferers import sliding_window_inference

    network = task.network.to(task.device)

    def probabilities_of(windows: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype=torch.float16, enabled=task.device != "cpu"):
            logits: Tensor = network(windows)
        return torch.softmax(logits.float(), dim=1)

    with torch.inference_mode():
        probabilities = sliding_window_inference(
            torch.from_numpy(task.given.array_ckji)[None].to(task.device),
            task.tiles.patch_kji,
            1 if task.device == "cpu" else 13,
            probabilities_of,
            overlap=task.tiles.overlap,
            mode="gaussian",
            sigma_scale=0.125,
        )
        resampled = torch.nn.functional.grid_sample(
            probabilities,
            _sampling(task.given.grid, task.ct_grid).to(task.device),
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        )
        labels = resampled[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return _outside_is_background(labels, task.given.grid, task.ct_grid)


def nnunet_route(task: Task) -> NDArray[Any]:
    """nnU-Net v2's own sliding window and its own resampling of all classes, without mirroring."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    on_gpu = task.device != "cpu"
    predictor = nnUNetPredictor(
        tile_step_size=1 - task.tiles.overlap, use_mirroring=False, perform_everything_on_device=on_gpu,
        device=torch.device(task.device), allow_tqdm=False,
    )  # fmt: skip
    predictor.network, predictor.list_of_parameters = task.network.to(task.device), [task.network.state_dict()]
    predictor.configuration_manager = SimpleNamespace(patch_size=list(task.tiles.patch_kji))
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=task.classes)
    predictor.allowed_mirroring_axes = None
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(task.given.array_ckji))
    (i, j, k), (ni, nj, nk) = body_box(task.ct_grid)
    resampled = resample_data_or_seg_to_shape(
        logits, (nk, nj, ni), WORKING_MM[::-1], task.ct_grid.spacing_mm[::-1], order=1, order_z=0, force_separate_z=None
    )
    labels = np.zeros(task.ct_grid.shape_kji, np.uint8)
    labels[k : k + nk, j : j + nj, i : i + ni] = resampled.argmax(0)
    return labels


def _sampling(source: Grid, target: Grid) -> Tensor:
    """grid_sample's coordinates of the target's voxels; (1, K, J, I, 3), −1 … 1 between the outermost centres."""
    relation = source.lps_to_ijk @ target.ijk_to_lps
    axes = [
        torch.from_numpy(
            2 * (relation[n, n] * np.arange(target.size_ijk[n]) + relation[n, 3]) / (source.size_ijk[n] - 1) - 1
        ).float()
        for n in range(3)
    ]
    k, j, i = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return torch.stack([i, j, k], dim=-1)[None]


def _outside_is_background(labels: NDArray[np.uint8], source: Grid, target: Grid) -> NDArray[np.uint8]:
    relation = source.lps_to_ijk @ target.ijk_to_lps
    for axis, n in ((2, 0), (1, 1), (0, 2)):
        at = relation[n, n] * np.arange(target.size_ijk[n]) + relation[n, 3]
        np.moveaxis(labels, axis, 0)[(at < -0.5) | (at > source.size_ijk[n] - 0.5)] = 0
    return labels


ROUTES: dict[str, Callable[[Task], NDArray[Any]]] = {"ours": ours, "monai": monai_route, "nnunet": nnunet_route}
LIBRARIES = {
    "ours": "hnseg.inference.predictor",
    "monai": "monai.inferers",
    "nnunet": "nnunetv2.inference.predict_from_raw_data",
}


def measure(args: argparse.Namespace, route: str, size: str, classes: int, labels_to: Path) -> dict[str, Any]:
    """Run one route in this process; on a GPU once more before, so that the figures are those of a warm one."""
    torch.set_num_threads(args.threads)
    importlib.import_module(LIBRARIES[route])
    model = open_bundle(SHIPPED).metadata
    # MONAI runs every window, so ours does too: the gain from the body mask is not what is measured here.
    tiles = TileSettings(model.patch_kji, overlap=args.overlap, skip_outside_body=False)
    given = make_input(SIZES[size], classes)
    network = LabelledUNet(model, classes, with_unet=args.network == "unet").eval()
    task = Task(network, given, SIZES[size], tiles, classes, args.device, args.precision)
    on_gpu = args.device != "cpu"
    if on_gpu:
        ROUTES[route](task)
        torch.cuda.reset_peak_memory_stats()
    before = psutil.Process().memory_info().rss
    begun, cpu_begun = time.perf_counter(), time.process_time()
    labels = ROUTES[route](task)
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    np.save(labels_to, labels)
    return {
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "peak_gib": round((torch.cuda.max_memory_allocated() if on_gpu else peak - before) / _GIB, 3),
        "working_kji": given.grid.shape_kji,
    }


def plain_route_gib(size: str, classes: int) -> float:
    """What the plain route needs at least: all classes in float32 on the CT grid, once."""
    return float(SIZES[size].voxels) * classes * 4 / _GIB


def nnunet_gib(field: Grid, classes: int) -> float:
    """What nnU-Net's resampling needs: all classes in double on the working grid, and in half on the field's own."""
    return classes * (8 * field.respaced(WORKING_MM).voxels + 2 * field.voxels) / _GIB


def compare(args: argparse.Namespace, size: str, classes: int) -> dict[str, Any]:
    """The routes at one size; those that cannot fit are left out, with what they would need."""
    # grid_sample holds its coordinates (3 floats a voxel) besides the classes.
    needed = plain_route_gib(size, classes) * (1 + 3 / classes)
    needs = {"ours": 0.0, "monai": needed, "nnunet": nnunet_gib(SIZES[size].cropped(*body_box(SIZES[size])), classes)}
    row: dict[str, Any] = {"size": size, "classes": classes, "overlap": args.overlap, "device": args.device}
    row["network"] = args.network
    row["plain_route_needs_gib"] = round(needed, 2)
    row["nnunet_needs_gib_with_the_air"] = round(nnunet_gib(SIZES[size], classes), 2)
    with tempfile.TemporaryDirectory() as scratch:
        paths = {route: Path(scratch) / f"{route}.npy" for route in ROUTES}
        for route, path in paths.items():
            if route not in args.routes:
                row[route] = {"left_out": "not asked for"}
            elif route == "nnunet" and not _has_nnunet(args.nnunet_python):
                row[route] = {"left_out": f"nnunetv2 is not installed for {args.nnunet_python}"}
            elif needs[route] > args.give_up_gib:
                row[route] = {"left_out": f"needs about {needs[route]:.1f} GiB"}
            else:
                row[route] = _in_a_process(args, route, size, classes, path)
        for route in ("monai", "nnunet"):
            if "wall_s" in row[route] and "wall_s" in row["ours"]:
                row[route] |= _ratios(row["ours"], row[route], np.load(paths["ours"]), np.load(paths[route]))
    return row


def _has_nnunet(python: str) -> bool:
    return subprocess.run([python, "-c", "import nnunetv2, hnseg"], capture_output=True, check=False).returncode == 0


def _ratios(
    ours: dict[str, Any], other: dict[str, Any], first: NDArray[np.uint8], second: NDArray[np.uint8]
) -> dict[str, float]:
    """How much faster and smaller ours is, and how many voxels are equal."""
    equal, organs = first == second, (first > 0) | (second > 0)
    return {
        "agreement": float(equal.mean()),
        "agreement_in_organs": float(equal[organs].mean()),
        "times_faster": round(other["wall_s"] / ours["wall_s"], 2),
        "times_less_cpu": round(other["cpu_s"] / ours["cpu_s"], 2),
        "times_less_memory": round(other["peak_gib"] / ours["peak_gib"], 2),
    }


def _in_a_process(args: argparse.Namespace, route: str, size: str, classes: int, labels_to: Path) -> dict[str, Any]:
    options = ["--overlap", str(args.overlap), "--threads", str(args.threads)]
    options += ["--device", args.device, "--network", args.network, "--precision", args.precision]
    python = args.nnunet_python if route == "nnunet" else sys.executable
    words = [python, __file__, *options, "--one", route, size, str(classes), str(labels_to)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "full"])
    parser.add_argument("--classes", nargs="+", type=int, default=[31])
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--network", choices=("unet", "none"), default="unet", help="none: all but the network's work")
    parser.add_argument(
        "--precision", choices=("auto", "full"), default="auto", help="of ours; the others are as theirs"
    )
    parser.add_argument("--routes", nargs="+", choices=ROUTES, default=list(ROUTES), help="which to run")
    parser.add_argument("--nnunet-python", default=sys.executable, help="a Python that has nnunetv2 and hnseg")
    parser.add_argument("--give-up-gib", type=float, help="leave the others out above this; usually what is free")
    parser.add_argument("--out", type=Path, default=Path("build/bench/inference.json"))
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        route, size, classes, labels_to = args.one
        print(json.dumps(measure(args, route, size, int(classes), Path(labels_to))))
        return 0
    if args.give_up_gib is None:
        free = torch.cuda.mem_get_info()[0] if args.device == "cuda" else psutil.virtual_memory().available
        args.give_up_gib = 0.7 * free / _GIB
    machine = {"processor": platform.machine(), "threads": args.threads, "torch": torch.__version__}
    rows = [compare(args, size, classes) for size in args.sizes for classes in args.classes]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(
        json.dumps({"machine": machine, "patch_kji": open_bundle(SHIPPED).metadata.patch_kji, "rows": rows}, indent=2)
        + "\n"
    )
    print(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
