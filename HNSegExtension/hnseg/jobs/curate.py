"""A whole data set: cases found, curated one by one or in parallel, and finished into something to train on.

Every case appears whole, by one rename, or not at all; so the same command goes on where an earlier one was stopped,
whatever stopped it, and ends with the same bytes.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from hnseg.curation.alignment import Overruled
from hnseg.curation.case import curate_case, write_case
from hnseg.curation.cohort import MANIFEST, finish_cohort
from hnseg.curation.layouts import Found, find_cases
from hnseg.curation.record import CASES, RECORD, finished_cases, read_case
from hnseg.curation.settings import EXPORT_SETTINGS, CurationSettings
from hnseg.curation.sources import CaseSource, has_sources
from hnseg.errors import Cancelled, ConfigError, HNSegError, InputError, OutputError, UnreadableFile
from hnseg.jobs.claim import Decisions, claimed
from hnseg.jobs.fan_out import FanOut
from hnseg.jobs.json_request import JsonRequest
from hnseg.plain import from_plain, nearest, to_plain
from hnseg.version import __version__

OnProgress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class CurateOutcome:
    """Where the results are, and how many cases ended how."""

    manifest: str
    report: str
    good: tuple[str, ...]
    doubtful: tuple[str, ...]
    failed: dict[str, str]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain: dict[str, Any] = to_plain(self)
        return plain


@dataclass(frozen=True, slots=True)
class CurateRequest(JsonRequest):
    """Curate every case below ``input`` into ``output``. Paths are text, so that the request is plain JSON.

    ``accept_mr`` and ``reject_mr`` are a person's word against the registration check, by case; such a case is done
    again. It is kept in the output and holds in later runs too, until another word or ``forget_mr``, which leaves the
    case to the check again. Raises ``ConfigError`` when made.
    """

    input: str
    output: str
    settings: CurationSettings = field(default_factory=CurationSettings)
    workers: int = 1
    scheduler: str | None = None
    accept_mr: tuple[str, ...] = ()
    reject_mr: tuple[str, ...] = ()
    forget_mr: tuple[str, ...] = ()

    job: ClassVar[str] = "curate"

    def __post_init__(self) -> None:
        FanOut(self.workers, self.scheduler)
        source, target = Path(self.input).resolve(), Path(self.output).resolve()
        if source == target or source in target.parents or target in source.parents:
            raise ConfigError(
                f"Input and output lie in one another ({source}, {target}); give a folder beside the input."
            )
        said = Counter(case for cases in (self.accept_mr, self.reject_mr, self.forget_mr) for case in set(cases))
        if several := sorted(case for case, words in said.items() if words > 1):
            raise ConfigError(f"Of accepting, rejecting and forgetting the MR of {', '.join(several)}, choose one.")

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The folder that will be written."""
        return (Path(self.output),)

    @property
    def cases_named(self) -> tuple[str, ...]:
        """Those of which this request says something."""
        return (*self.accept_mr, *self.reject_mr, *self.forget_mr)

    def decide(self, earlier: Decisions) -> Decisions:
        """What persons said of the cases' MRs: this request's word, else the earlier one."""
        kept = {case: word for case, word in earlier.items() if case not in self.cases_named}
        said: Decisions = {
            **dict.fromkeys(self.accept_mr, "accepted"),
            **dict.fromkeys(self.reject_mr, "rejected"),
        }
        return {**kept, **said}

    def outcome_from_json(self, data: Any) -> CurateOutcome:
        """The worker's answer to this request."""
        return from_plain(CurateOutcome, data, where="The outcome")


def run_curate(request: CurateRequest, on_progress: OnProgress = lambda fraction, text: None) -> CurateOutcome:
    """Curate what is not yet there, then finish the cohort. A bad case is named with its reason and left out.

    Raises ``InputError`` where no case can be used, ``OutputError`` where the output cannot be written, holds another
    curation, or another command works on it; finished cases stay. Whatever ``on_progress`` raises passes through.
    """
    on_progress(0.0, "Looking for cases")
    found, out = find_cases(request.input), Path(request.output)
    _refuse_unknown_names(request, found)
    settings = to_plain(request.settings)
    exports = {name: settings.pop(name) for name in EXPORT_SETTINGS}
    identity = {"version": __version__, "layout": found.layout, "settings": settings}
    with claimed(out, identity, request.decide, exports=exports) as decisions:
        return _curate_all(request, found, out, decisions, on_progress)


def _curate_all(
    request: CurateRequest, found: Found, out: Path, decisions: Decisions, on_progress: OnProgress
) -> CurateOutcome:
    failed = _curate_missing(request, found, out, decisions, lambda fraction, text: on_progress(0.9 * fraction, text))
    records = [read_case(out / CASES / c.name) for c in found.cases if c.name not in failed]
    on_progress(0.9, "Splitting and exporting")
    cohort = finish_cohort(
        found.layout,
        records,
        failed,
        settings=request.settings,
        out=out,
        notes=found.notes,
        on_progress=lambda fraction, text: on_progress(0.9 + 0.08 * fraction, text),
    )
    on_progress(0.98, "Writing the report")
    from hnseg.reporting.curation_page import write_cohort_report

    report = write_cohort_report(out, cohort)
    if not records:
        first = next(iter(failed))
        raise InputError(f"None of the {len(failed)} cases could be curated; {first}: {failed[first]}")
    on_progress(1.0, "Done")
    good, doubtful = (tuple(r.name for r in records if r.status == status) for status in ("good", "doubtful"))
    return CurateOutcome(
        str(out / MANIFEST),
        str(report),
        good,
        doubtful,
        failed,
        (*found.notes, *_still_decided(request, found, decisions), *_left_over(found, out)),
    )


