# ruff: noqa: E501
"""Registration on phantoms with known truth: exactness, capture range, and what the quality check lets through. JSON.

    python Testing/benchmarks/bench_registration.py --out build/bench/registration.json
    python Testing/benchmarks/bench_registration.py --out … --accuracy 20 --starts 200 --quality 200

``accuracy``: rigid phantoms; mean target registration error over the organs' centres. ``capture``: four of these, the MR
moved by up to ±500 mm and ±20° about each axis, in three of four starts by a half turn about x, y or z as well; found means
a mean error within 2 mm. ``quality``: phantoms with jaw and neck motion, each once as it is and once with a planted failure:
another patient's MR, its own MR 15 mm off, with a half turn too many, mirrored, or cut to a slab or to its first third. Rows
hold the measures, so that thresholds can be studied without running again.

Rows are appended to a ``.jsonl`` beside ``--out`` as they come; a row that is there already is not computed again, so a
stopped run goes on where it was. Remove that file when the method has changed.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnseg.image.files import read_volume, write_transform, write_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.organs import ORGANS
from hnseg.phantom import PhantomOptions, draw_patient, render
from hnseg.registration import register_rigid
from hnseg.registration.images import Prepared, prepare_ct, prepare_mr
from hnseg.registration.poses import HALF_TURNS, Pose, inverse, moved, pose, rotation
from hnseg.registration.quality import Quality, judge, measure
from hnseg.registration.rigid import WORKING_MM, find_pose

CT_MM = (2.0, 2.0, 2.5)
MR_PIXEL_MM = 1.5
FOUND_MM = 2.0
Row = dict[str, Any]


Trial = tuple[Row, Callable[[], Row]]
"""What names a row, and what computes the rest of it."""
Rng = np.random.Generator


@dataclass(frozen=True, eq=False)
class Case:
    """CT, MR, and the organs' centres in both."""

    seed: int
    ct: Volume
    mr: Volume
    names: tuple[str, ...]
    in_ct: NDArray[np.float64]
    in_mr: NDArray[np.float64]

    @cached_property
    def images(self) -> tuple[Prepared, Prepared]:
        """Ready for registration."""
        return prepare_ct(self.ct, WORKING_MM), prepare_mr(self.mr, WORKING_MM)

    @cached_property
    def found(self) -> Pose:
        """CT points → MR points, by registration."""
        return find_pose(*self.images)

    def error_mm(self, ct_to_mr: Pose, moving: Pose | None = None) -> NDArray[np.float64]:
        """Per organ; ``moving`` is where the MR was moved to."""
        there = self.in_mr if moving is None else moved(self.in_mr, moving)
        return np.asarray(np.linalg.norm(moved(self.in_ct, ct_to_mr) - there, axis=1))


CaseOf = Callable[[int], Case]


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
    write_transform(made.ct_to_mr, folder / "truth.h5")
    centres = {}
    for organ in ORGANS:
        kji = np.argwhere(made.labels.array_kji == organ.label)
        if len(kji):
            at = made.labels.grid.to_lps(kji[:, ::-1].mean(axis=0))
            centres[organ.name] = (at.tolist(), made.ct_to_mr.TransformPoint(at.tolist()))
    (folder / "centres.json").write_text(json.dumps(centres))


def moved_case(mr: Prepared, moving: Pose) -> Prepared:
    """The same voxels at another place."""
    grid = Grid.from_affine(mr.grid.shape_kji, moving @ mr.grid.ijk_to_lps)
    return Prepared(Volume(mr.values.array_kji, grid), Volume(mr.valid.array_kji, grid), mr.air_below)


def accuracy(case_of: CaseOf, seeds: Sequence[int]) -> Iterator[Trial]:
    """One registration per rigid phantom."""

    def trial(seed: int) -> Row:
        begun = time.process_time()
        c = case_of(seed)
        error, judged = c.error_mm(c.found), _judged(measure(*c.images, c.found))
        return {
            "mean_mm": float(error.mean()), "worst_mm": float(error.max()), "worst_organ": c.names[int(error.argmax())],
            "cpu_s": time.process_time() - begun, **judged,
        }  # fmt: skip

    for seed in seeds:
        yield {"part": "accuracy", "patient": seed}, partial(trial, seed)


def capture(case_of: CaseOf, seeds: Sequence[int], starts: int) -> Iterator[Trial]:
    """Random starts; each half turn in its turn. Lost ones are judged."""
    draws = {seed: np.random.default_rng(1000 + seed) for seed in seeds}

    def trial(seed: int, n: int, degrees: NDArray[np.float64], shift: NDArray[np.float64]) -> Row:
        c = case_of(seed)
        ct, mr = c.images
        moving = pose(rotation(degrees) @ np.diag(HALF_TURNS[n % 4][1]), shift, c.mr.grid.centre_lps)
        there = moved_case(mr, moving)
        found = find_pose(ct, there)
        mean = float(c.error_mm(found, moving).mean())
        judged = _judged(measure(ct, there, found)) if mean > FOUND_MM else {}
        return {"half_turn": n % 4, "mean_mm": mean, **judged}

    for n in range(starts):
        for seed, rng in draws.items():
            degrees, shift = rng.uniform(-20, 20, 3), rng.uniform(-500, 500, 3)
            yield {"part": "capture", "patient": seed, "start": n}, partial(trial, seed, n, degrees, shift)


