# ruff: noqa: E501
"""Deformable registration on phantoms with jaw and neck motion, beside SimpleITK's B-spline, and elastix as published.

    python Testing/benchmarks/bench_deformable.py --out build/bench/deformable.json --patients 20
    python Testing/benchmarks/bench_deformable.py --out … --patients 20 --elastix-python PYTHON --elastix 2

Errors are distances between where a transform puts a point and where it truly lies, mm: of the organs' centres, of those
"seen" whose centre lies in the MR's field of view, and of the mandible's voxels. All start from our rigid pose and use
one thread, one after the other. ``simpleitk`` runs on the first patients too, with the settings of SimpleITK's own
examples for B-splines on mutual information. elastix (``peer_elastix.py``) runs on the first patients with ``--iterations`` per level
(published: 5000), in the Python that is named. Rows are kept in a ``.jsonl`` beside ``--out``, so that a stopped run goes
on where it was; remove that file when the method has changed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from bench_registration import Case, case
from numpy.typing import NDArray

from hnseg.image.files import read_transform, read_volume, write_volume
from hnseg.image.grid import Grid
from hnseg.image.itk import to_sitk
from hnseg.image.resample import resample
from hnseg.image.volume import Volume
from hnseg.organs import find_organ
from hnseg.registration import Registration, register_deformable, register_rigid
from hnseg.registration.poses import from_transform, inverse, moved

PEER = Path(__file__).with_name("peer_elastix.py")
MANDIBLE_VOXELS = 300
Row = dict[str, Any]
Points = NDArray[np.float64]


class Truth:
    """Points of the CT and where they truly lie in the MR: the organs' centres, then voxels of the mandible."""

    def __init__(self, c: Case, cache: Path) -> None:
        folder = cache / f"deformed_{c.seed}"
        labels = read_volume(folder / "labels.nrrd")
        kji = np.argwhere(labels.array_kji == find_organ("Bone_Mandible").label)
        mandible = labels.grid.to_lps(np.random.default_rng(0).permutation(kji)[:MANDIBLE_VOXELS, ::-1])
        self.names, self.mr = c.names, c.mr.grid
        self.points = np.concatenate([c.in_ct, mandible])
        self.true = np.concatenate([c.in_mr, at(read_transform(folder / "truth.h5"), mandible)])

    def row(self, engine: str, found: Points, rigid: Points, seconds: float) -> Row:
        """What the page shows of one engine on one patient."""
        error, before = (np.linalg.norm(places - self.true, axis=1) for places in (found, rigid))
        organs, ijk = len(self.names), self.mr.to_ijk(self.true)
        seen = np.all((ijk >= 0) & (ijk <= np.asarray(self.mr.size_ijk) - 1), axis=1)[:organs]
        worse = (error - before)[:organs]
        return {
            "engine": engine, "mean_mm": float(error[:organs].mean()), "mean_seen_mm": float(error[:organs][seen].mean()),
            "mandible_mm": float(error[organs:].mean()), "most_worse_than_rigid_mm": float(worse.max()),
            "organ": self.names[int(worse.argmax())], "seconds": seconds,
        }  # fmt: skip


def at(transform: sitk.Transform, points: Points) -> Points:
    """(N, 3) LPS mm under the transform."""
    return np.array([transform.TransformPoint(point) for point in points.tolist()])


def ours(c: Case, truth: Truth, start: Registration) -> list[Row]:
    """The rigid pose, and the bending after it with its own seconds."""
    bent = register_deformable(c.ct, c.mr, rigid=start)
    rigid, found = at(start.transform, truth.points), at(bent.transform, truth.points)
    told = {"used": bent.bending.used, "smallest_jacobian": bent.bending.smallest_jacobian, "gain": bent.bending.gain}
    return [
        truth.row("rigid", rigid, rigid, start.seconds),
        truth.row("deformable", found, rigid, bent.seconds - start.seconds) | told,
    ]


def simpleitk(c: Case, truth: Truth, start: Registration) -> list[Row]:
    """ITK's B-spline in three levels, 60, 30 and 15 mm between control points, on the part of the CT that the MR covers;
    Mattes' information of a tenth of its voxels.
    """
    fixed, moving = (to_sitk(v.with_array(v.array_kji.astype(np.float32))) for v in (_covered(c, start), c.mr))
    mesh = [max(1, round(n * mm / 60)) for n, mm in zip(fixed.GetSize(), fixed.GetSpacing(), strict=True)]
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.1, seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([4, 2, 1])
    method.SetOptimizerAsLBFGS2(solutionAccuracy=1e-2, numberOfIterations=100, deltaConvergenceTolerance=0.01)
    method.SetMovingInitialTransform(start.transform)
    method.SetInitialTransformAsBSpline(sitk.BSplineTransformInitializer(fixed, mesh), True, [1, 2, 4])
    begun = time.perf_counter()
    spline = method.Execute(fixed, moving)
    seconds = time.perf_counter() - begun
    found = at(sitk.CompositeTransform([start.transform, spline]), truth.points)
    return [truth.row("simpleitk", found, at(start.transform, truth.points), seconds)]