def _still_decided(request: CurateRequest, found: Found, decisions: Decisions) -> tuple[str, ...]:
    """Told, not written down: the files depend on what was decided, not on when."""
    return tuple(
        f"{case.name}: a person {decisions[case.name]} its MR in an earlier run, and that holds; "
        f"--forget-mr {case.name} takes it back."
        for case in found.cases
        if case.name in decisions and case.name not in request.cases_named
    )


def _left_over(found: Found, out: Path) -> tuple[str, ...]:
    known = {case.name for case in found.cases}
    more = [folder.name for folder in finished_cases(out) if folder.name not in known]
    if not more:
        return ()
    return (f"{out / CASES} still holds {', '.join(more)}, not in the input now: left out of the data set.",)


def _curate_missing(
    request: CurateRequest, found: Found, out: Path, decisions: Decisions, on_progress: OnProgress
) -> dict[str, str]:
    """Case → reason of those that failed."""
    root, tasks = Path(request.input).absolute(), {}
    for n, case in enumerate(found.cases):
        folder, word = out / CASES / case.name, decisions.get(case.name)
        if (folder / RECORD).exists():
            on_progress(0.0, f"Looking at what is done: {case.name} ({n + 1} of {len(found.cases)})")
        if not _is_done(case, root, folder, word):
            tasks[case.name] = partial(curate_into, case, request.settings, root, out.absolute(), word)
    failed = {}
    for name, outcome in FanOut(request.workers, request.scheduler).run(tasks, on_progress):
        if isinstance(outcome, HNSegError):
            failed[name] = str(outcome)
        elif outcome is not None:
            failed[name] = outcome
    return {case.name: failed[case.name] for case in found.cases if case.name in failed}


def curate_into(
    source: CaseSource,
    settings: CurationSettings,
    root: Path,
    out: Path,
    overruled: Overruled | None,
    on_progress: OnProgress,
) -> str | None:
    """Curate one case into ``out/cases``; returns why it failed, None if it did not.

    Raises ``OutputError``, as the next case would fail too, and lets ``Cancelled`` through.
    """
    target = out / CASES / source.name
    hidden = target.with_name(f".{source.name}.partial")
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir(parents=True)
        _curate(source, settings, root, hidden, overruled, on_progress)
        _put(hidden, target)
    except (Cancelled, OutputError):
        raise
    except HNSegError as error:
        return str(error)
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written ({error.strerror}); make room and repeat the command."
        ) from error
    except MemoryError:
        return "The machine ran out of memory; use fewer workers or a smaller shape."
    except Exception as error:  # noqa: BLE001  one strange file must not stop a thousand other cases
        return f"A defect of HNSeg ({type(error).__name__}: {error}); please report it."
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return None


def _curate(
    source: CaseSource,
    settings: CurationSettings,
    root: Path,
    folder: Path,
    overruled: Overruled | None,
    on_progress: OnProgress,
) -> None:
    from hnseg.reporting.curation_pictures import case_pictures

    def tell(fraction: float, text: str) -> None:
        on_progress(0.8 * fraction, text)

    try:
        case = curate_case(source, settings, root=root, overruled=overruled, on_progress=tell)
    except OSError as error:  # nothing is written yet
        raise UnreadableFile(
            f"A file of {source.name} cannot be read ({error}); check the disk or share that it lies on."
        ) from error
    on_progress(0.8, "Drawing previews")
    for name, picture in case_pictures(case).items():
        (folder / name).write_bytes(picture)
    on_progress(0.85, "Writing the files")
    write_case(case, folder)


def _put(hidden: Path, target: Path) -> None:
    """One rename; an earlier result gives way first."""
    if target.exists():
        (target / RECORD).unlink(missing_ok=True)  # first: a kill amid the rest must leave no case that seems done
        shutil.rmtree(target)
    hidden.rename(target)


def _is_done(case: CaseSource, root: Path, folder: Path, overruled: Overruled | None) -> bool:
    """Whether its result is there, of these very files, with this word on its MR."""
    if not (folder / RECORD).exists():
        return False
    record = read_case(folder)
    alignment = record.alignment
    same_word = (alignment.overruled if alignment else None) == (overruled if alignment else None)
    return same_word and has_sources(case, root, record.sources)


def _refuse_unknown_names(request: CurateRequest, found: Found) -> None:
    names = [case.name for case in found.cases]
    for name in request.cases_named:
        if name not in names:
            raise ConfigError(f"There is no case {name!r} below {request.input}; {nearest(name, names)}")


def worker_job(data: Any, on_progress: OnProgress) -> Any:
    """What the worker process offers under ``CurateRequest.job``."""
    return run_curate(CurateRequest.from_json(data), on_progress).to_json()
