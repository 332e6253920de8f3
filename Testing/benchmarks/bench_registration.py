# ruff: noqa: E501
"""Registration on phantoms with known truth: exactness, capture range, and what the quality check lets through. JSON.

    python Testing/benchmarks/bench_registration.py --out build/bench/registration.json --patients 4 --starts 10
    python Testing/benchmarks/bench_registration.py --out … --parts accuracy --patients 20

``accuracy``: rigid phantoms; mean target registration error over the organs' centres. ``capture``: the same, the MR moved
by up to ±500 mm and ±20° about each axis, with or without a half turn; found means a mean error within 2 mm. ``quality``:
phantoms with jaw and neck motion, and planted failures: another patient's MR, its own MR 15 mm off, with a half turn too
many, mirrored, and cut to a slab. Every row holds the measures, so that thresholds can be studied without running again.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnseg.image.files import read_volume, write_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.organs import ORGANS
from hnseg.phantom import PhantomOptions, draw_patient, render
from hnseg.registration import register_rigid
from hnseg.registration.images import prepare_ct, prepare_mr
from hnseg.registration.poses import HALF_TURNS, Pose, from_transform, inverse, moved, pose, rotation
from hnseg.registration.quality import Quality, judge, measure

CT_MM = (2.0, 2.0, 2.5)
MR_PIXEL_MM = 1.5
FOUND_MM = 2.0
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Case:
    """CT, MR, and the organs' centres in both."""

    seed: int
    ct: Volume
    mr: Volume
    names: tuple[str, ...]
    in_ct: NDArray[np.float64]
    in_mr: NDArray[np.float64]

    def error_mm(self, ct_to_mr: Pose, moving: Pose | None = None) -> NDArray[np.float64]:
        """Per organ; ``moving`` is where the MR was moved to."""
        there = self.in_mr if moving is None else moved(self.in_mr, moving)
        return np.asarray(np.linalg.norm(moved(self.in_ct, ct_to_mr) - there, axis=1))


def case(seed: int, *, deformed: bool, cache: Path) -> Case:
    """Rendered once, then read from the cache."""
    folder = cache / f"{'deformed' if deformed else 'rigid'}_{seed}"
    if not (folder / "centres.json").exists():
        _render(seed, deformed, folder)
    centres = json.loads((folder / "centres.json").read_text())
    names = tuple(centres)
    points = np.array([centres[name] for name in names])
    return Case(
        seed, read_volume(folder / "ct.nrrd"), read_volume(folder / "mr.nrrd"), names, points[:, 0], points[:, 1]
    )


def _render(seed: int, deformed: bool, folder: Path) -> None:
    patient = draw_patient(np.random.default_rng(seed), PhantomOptions(deformation=deformed))
    mr_mm = (MR_PIXEL_MM, MR_PIXEL_MM, max(1.7, patient.scan.mr_slice))
    made = render(patient, ct_spacing_mm=CT_MM, mr_spacing_mm=mr_mm)
    assert made.mr is not None
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(made.ct, folder / "ct.nrrd")
    write_volume(made.mr, folder / "mr.nrrd")
    write_volume(made.labels, folder / "labels.nrrd")
    centres = {}
    for organ in ORGANS:
        kji = np.argwhere(made.labels.array_kji == organ.label)
        if len(kji):
            at = made.labels.grid.to_lps(kji[:, ::-1].mean(axis=0))
            centres[organ.name] = (at.tolist(), made.ct_to_mr.TransformPoint(at.tolist()))
    (folder / "centres.json").write_text(json.dumps(centres))


def moved_volume(volume: Volume, moving: Pose) -> Volume:
    """The same voxels at another place."""
    return volume.with_array(volume.array_kji) if moving is None else Volume(
        volume.array_kji, Grid.from_affine(volume.array_kji.shape, moving @ volume.grid.ijk_to_lps)
    )  # fmt: skip


def accuracy(cases: Iterator[Case]) -> Iterator[Row]:
    """One registration per rigid phantom."""
    for c in cases:
        found = register_rigid(c.ct, c.mr)
        error = c.error_mm(from_transform(found.transform))
        yield {
            "part": "accuracy", "patient": c.seed, "mean_mm": float(error.mean()), "worst_mm": float(error.max()),
            "worst_organ": c.names[int(error.argmax())], "verdict": found.verdict, "seconds": found.seconds,
            **asdict(found.metrics),
        }  # fmt: skip


def capture(cases: Iterator[Case], starts: int) -> Iterator[Row]:
    """Random starts; each half turn in its turn."""
    for c in cases:
        rng = np.random.default_rng(1000 + c.seed)
        for n in range(starts):
            turn = rotation(rng.uniform(-20, 20, 3)) @ np.diag(HALF_TURNS[n % 4][1])
            moving = pose(turn, rng.uniform(-500, 500, 3), c.mr.grid.centre_lps)
            found = register_rigid(c.ct, moved_volume(c.mr, moving))
            mean = float(c.error_mm(from_transform(found.transform), moving).mean())
            yield {
                "part": "capture", "patient": c.seed, "start": n, "half_turn": n % 4, "mean_mm": mean,
                "verdict": found.verdict, "seconds": found.seconds, **asdict(found.metrics),
            }  # fmt: skip


