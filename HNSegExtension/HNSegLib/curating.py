"""One curation in a worker process of its own, its cases as rows, and a finished case as nodes of a scene. No Qt."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import slicer

from HNSegLib.desk import WorkerDesk, python_executable

if TYPE_CHECKING:  # the engine needs packages that a fresh Slicer lacks
    from hnseg.jobs.client import Worker
    from hnseg.jobs.curate import CurateOutcome, CurateRequest
    from hnseg.jobs.events import Event

REQUIREMENTS = Path(__file__).with_name("curation_requirements.txt")


@dataclass(frozen=True, slots=True)
class CurateState:
    """Fraction in 0…1 and a sentence; that of a failed job says what, got, remedy."""

    busy: bool = False
    fraction: float = 0.0
    text: str = ""
    failed: bool = False


class CurateJob:
    """At most one curation at a time; call ``poll`` from a timer. What was finished before a cancel stays."""

    def __init__(self, desk: WorkerDesk) -> None:
        self._desk = desk
        self._id = ""
        self.state = CurateState()
        self.outcome: CurateOutcome | None = None

    def start(self, request: CurateRequest) -> None:
        """Hand the request to the worker."""
        self.outcome = None
        self._id = self._desk.submit(request)
        self.state = CurateState(True, 0.0, "Starting the worker")

    def poll(self) -> CurateState:
        """Take in what happened since the last call."""
        if self.state.busy:
            for event in self._desk.events(self._id):
                self._take(event)
        return self.state

    def cancel(self) -> None:
        """Stop within a second."""
        if self.state.busy:
            self._desk.cancel(self._id)
            self.poll()

    def _take(self, event: Event) -> None:
        from hnseg.jobs.events import Done, Failed, Progress

        if isinstance(event, Progress):
            self.state = replace(self.state, fraction=event.fraction, text=event.text)
        elif isinstance(event, Done):
            self.outcome = event.outcome
            self.state = CurateState(False, 1.0, summary(event.outcome))
        elif isinstance(event, Failed):
            self.state = CurateState(False, 0.0, str(event.error), failed=True)
        else:
            self.state = CurateState(False, 0.0, "Cancelled; finished cases stay, and Curate goes on from there.")


def curation_desk() -> WorkerDesk:
    """A desk whose worker curates, so that a long curation does not hold segmentations up."""
    return WorkerDesk(_new_worker)


def _new_worker() -> Worker:
    from hnseg.jobs.client import Worker

    return Worker(command=(python_executable(), "-m", "hnseg.jobs.curate_worker"))


def summary(outcome: CurateOutcome) -> str:
    """How many cases ended how."""
    counts = f"{len(outcome.good)} good, {len(outcome.doubtful)} doubtful, {len(outcome.failed)} failed."
    return f'{counts} <a href="{Path(outcome.report).absolute().as_uri()}">Report</a>'


@dataclass(frozen=True, slots=True)
class CaseRow:
    """A case as the table shows it; ``notes`` are its remarks, or why it failed."""

    name: str
    verdict: str
    registration: str = ""
    organs: str = ""
    notes: tuple[str, ...] = ()


def case_rows(out: Path) -> tuple[CaseRow, ...]:
    """The cases finished so far, by name, then those that failed in the last whole run."""
    from hnseg.curation.record import RECORD, read_case

    folders = sorted(path.parent for path in (out / "cases").glob(f"[!.]*/{RECORD}"))
    rows = []
    for case in map(read_case, folders):
        found = case.alignment
        words = "" if found is None else found.verdict + ("" if found.used else ", MR left out")
        notes = tuple(remark.text for remark in case.remarks)
        rows.append(CaseRow(case.name, case.status, words, str(len(case.annotated)), notes))
    return (*rows, *_failed(out, {row.name for row in rows}))


def _failed(out: Path, finished: set[str]) -> tuple[CaseRow, ...]:
    manifest = out / "manifest.json"
    failed = json.loads(manifest.read_text(encoding="utf-8"))["failed"] if manifest.exists() else {}
    return tuple(CaseRow(name, "failed", notes=(why,)) for name, why in failed.items() if name not in finished)


def open_case(
    scene: slicer.vtkMRMLScene, folder: Path
) -> tuple[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLScalarVolumeNode | None, slicer.vtkMRMLSegmentationNode]:
    """CT, MR (if the case has one) and every segment, overlaps included, with the MR half over the CT in all slices.

    Raises ``HNSegError`` where a file cannot be read.
    """
    from hnseg.curation import record as names
    from hnseg.image.files import read_volume
    from HNSegLib.views import fade
    from HNSegLib.volumes import add_volume

    ct = add_volume(scene, read_volume(folder / names.CT), f"{folder.name} CT")
    mr = None
    if (folder / names.MR).exists():
        mr = add_volume(scene, read_volume(folder / names.MR), f"{folder.name} MR")
    segmentation = _segmentation(scene, folder / names.SEGMENTATION, f"{folder.name} masks")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    fade(ct, mr, _HALF) if mr is not None else show_alone(ct)
    return ct, mr, segmentation


_HALF = 0.5


def show_alone(ct: slicer.vtkMRMLScalarVolumeNode) -> None:
    """The CT in every slice view, nothing over it."""
    scene = ct.GetScene()
    for n in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        layers = scene.GetNthNodeByClass(n, "vtkMRMLSliceCompositeNode")
        layers.SetBackgroundVolumeID(ct.GetID())
        layers.SetForegroundVolumeID(None)


def _segmentation(scene: slicer.vtkMRMLScene, path: Path, name: str) -> slicer.vtkMRMLSegmentationNode:
    from hnseg.errors import UnreadableFile

    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    storage = node.CreateDefaultStorageNode()
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    node.SetAndObserveStorageNodeID(storage.GetID())
    if not storage.ReadData(node):
        scene.RemoveNode(node)
        raise UnreadableFile(f"Slicer could not read {path}; curate the case again.")
    node.CreateDefaultDisplayNodes()
    return node
