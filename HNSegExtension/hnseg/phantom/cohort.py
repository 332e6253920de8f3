"""A cohort on disk, laid out as HaN-Seg's ``set_1``, with the true CT→MR transform beside every case."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from hnseg.errors import ConfigError, OutputError
from hnseg.image.files import atomic_write, write_transform, write_volume
from hnseg.image.volume import Volume
from hnseg.organs import ORGANS
from hnseg.phantom.options import PhantomOptions
from hnseg.phantom.patient import Patient, draw_patient
from hnseg.phantom.rendering import SIZES, PhantomCase, Size, render

OnProgress = Callable[[float, str], None]

ODD_CASE = 19
"""The case whose chiasm is not contoured, as in HaN-Seg; its neighbours of the visual pathway are marked 0.5 there."""

_HALF_GOOD = ("Brainstem", "OpticNrv_L", "OpticNrv_R", "Pituitary")
_RECORD = "cohort.json"


def write_cohort(
    folder: str | Path,
    *,
    cases: int = 1,
    seed: int = 0,
    size: Size = "medium",
    options: PhantomOptions | None = None,
    threads: int = 2,
    on_progress: OnProgress = lambda fraction, text: None,
) -> tuple[Path, ...]:
    """Write ``case_01`` … into the folder with ``OAR_data.csv`` and ``patient_data.csv``; returns the case folders.

    Case n depends on ``seed`` and n alone. Each case appears as a whole or not at all; an interrupted cohort goes
    on where it stopped. Raises ``OutputError`` if the folder holds anything but the beginning of this very cohort,
    ``ConfigError`` for a wrong number of cases or size.
    """
    folder, options = Path(folder), options or PhantomOptions()
    if cases < 1 or size not in SIZES:
        raise ConfigError(f"A cohort needs at least 1 case and a size of {', '.join(SIZES)}, got {cases} and {size!r}.")
    _claim_folder(folder, {"seed": seed, "size": size, "options": asdict(options)})
    for n in range(1, cases + 1):
        target = folder / case_name(n)
        share = (n - 1) / cases
        if not target.is_dir():
            on_progress(share, f"Rendering {target.name}, {n} of {cases}")
            case = render(patient_of_case(seed, n, options), size=size, threads=threads)
            on_progress(share + 0.5 / cases, f"Writing {target.name}, {n} of {cases}")
            _write_case(case, target, threads)
    _write_tables(folder, seed, cases, options)
    on_progress(1.0, f"Wrote {cases} case{'s' * (cases > 1)}")
    return tuple(folder / case_name(n) for n in range(1, cases + 1))


def case_name(number: int) -> str:
    """HaN-Seg's name of a case: ``case_01`` …"""
    return f"case_{number:02d}"


def patient_of_case(seed: int, number: int, options: PhantomOptions) -> Patient:
    """The patient of a cohort's case."""
    if number == ODD_CASE:
        options = replace(options, missing=(*options.missing, "OpticChiasm"))
    return draw_patient(np.random.default_rng([seed, number]), options)


def _claim_folder(folder: Path, record: dict[str, object]) -> None:
    """Make the folder, or find in it the beginning of the same cohort."""
    record = json.loads(json.dumps(record))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}; give a folder that you may write to.") from None
    if not found:
        with atomic_write(folder / _RECORD) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n")
        return
    try:
        same = json.loads((folder / _RECORD).read_text()) == record
    except (OSError, ValueError):
        same = False
    if not same:
        raise OutputError(f"{folder} is not empty and does not hold this cohort; give an empty or new folder.")


def _write_case(case: PhantomCase, target: Path, threads: int) -> None:
    """Into a hidden folder first, which then takes the case's name."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _write_files(case, partial, target.name, threads)
        partial.rename(target)
    except OSError as error:
        raise OutputError(f"Cannot write {target}: {error.strerror}; check permissions and free space.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_files(case: PhantomCase, folder: Path, name: str, threads: int) -> None:
    masks = case.masks
    jobs: list[tuple[Callable[[], Volume], str]] = [(lambda: case.ct, "IMG_CT.nrrd")]
    mr = case.mr
    if mr is not None:
        jobs.append((lambda: mr, "IMG_MR_T1.nrrd"))
        write_transform(case.ct_to_mr, folder / f"{name}_TRUTH_CT_TO_MR.tfm")
    jobs.extend((lambda organ=organ: masks[organ], f"OAR_{organ}.seg.nrrd") for organ in masks)  # type: ignore[misc]

    def write(job: tuple[Callable[[], Volume], str]) -> None:
        write_volume(job[0](), folder / f"{name}_{job[1]}")

    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for _ in pool.map(write, jobs):
            pass


def _write_tables(folder: Path, seed: int, cases: int, options: PhantomOptions) -> None:
    header = ";".join(["case", *(organ.name for organ in ORGANS)])
    rows = [quality_row(n, patient_of_case(seed, n, options)) for n in range(1, cases + 1)]
    with atomic_write(folder / "OAR_data.csv") as temporary:
        temporary.write_text("\n".join([header, *rows]) + "\n")
    people = [_person_row(seed, n) for n in range(1, cases + 1)]
    with atomic_write(folder / "patient_data.csv") as temporary:
        temporary.write_text("\n".join(["case;sex;age", *people]) + "\n")


def quality_row(number: int, patient: Patient) -> str:
    """1 good, 0.5 doubtful, 0 missing, as in HaN-Seg."""
    marks = [
        "0" if o.name in patient.options.missing else "0.5" if number == ODD_CASE and o.name in _HALF_GOOD else "1"
        for o in ORGANS
    ]
    return ";".join([case_name(number), *marks])


def _person_row(seed: int, number: int) -> str:
    rng = np.random.default_rng([seed, number, 1])
    return f"{case_name(number)};{'MF'[int(rng.random() < 0.25)]};{int(np.clip(rng.normal(62, 10), 25, 89))}"