def quality(cases: list[Case]) -> Iterator[Row]:
    """A good registration and six planted failures per patient."""
    for n, c in enumerate(cases):
        rng = np.random.default_rng(2000 + c.seed)
        good = register_rigid(c.ct, c.mr)
        found = from_transform(good.transform)
        ct, mr = prepare_ct(c.ct, 2.0), prepare_mr(c.mr, 2.0)
        yield _row("good", c, good.metrics, c.error_mm(found))
        aside = rng.normal(size=3)
        yield _row("shifted 15 mm", c, measure(ct, mr, found @ pose(np.eye(3), 15 * aside / np.linalg.norm(aside))))
        middle = moved(c.mr.grid.centre_lps, inverse(found))
        turn = np.diag(HALF_TURNS[1 + n % 3][1])
        yield _row("half turn", c, measure(ct, mr, found @ pose(turn, centre=middle)))
        yield _row("mirrored", c, register_rigid(c.ct, _mirror(c.mr)).metrics)
        other = cases[(n + 1) % len(cases)]
        yield _row("other patient", c, register_rigid(c.ct, other.mr).metrics)
        yield _row("cut to a slab", c, register_rigid(c.ct, _slab(c.mr, rng)).metrics)
        blanked = register_rigid(c.ct, _blanked(c.mr, rng))
        yield _row("half of it lost", c, blanked.metrics, c.error_mm(from_transform(blanked.transform)))


def _mirror(mr: Volume) -> Volume:
    return mr.with_array(np.ascontiguousarray(mr.array_kji[:, :, ::-1]))


def _slab(mr: Volume, rng: np.random.Generator) -> Volume:
    """3 cm of the MR."""
    i, j, k = mr.grid.size_ijk
    count = max(8, round(30 / mr.grid.spacing_mm[2]))
    start = int(rng.integers(0, k - count))
    return mr.cropped((0, 0, start), (i, j, count))


def _blanked(mr: Volume, rng: np.random.Generator) -> Volume:
    """As a reader that fills a truncated file with zeros: the last 60 to 75 % of the slices are gone."""
    array = mr.array_kji.copy()
    array[round(len(array) * rng.uniform(0.25, 0.4)) :] = 0
    return mr.with_array(array)


def _row(kind: str, c: Case, metrics: Quality, error: NDArray[np.float64] | None = None) -> Row:
    verdict, reason = judge(metrics)
    mean = None if error is None else float(error.mean())
    return {
        "part": "quality", "kind": kind, "patient": c.seed, "mean_mm": mean, "verdict": verdict, "reason": reason,
        **asdict(metrics),
    }  # fmt: skip


def summary(rows: list[Row]) -> dict[str, Any]:
    """The figures that the documentation quotes."""
    told: dict[str, Any] = {}
    exact = [r for r in rows if r["part"] == "accuracy"]
    if exact:
        told["accuracy"] = {
            "patients": len(exact), "mean_mm": float(np.mean([r["mean_mm"] for r in exact])),
            "worst_patient_mm": max(r["mean_mm"] for r in exact), "worst_organ_mm": max(r["worst_mm"] for r in exact),
            "good": sum(r["verdict"] == "good" for r in exact), "median_s": float(np.median([r["seconds"] for r in exact])),
        }  # fmt: skip
    starts = [r for r in rows if r["part"] == "capture"]
    if starts:
        lost = [r for r in starts if r["mean_mm"] > FOUND_MM]
        told["capture"] = {
            "starts": len(starts), "found": len(starts) - len(lost),
            "lost_but_called_good": sum(r["verdict"] == "good" for r in lost),
            "worst_found_mm": max((r["mean_mm"] for r in starts if r["mean_mm"] <= FOUND_MM), default=None),
        }  # fmt: skip
    kinds = dict.fromkeys(r["kind"] for r in rows if r["part"] == "quality")
    for kind in kinds:
        verdicts = [r["verdict"] for r in rows if r.get("kind") == kind]
        told.setdefault("quality", {})[kind] = {v: verdicts.count(v) for v in ("good", "doubtful", "failed")}
    return told


def main() -> None:
    """Rows are written as they come, so that a stopped run is not lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="where rendered phantoms are kept (default: beside --out)")
    parser.add_argument("--parts", default="accuracy,capture,quality")
    parser.add_argument("--patients", type=int, default=4)
    parser.add_argument("--starts", type=int, default=8, help="per patient")
    parser.add_argument("--seed", type=int, default=0, help="of the first patient")
    args = parser.parse_args()
    cache = args.cache or args.out.parent / "registration_phantoms"
    seeds = range(args.seed, args.seed + args.patients)
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "accuracy": lambda: accuracy(case(s, deformed=False, cache=cache) for s in seeds),
        "capture": lambda: capture((case(s, deformed=False, cache=cache) for s in seeds), args.starts),
        "quality": lambda: quality([case(s, deformed=True, cache=cache) for s in seeds]),
    }
    rows: list[Row] = []
    begun = time.perf_counter()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for part in args.parts.split(","):
        for row in parts[part]():
            rows.append(row)
            print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}), flush=True)
            record = {
                "command": vars(args) | {"out": None, "cache": None}, "machine": platform.processor() or platform.machine(),
                "seconds": time.perf_counter() - begun, "summary": summary(rows), "rows": rows,
            }  # fmt: skip
            args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
