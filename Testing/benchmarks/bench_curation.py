"""Curation: one case against the seed project's way with plain elastix, and two Dask workers against one. JSON.

    python Testing/benchmarks/bench_curation.py --out build/bench/curation.json
    python Testing/benchmarks/bench_curation.py --out … --size small --cases 4 --cores 2

``case``: a phantom of that size (full: CT 1024×1024×202, MR 512×512×≤83, 30 masks) from its files to a curated case's
files, each way in a process of its own, one after the other on the same cores. ``ours`` does everything that ``hnseg
curate`` does with a case. ``seed`` does what the seed project did: elastix's default rigid map at full resolution, each
mask loaded whole, multiplied by its label, copied and added up, grey values stretched to the CT's range, everything
written compressed. ``cpu_s`` adds up all threads; ``peak_gb`` is the process's most memory. ``workers``: a cohort of
small phantoms with one and with two workers, starting and stopping them included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ENGINE = Path(__file__).parents[2] / "HNSegExtension"
THREADS = ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


def cohort(folder: Path, size: str, cases: int) -> Path:
    """Drawn once, then kept."""
    from hnseg.phantom.cohort import write_cohort

    write_cohort(folder, cases=cases, seed=5, size=size)  # type: ignore[arg-type]
    return folder


def ours(folder: Path, out: Path) -> dict[str, Any]:
    """One case by ``hnseg curate``'s own function."""
    from hnseg.curation.layouts import find_cases
    from hnseg.curation.record import read_case
    from hnseg.curation.settings import CurationSettings
    from hnseg.jobs.curate import curate_into

    source = find_cases(folder).cases[0]
    stages: list[tuple[float, str]] = []
    failure = curate_into(
        source, CurationSettings(), folder, out, None, lambda _, text: stages.append((time.perf_counter(), text))
    )
    ended = time.perf_counter()
    case = read_case(out / "cases" / source.name)
    spent: dict[str, float] = {}
    for (start, text), (stop, _) in zip(stages, [*stages[1:], (ended, "")], strict=True):
        spent[_stage(text)] = spent.get(_stage(text), 0.0) + stop - start
    verdict = case.alignment.verdict if case.alignment else None
    return {"failure": failure, "registration": verdict, "annotated": len(case.annotated), "stages_s": spent}


def _stage(text: str) -> str:
    known = ("Reading", "Stacking", "Bringing the case", "Bringing the MR", "Drawing", "Writing")
    return next((word for word in known if text.startswith(word)), "Registering")


def seed(folder: Path, out: Path) -> dict[str, Any]:
    """The same case by loading and copying mask after mask, with elastix's defaults. All by ``itk``: with SimpleITK in
    one process, itk-elastix crashes.
    """
    import itk

    from hnseg.organs import ORGANS

    case = next(iter(sorted(folder.glob("case_*"))))
    out.mkdir(parents=True, exist_ok=True)
    ct_path, mr_path = case / f"{case.name}_IMG_CT.nrrd", case / f"{case.name}_IMG_MR_T1.nrrd"
    begun = time.perf_counter()
    parameters = itk.ParameterObject.New()
    rigid = parameters.GetDefaultParameterMap("rigid")
    rigid["AutomaticTransformInitialization"] = ["true"]  # centre on centre, as the seed project did
    rigid["RequiredRatioOfValidSamples"] = ["0.05"]  # the MR covers half of the CT
    parameters.AddParameterMap(rigid)
    moved, _ = itk.elastix_registration_method(
        fixed := itk.imread(str(ct_path), itk.F),
        itk.imread(str(mr_path), itk.F),
        parameter_object=parameters,
        log_to_console=False,
    )
    registered = time.perf_counter()
    ct, mr = itk.array_from_image(fixed), itk.array_from_image(moved)
    mr = (mr - mr.min()) / (mr.max() - mr.min()) * (ct.max() - ct.min()) + ct.min()
    merged = np.zeros(ct.shape, np.float32)
    for organ in ORGANS:
        path = case / f"{case.name}_OAR_{organ.name}.seg.nrrd"
        if path.exists():
            mask = itk.array_from_image(itk.imread(str(path)))
            merged = merged + mask * np.float32(organ.label)
    stacked = time.perf_counter()
    for name, array in (("ct", ct), ("mr", mr), ("labels", merged)):
        itk.imwrite(itk.image_from_array(array), str(out / f"{name}.nrrd"), compression=True)
    stages = {"Registering": registered - begun, "Stacking": stacked - registered}
    return {"stages_s": {**stages, "Writing": time.perf_counter() - stacked}}


WAYS = {"ours": ours, "seed": seed}


def child(way: str, folder: Path, out: Path) -> None:
    """In a process of its own: result and peak memory as JSON on standard output."""
    result = WAYS[way](folder, out)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({**result, "cpu_s": used.ru_utime + used.ru_stime, "peak_gb": used.ru_maxrss / 2**20}))


def timed(way: str, folder: Path, out: Path, cores: int, python: str) -> dict[str, Any]:
    """Wall time of a way, start of its process included."""
    shutil.rmtree(out, ignore_errors=True)
    environment = {**os.environ, **dict.fromkeys(THREADS, str(cores)), "PYTHONPATH": str(ENGINE)}
    begun = time.perf_counter()
    command = [python, __file__, "--out", str(out), "--child", way, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    seconds = time.perf_counter() - begun
    shutil.rmtree(out, ignore_errors=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        return {"way": way, "not run": said[-1][:200]}
    return {"way": way, "seconds": seconds, **json.loads(done.stdout.strip().splitlines()[-1])}


def with_workers(folder: Path, out: Path, workers: int) -> float:
    """Seconds that ``hnseg curate`` takes for the cohort."""
    shutil.rmtree(out, ignore_errors=True)
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    command = [sys.executable, "-m", "hnseg.cli.main", "curate", str(folder), str(out), "--workers", str(workers)]
    begun = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    shutil.rmtree(out, ignore_errors=True)
    return seconds


def main() -> None:
    """Figures are written as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=("small", "medium", "full"), default="full", help="of the single case")
    parser.add_argument("--cases", type=int, default=8, help="small phantoms for the workers; 0 leaves that part out")
    parser.add_argument("--cores", type=int, default=2, help="threads of the single case")
    parser.add_argument("--elastix-python", default=sys.executable, help="a Python with itk-elastix and numpy")
    parser.add_argument("--cache", type=Path, help="where phantoms are kept (default: beside --out)")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], Path(args.child[1]), args.out)
        return
    cache = args.cache or args.out.parent / "curation_phantoms"
    work = args.out.parent / "curation_work"
    figures: dict[str, Any] = {"machine": platform.machine(), "cores": args.cores, "size": args.size, "case": []}

    def keep() -> None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(figures, indent=1) + "\n")

    folder = cohort(cache / args.size, args.size, 1)
    for way in WAYS:
        python = args.elastix_python if way == "seed" else sys.executable
        figures["case"].append(timed(way, folder, work, args.cores, python))
        keep()
    if args.cases:
        folder = cohort(cache / "cohort", "small", args.cases)
        one, two = (with_workers(folder, work, workers) for workers in (1, 2))
        figures["workers"] = {"cases": args.cases, "one_s": one, "two_s": two, "speed_up": one / two}
        keep()


if __name__ == "__main__":
    main()
