"""One segmentation: volumes out to the worker, progress and labels back. Polled, never waited for."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import SimpleITK as sitk

from hnseg.errors import HNSegError, OutputError
from hnseg.image.files import read_transform, read_volume, write_transform
from hnseg.image.itk import to_sitk
from hnseg.image.volume import Volume
from hnseg.jobs.events import Done, Event, Failed, Progress, Stopped
from hnseg.jobs.request import SegmentOutcome, SegmentRequest
from hnseg.reporting.record import RunRecord
from HNSegLib.desk import WorkerDesk


class Phase(Enum):
    """Where a job stands."""

    IDLE = "idle"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class JobState:
    """Phase, fraction in 0…1 and a sentence; the sentence of a failed job says what, got, remedy."""

    phase: Phase = Phase.IDLE
    fraction: float = 0.0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Images:
    """What goes in, in world LPS. ``mr_registered``: the MR already lies on the CT."""

    ct: Volume
    mr: Volume | None = None
    mr_registered: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What came back: labels on the CT's grid, the record of the run, and where the MR was found to lie.

    ``ct_to_mr`` maps CT points to MR points (LPS mm); None when no MR was registered.
    """

    labels: Volume
    record: RunRecord
    ct_to_mr: sitk.Transform | None = None


class SegmentJob:
    """At most one job at a time; call ``poll`` from a timer."""

    def __init__(self, desk: WorkerDesk) -> None:
        self._desk = desk
        self._state = JobState()
        self._id = ""
        self._folder: Path | None = None
        self._outcome: SegmentOutcome | None = None

    @property
    def state(self) -> JobState:
        """As ``poll`` left it."""
        return self._state

    def start(self, images: Images, *, model: str = "", organs: tuple[str, ...] = (), device: str = "auto") -> None:
        """Hand the images to the worker. Raises ``HNSegError`` when a file cannot be written or a name is unknown."""
        self.forget()
        folder = self._folder = Path(tempfile.mkdtemp(prefix="job-", dir=self._desk.folder))
        registers = images.mr is not None and not images.mr_registered
        request = SegmentRequest(
            ct=_written(images.ct, folder / "CT.nrrd"),
            mr=_written(images.mr, folder / "MR.nrrd") if images.mr is not None else None,
            transform=_identity(folder / "CT_to_MR.tfm") if images.mr is not None and images.mr_registered else None,
            transform_output=str(folder / _FOUND) if registers else None,
            output=str(folder / "labels.nrrd"),
            model=model or None,
            organs=organs,
            device=device,
        )
        self._id = self._desk.submit(request)
        self._state = JobState(Phase.RUNNING, 0.0, "Starting the worker")

    def poll(self) -> JobState:
        """Take in what happened since the last call."""
        if self._state.phase is Phase.RUNNING:
            for event in self._desk.events(self._id):
                self._take(event)
        return self._state

    def cancel(self) -> None:
        """Stop the job, in less than a second; nothing of it stays."""
        if self._state.phase is Phase.RUNNING:
            self._desk.cancel(self._id)
            self.poll()

    def result(self) -> Result:
        """The labels of a job that is DONE; its files are gone afterwards."""
        if self._outcome is None:
            raise HNSegError("There is no result yet; wait until the job is done.")
        outcome, labels = self._outcome, read_volume(self._outcome.output)
        found = Path(outcome.output).with_name(_FOUND)
        transform = read_transform(found) if found.exists() else None
        self.forget()
        return Result(labels, outcome.record, transform)

    def forget(self) -> None:
        """Cancel what runs, remove its files, be idle."""
        self.cancel()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder, self._outcome, self._state = None, None, JobState()

    def _take(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._state = replace(self._state, fraction=event.fraction, text=event.text)
        elif isinstance(event, Done):
            self._outcome = event.outcome
            self._state = JobState(Phase.DONE, 1.0, "Done")
        elif isinstance(event, Failed):
            self._state = JobState(Phase.FAILED, 0.0, str(event.error))
        elif isinstance(event, Stopped):
            self._state = JobState(Phase.STOPPED, 0.0, "Cancelled; nothing was changed.")


_FOUND = "found_CT_to_MR.h5"


def _written(volume: Volume, path: Path) -> str:
    """Uncompressed, as gzip would hold Slicer up for ten seconds; SimpleITK keeps the grid to double precision."""
    try:
        sitk.WriteImage(to_sitk(volume), str(path), useCompression=False)
    except RuntimeError as error:
        raise OutputError(
            f"The images cannot be handed to the worker at {path.parent}; free disk space there."
        ) from error
    return str(path)


def _identity(path: Path) -> str:
    write_transform(sitk.AffineTransform(3), path)
    return str(path)
