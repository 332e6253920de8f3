"""Evaluation: 30 organs at 1024 × 1024 × 182, ours against surface-distance and MONAI organ by organ. Time and memory,
as JSON.

The reference is the phantom's truth; the prediction is the same patient moved by about a millimetre, so that no surface
coincides. Each route runs in a process of its own, in one go, with the same number of threads. Ours computes every
metric of the table; the others the surface metrics that they have. MONAI is timed on some organs only and scaled up, as
it works on whole grids.

    python Testing/benchmarks/bench_evaluation.py --out build/bench/evaluation.json
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segmentation
from hnseg.image.volume import Volume
from hnseg.organs import ORGANS

SIZES = {
    "small": Grid((256, 256, 91), (2.24, 2.24, 4.0), (-286.0, -286.0, -250.0)),
    "full": Grid((1024, 1024, 182), (0.56, 0.56, 2.0), (-286.0, -286.0, -225.0)),
}
SHIFT_MM = (0.7, -0.6, 0.9)
TOLERANCE_MM = 2.0
SAME = 1e-6

_GIB = 2**30


def make_pair(size: str, folder: Path) -> None:
    """Write truth and prediction as arrays."""
    from hnseg.phantom.options import PhantomOptions
    from hnseg.phantom.patient import draw_patient
    from hnseg.phantom.rendering import labels_on

    patient = draw_patient(np.random.default_rng(4), PhantomOptions())
    grid = SIZES[size]
    x, y, z = np.add(grid.origin_lps, SHIFT_MM).tolist()
    moved = Grid(grid.size_ijk, grid.spacing_mm, (x, y, z))
    np.save(folder / "reference.npy", labels_on(patient, grid, threads=2).array_kji)
    np.save(folder / "prediction.npy", labels_on(patient, moved, threads=2).array_kji)


def run_ours(grid: Grid, prediction: Any, reference: Any, organs: list[int]) -> dict[str, list[float]]:
    """Every metric of the table, through the public function."""
    from hnseg.evaluation.compare import CompareOptions, compare

    parts = [Segmentation.from_labels(Volume(array, grid)) for array in (prediction, reference)]
    scores = compare(*parts, CompareOptions(tolerance_mm=TOLERANCE_MM))
    return {row.organ: [row.dsc, row.hd_mm, row.hd95_mm, row.surface_dsc] for row in scores.organs}


def run_surface_distance(grid: Grid, prediction: Any, reference: Any, organs: list[int]) -> dict[str, list[float]]:
    """DeepMind's library, which crops each organ by itself."""
    warnings.simplefilter("ignore")
    np.inf = np.inf  # type: ignore[attr-defined]  the library wants a name that NumPy 2 dropped
    import surface_distance as library

    values = {}
    for label in organs:
        truth, found = reference == label, prediction == label
        distances = library.compute_surface_distances(truth, found, grid.spacing_mm[::-1])
        values[ORGANS[label - 1].name] = [
            float(library.compute_dice_coefficient(truth, found)),
            float(library.compute_robust_hausdorff(distances, 100)),
            float(library.compute_robust_hausdorff(distances, 95)),
            float(library.compute_surface_dice_at_tolerance(distances, TOLERANCE_MM)),
        ]
    return values


def run_monai(grid: Grid, prediction: Any, reference: Any, organs: list[int]) -> dict[str, list[float]]:
    """MONAI's functions on whole grids."""
    warnings.simplefilter("ignore")
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_dice,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    values = {}
    for label in organs:
        pair = [torch.from_numpy((array == label)[None, None]).to(torch.uint8) for array in (prediction, reference)]
        options: dict[str, Any] = {"include_background": True, "spacing": list(grid.spacing_mm[::-1])}
        values[ORGANS[label - 1].name] = [
            compute_dice(*pair).item(),
            compute_hausdorff_distance(*pair, **options).item(),
            compute_hausdorff_distance(*pair, percentile=95, **options).item(),
            compute_surface_dice(*pair, [TOLERANCE_MM], **options).item(),
            compute_average_surface_distance(*pair, symmetric=True, **options).item(),
        ]
    return values


ROUTES = {"ours": run_ours, "surface-distance": run_surface_distance, "monai": run_monai}
IMPORTS = {
    "ours": ("hnseg.evaluation.compare", "skimage.measure"),
    "surface-distance": ("surface_distance",),
    "monai": ("torch", "monai.metrics"),
}
"""Imported before the clock starts."""


def child(route: str, size: str, folder: Path, organs: list[int]) -> None:
    """Run one route and write what it measured; peak memory is the whole process's.

    Processor seconds of all threads stand beside the wall's, as a busy machine stretches only the latter.
    """
    for module in IMPORTS[route]:
        importlib.import_module(module)
    prediction, reference = np.load(folder / "prediction.npy"), np.load(folder / "reference.npy")
    started, started_cpu = time.perf_counter(), time.process_time()
    values = ROUTES[route](SIZES[size], prediction, reference, organs)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    peak = _peak_gib()
    result = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_gib": peak, "organs": len(organs), "values": values}
    (folder / f"{route}.json").write_text(json.dumps(result))


def _peak_gib() -> float:
    """Peak resident memory of this process alone; getrusage would count the parent's before the fork."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / _GIB


def measure(route: str, size: str, folder: Path, organs: list[int]) -> dict[str, Any]:
    """Run one route in a fresh process."""
    command = [sys.executable, __file__, "--child", route, "--size", size, "--folder", str(folder)]
    subprocess.run([*command, "--organs", ",".join(map(str, organs))], check=True)
    return dict(json.loads((folder / f"{route}.json").read_text()))


def benchmark(size: str, monai_organs: int) -> dict[str, Any]:
    """All routes on one pair."""
    everything = [organ.label for organ in ORGANS]
    # A spread over sizes, from the cochlea to the oral cavity, so that scaling up is fair.
    by_size = sorted(everything, key=lambda label: ORGANS[label - 1].typical_ml)
    some = [by_size[n] for n in np.linspace(0, len(by_size) - 1, monai_organs).astype(int)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pair(size, folder)
        ours = measure("ours", size, folder, everything)
        deepmind = measure("surface-distance", size, folder, everything)
        monai = measure("monai", size, folder, some)
    monai["seconds_for_all"] = monai["seconds"] / len(some) * len(everything)
    apart = [np.abs(np.subtract(ours["values"][organ], row)).max() for organ, row in deepmind["values"].items()]
    for result in (ours, deepmind, monai):
        result.pop("values")
    return {
        "size_ijk": SIZES[size].size_ijk,
        "ours": ours,
        "surface_distance": deepmind,
        "monai": monai,
        "times_faster_than_surface_distance": deepmind["seconds"] / ours["seconds"],
        "times_faster_than_monai": monai["seconds_for_all"] / ours["seconds"],
        "largest_difference_from_surface_distance": float(max(apart)),
        "same_values": bool(max(apart) <= SAME),
    }


def main() -> None:
    """Run the benchmark, or, as a child, one route."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--monai-organs", type=int, default=4)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", choices=ROUTES)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--organs", default="")
    args = parser.parse_args()
    if args.child:
        child(args.child, args.size, args.folder, [int(text) for text in args.organs.split(",")])
        return
    result = benchmark(args.size, args.monai_organs) | {
        "machine": {"processor": platform.processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    }
    text = json.dumps(result, indent=2)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