def quality(case_of: CaseOf, seeds: Sequence[int]) -> Iterator[Trial]:
    """Per patient the registration as it is, and one planted failure; the failures take turns."""
    for n, seed in enumerate(seeds):
        kind = list(FAILURES)[n % len(FAILURES)]
        yield {"part": "quality", "patient": seed, "kind": "good"}, partial(_good, case_of, seed)
        yield {"part": "quality", "patient": seed, "kind": kind}, partial(_planted, case_of, seed, kind, n)


def _good(case_of: CaseOf, seed: int) -> Row:
    c = case_of(seed)
    return {"mean_mm": float(c.error_mm(c.found).mean()), **_judged(measure(*c.images, c.found))}


def _planted(case_of: CaseOf, seed: int, kind: str, n: int) -> Row:
    c = case_of(seed)
    return _judged(FAILURES[kind](c, case_of, np.random.default_rng(2000 + seed), n // len(FAILURES)))


def _judged(metrics: Quality) -> Row:
    verdict, reason = judge(metrics)
    return {"verdict": verdict, "reason": reason, **asdict(metrics)}


def _shifted(c: Case, case_of: CaseOf, rng: Rng, n: int) -> Quality:
    aside = rng.normal(size=3)
    return measure(*c.images, c.found @ pose(np.eye(3), 15 * aside / np.linalg.norm(aside)))


def _half_turn(c: Case, case_of: CaseOf, rng: Rng, n: int) -> Quality:
    turn = np.diag(HALF_TURNS[1 + n % 3][1])
    return measure(*c.images, c.found @ pose(turn, centre=moved(c.mr.grid.centre_lps, inverse(c.found))))


def _mirrored(c: Case, case_of: CaseOf, rng: Rng, n: int) -> Quality:
    return register_rigid(c.ct, c.mr.with_array(np.ascontiguousarray(c.mr.array_kji[:, :, ::-1]))).metrics


def _other_patient(c: Case, case_of: CaseOf, rng: Rng, n: int) -> Quality:
    return register_rigid(c.ct, case_of(c.seed - 1).mr).metrics


def _truncated(c: Case, case_of: CaseOf, rng: Rng, n: int) -> Quality:
    """A slab of 3 cm, or zeros in place of most slices, in turn."""
    return register_rigid(c.ct, _blanked(c.mr, rng) if n % 2 else _slab(c.mr, rng)).metrics


FAILURES: dict[str, Callable[[Case, CaseOf, Rng, int], Quality]] = {
    "shifted 15 mm": _shifted,
    "half turn": _half_turn,
    "mirrored": _mirrored,
    "other patient": _other_patient,
    "truncated": _truncated,
}


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


def summary(rows: list[Row]) -> dict[str, Any]:
    """The figures that the documentation quotes."""
    told: dict[str, Any] = {}
    exact = [r for r in rows if r["part"] == "accuracy"]
    if exact:
        told["accuracy"] = {
            "patients": len(exact), "mean_mm": float(np.mean([r["mean_mm"] for r in exact])),
            "worst_patient_mm": max(r["mean_mm"] for r in exact), "worst_organ_mm": max(r["worst_mm"] for r in exact),
            "good": sum(r["verdict"] == "good" for r in exact), "median_cpu_s": float(np.median([r["cpu_s"] for r in exact])),
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


def report(args: argparse.Namespace, rows: list[Row]) -> str:
    """The JSON that is written."""
    settings = {name: getattr(args, name) for name in ("parts", "seed", "accuracy", "starts", "quality")}
    record = {"command": settings, "machine": platform.machine(), "summary": summary(rows), "rows": rows}
    return json.dumps(record, indent=1) + "\n"


def main() -> None:
    """What is missing is computed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="where rendered phantoms are kept (default: beside --out)")
    parser.add_argument("--parts", default="accuracy,capture,quality")
    parser.add_argument("--accuracy", type=int, default=4, help="patients")
    parser.add_argument("--starts", type=int, default=8, help="per patient, of whom there are four")
    parser.add_argument("--quality", type=int, default=5, help="patients")
    parser.add_argument("--seed", type=int, default=100, help="of the first patient; the method was made on 0 to 30")
    args = parser.parse_args()
    folder, first = args.cache or args.out.parent / "registration_phantoms", args.seed
    rigid, deformed = (lru_cache(4)(partial(case, deformed=d, cache=folder)) for d in (False, True))
    parts: dict[str, Callable[[], Iterator[Trial]]] = {
        "accuracy": lambda: accuracy(rigid, range(first, first + args.accuracy)),
        "capture": lambda: capture(rigid, range(first, first + 4), args.starts),
        "quality": lambda: quality(deformed, range(first + 1, first + 1 + args.quality)),
    }
    kept = args.out.with_suffix(".jsonl")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for part in args.parts.split(","):
        for key, compute in parts[part]():
            if not any(key.items() <= row.items() for row in rows):
                rows.append(key | compute())
                with kept.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
        args.out.write_text(report(args, rows))


if __name__ == "__main__":
    main()
