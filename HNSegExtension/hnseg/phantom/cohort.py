"""A cohort on disk, laid out as HaN-Seg's ``set_1``, with the true CT→MR transform beside every case."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
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
        if not (folder / case_name(n)).is_dir():
            say = partial(_say_of_case, on_progress, n, cases)
            _make_case(patient_of_case(seed, n, options), folder / case_name(n), size, threads, say)
    _write_tables(folder, seed, max(cases, _cases_in(folder)))
    on_progress(1.0, f"Wrote {cases} case{'s' * (cases > 1)}")
    return tuple(folder / case_name(n) for n in range(1, cases + 1))


def _cases_in(folder: Path) -> int:
    """The highest number of a case in the folder, 0 where there are none."""
    return max((int(path.name[5:]) for path in folder.glob("case_*") if path.name[5:].isdecimal()), default=0)


def case_name(number: int) -> str:
    """HaN-Seg's name of a case: ``case_01`` …"""
    return f"case_{number:02d}"


def patient_of_case(seed: int, number: int, options: PhantomOptions) -> Patient:
    """The patient of a cohort's case."""
    if number == ODD_CASE:
        options = replace(options, missing=(*options.missing, "OpticChiasm"))
    return draw_patient(np.random.default_rng([seed, number]), options)


def _say_of_case(on_progress: OnProgress, number: int, cases: int, fraction: float, text: str) -> None:
    on_progress((number - 1 + fraction) / cases, f"{text} of {case_name(number)} ({number} of {cases})")


def _make_case(patient: Patient, target: Path, size: Size, threads: int, say: OnProgress) -> None:
    def while_painting(fraction: float, text: str) -> None:
        say(0.7 * fraction, text)

    case = render(patient, size=size, threads=threads, on_progress=while_painting)
    say(0.7, "Writing the files")
    _write_case(case, target, threads)


def _claim_folder(folder: Path, record: dict[str, object]) -> None:
    """Make the folder, or find in it the beginning of the same cohort."""
    record = json.loads(json.dumps(record))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}; give a folder that you may write to.") from None
    if not found:
        try:
            with atomic_write(folder / _RECORD) as temporary:
                temporary.write_text(json.dumps(record, indent=1) + "\n")
        except OutputError:
            folder.rmdir()
            raise
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


def _write_tables(folder: Path, seed: int, cases: int) -> None:
    header = ";".join(["case", *(organ.name for organ in ORGANS)])
    rows = [quality_row(n, _organs_in(folder / case_name(n))) for n in range(1, cases + 1)]
    with atomic_write(folder / "OAR_data.csv") as temporary:
        temporary.write_text("\n".join([header, *rows]) + "\n")
    people = [_person_row(seed, n) for n in range(1, cases + 1)]
    with atomic_write(folder / "patient_data.csv") as temporary:
        temporary.write_text("\n".join(["case;sex;age", *people]) + "\n")


def quality_row(number: int, present: Container[str]) -> str:
    """A row of ``OAR_data.csv``: 1 good, 0.5 doubtful, 0 missing, as in HaN-Seg."""
    marks = [
        "0" if organ.name not in present else "0.5" if number == ODD_CASE and organ.name in _HALF_GOOD else "1"
        for organ in ORGANS
    ]
    return ";".join([case_name(number), *marks])


def _organs_in(folder: Path) -> set[str]:
    """The organs that the case has masks of."""
    return {organ.name for organ in ORGANS if (folder / f"{folder.name}_OAR_{organ.name}.seg.nrrd").exists()}


def _person_row(seed: int, number: int) -> str:
    rng = np.random.default_rng([seed, number, 1])
    return f"{case_name(number)};{'MF'[int(rng.random() < 0.25)]};{int(np.clip(rng.normal(62, 10), 25, 89))}"