def _covered(c: Case, start: Registration) -> Volume:
    """The box of the CT that holds all that the MR covers at the pose."""
    pose = from_transform(start.transform)
    grid = Grid.from_affine(c.mr.grid.shape_kji, inverse(pose) @ c.mr.grid.ijk_to_lps)
    shown = resample(Volume(np.ones(grid.shape_kji, np.uint8), grid), c.ct.grid, interpolation="nearest")
    covered = np.argwhere(shown.array_kji)[:, ::-1]
    return c.ct.cropped(covered.min(axis=0), np.ptp(covered, axis=0) + 1)


def elastix(c: Case, truth: Truth, start: Registration, *, python: str, iterations: int) -> list[Row]:
    """The same MR, its header moved to our rigid pose, so that elastix starts where ours does; and the part of the CT
    that the MR covers.
    """
    pose = from_transform(start.transform)
    grid = Grid.from_affine(c.mr.grid.shape_kji, inverse(pose) @ c.mr.grid.ijk_to_lps)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_volume(_covered(c, start), folder / "fixed.nrrd")
        write_volume(Volume(c.mr.array_kji, grid), folder / "moving.nrrd")
        np.save(folder / "points.npy", truth.points)
        done = subprocess.run([python, str(PEER), name, str(iterations)], capture_output=True, text=True, check=False)
        if done.returncode:
            return [{"engine": "elastix", "not run": done.stderr.strip().splitlines()[-1][:200]}]
        places, seconds = np.load(folder / "moved.npy"), float((folder / "seconds.txt").read_text())
    rigid = at(start.transform, truth.points)
    return [truth.row(f"elastix, {iterations} iterations", moved(places, pose), rigid, seconds)]


def summary(rows: list[Row]) -> Row:
    """Means and the worst per engine over the patients that it ran on."""
    told: Row = {}
    for engine in dict.fromkeys(r["engine"] for r in rows if "not run" not in r):
        of = [r for r in rows if r["engine"] == engine]
        told[engine] = {"patients": len(of)} | {
            key: float(np.mean([r[key] for r in of])) for key in ("mean_mm", "mean_seen_mm", "mandible_mm", "seconds")
        }
        told[engine]["most_worse_than_rigid_mm"] = max(r["most_worse_than_rigid_mm"] for r in of)
        if engine == "deformable":
            told[engine]["smallest_jacobian"] = min(r["smallest_jacobian"] for r in of)
    return told


def main() -> None:
    """What is missing is computed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="where rendered phantoms are kept (default: beside --out)")
    parser.add_argument("--patients", type=int, default=4)
    parser.add_argument(
        "--seed", type=int, default=900, help="of the first patient; those below were seen when it was made"
    )
    parser.add_argument("--elastix-python", help="a Python with itk-elastix; without it elastix is left out")
    parser.add_argument("--elastix", type=int, default=1, help="run elastix on the first so many patients")
    parser.add_argument(
        "--simpleitk", type=int, default=1, help="run SimpleITK's B-spline on the first so many patients"
    )
    parser.add_argument("--iterations", type=int, default=5000, help="of elastix per level")
    args = parser.parse_args()
    cache, kept = args.cache or args.out.parent / "registration_phantoms", args.out.with_suffix(".jsonl")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    rows: list[Row] = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for n, seed in enumerate(range(args.seed, args.seed + args.patients)):
        done = {row["engine"].split(",")[0] for row in rows if row["patient"] == seed}
        missing: list[Callable[[Case, Truth, Registration], list[Row]]] = [] if "deformable" in done else [ours]
        if n < args.simpleitk and "simpleitk" not in done:
            missing.append(simpleitk)
        if args.elastix_python and n < args.elastix and "elastix" not in done:
            missing.append(partial(elastix, python=args.elastix_python, iterations=args.iterations))
        if missing:
            c = case(seed, deformed=True, cache=cache)
            truth, start = Truth(c, cache), register_rigid(c.ct, c.mr)
            found = [{"patient": seed} | row for engine in missing for row in engine(c, truth, start)]
            rows += found
            with kept.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in found)
        args.out.write_text(json.dumps({"summary": summary(rows), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
