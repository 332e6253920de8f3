"""One curation in a worker process of its own, its cases as rows, and a finished case as nodes of a scene. No Qt."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from HNSegLib.desk import WorkerDesk, python_executable

if TYPE_CHECKING:  # the engine needs packages that a fresh Slicer lacks
    from hnseg.jobs.client import Worker
    from hnseg.jobs.curate import CurateOutcome, CurateRequest
    from hnseg.jobs.events import Event


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
    """How many cases ended how, and what is to be known of them; rich text."""
    counts = f"{len(outcome.good)} good, {len(outcome.doubtful)} doubtful, {len(outcome.failed)} failed."
    report = f'{counts} <a href="{Path(outcome.report).absolute().as_uri()}">Report</a>'
    return "<br>".join((report, *(html.escape(_in_words_of_the_panel(note)) for note in outcome.notes)))


def _in_words_of_the_panel(note: str) -> str:
    return re.sub(r"--forget-mr .+ takes", "“Let the check decide” takes", note)


class Decisions:
    """A person's words on the MRs of one data set's cases: ``accept``, ``reject`` or ``forget``."""

    def __init__(self) -> None:
        self._folders = ("", "")
        self._words: dict[str, str] = {}

    def say(self, cases: Iterable[str], word: str, *, source: str, target: str) -> None:
        """Of these cases; an earlier word on one of them is replaced."""
        self._words = {**self.of(source, target), **dict.fromkeys(cases, word)}

    def of(self, source: str, target: str) -> dict[str, str]:
        """Case → word. Where the folders are others than those decided on, all is forgotten: names recur."""
        if not all(map(_same_folder, self._folders, (source, target))):
            self.clear()
        self._folders = (source, target)
        return dict(self._words)

    def clear(self) -> None:
        """Nothing is decided."""
        self._words = {}


def _same_folder(one: str, other: str) -> bool:
    """Also where one is not chosen yet."""
    return not (one and other) or Path(one).resolve() == Path(other).resolve()


@dataclass(frozen=True, slots=True)
class CaseRow:
    """A case as the table shows it; ``notes`` are its remarks, or why it failed."""

    name: str
    verdict: str
    registration: str = ""
    organs: str = ""
    notes: tuple[str, ...] = ()


class CaseTable:
    """The rows of a data set that may be growing; a file is read again only when it has changed."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[_Stamp, Any]] = {}

    def rows(self, out: Path) -> tuple[CaseRow, ...]:
        """The cases finished so far, by name, then those that failed in the last whole run.

        Raises ``UnreadableFile``; ``ConfigError`` for a record of another version.
        """
        from hnseg.curation.record import RECORD, finished_cases

        paths = [folder / RECORD for folder in finished_cases(out)]
        finished = [row for path in paths if (row := self._once(path, _finished)) is not None]
        names = {row.name for row in finished}
        failed = self._once(out / "manifest.json", _failed) or ()
        return (*finished, *(row for row in failed if row.name not in names))

    def _once(self, path: Path, read: Callable[[Path], Any]) -> Any:
        """None for a file that is gone, or goes meanwhile: its case is being done again."""
        from hnseg.errors import UnreadableFile

        stamp = _stamp(path)
        if stamp is None:
            return None
        if path not in self._read or self._read[path][0] != stamp:
            try:
                self._read[path] = (stamp, read(path))
            except UnreadableFile:
                if _stamp(path) != stamp:
                    return None
                raise
        return self._read[path][1]


_Stamp = tuple[int, int, int]


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _finished(path: Path) -> CaseRow:
    from hnseg.curation.record import read_case

    case = read_case(path.parent)
    found = case.alignment
    words = "" if found is None else found.verdict + ("" if found.used else ", MR left out")
    notes = tuple(remark.text for remark in case.remarks)
    return CaseRow(case.name, case.status, words, str(len(case.annotated)), notes)


def _failed(path: Path) -> tuple[CaseRow, ...]:
    from hnseg.errors import UnreadableFile

    try:
        failed = json.loads(path.read_text(encoding="utf-8"))["failed"]
    except (OSError, ValueError, LookupError) as error:
        raise UnreadableFile(f"{path} cannot be read ({error}); curate again, which writes it anew.") from None
    return tuple(CaseRow(name, "failed", notes=(why,)) for name, why in failed.items())


def choices_of(out: Path) -> dict[str, Any]:
    """What a data set was begun with, by the panel's names; of a new folder, or one that cannot be read, nothing."""
    settings = {**_settings(out / "manifest.json"), **_settings(out / "curation.json")}
    as_they_are = ("partial", "registration", "mr_scale")
    found: dict[str, Any] = {name: settings[name] for name in as_they_are if name in settings}
    if "n4" in settings:
        found["bias"] = settings["n4"] is not None
    if isinstance(settings.get("shape"), dict):
        found["shape"] = settings["shape"]["shape"]
    return found


def _settings(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def open_case(
    scene: slicer.vtkMRMLScene, folder: Path
) -> tuple[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLScalarVolumeNode | None, slicer.vtkMRMLSegmentationNode]:
    """CT, MR (if the case has one) and every segment, overlaps included, with the MR half over the CT in all slices.

    A case that is in the scene is shown, not read again. One that was curated anew replaces the earlier one, unless
    the segments of that were edited. Raises ``HNSegError`` where a file cannot be read; the scene stays as it was.
    """
    from HNSegLib.views import fade

    earlier = _nodes_of(scene, folder)
    nodes = earlier if _is_current(earlier, folder) else _read(scene, folder)
    if nodes is not earlier and not ("masks" in earlier and earlier["masks"].GetModifiedSinceRead()):
        _remove(scene, earlier)
    ct, mr = nodes["ct"], nodes.get("mr")
    fade(ct, mr, _HALF) if mr is not None else show_alone(ct)
    return ct, mr, nodes["masks"]


_CASE, _ROLE, _VERSION = "HNSeg.case", "HNSeg.caseRole", "HNSeg.caseVersion"


def _nodes_of(scene: slicer.vtkMRMLScene, folder: Path) -> dict[str, Any]:
    """Role (``ct``, ``mr``, ``masks``) → node, the newest of each."""
    nodes = (scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes()))
    return {node.GetAttribute(_ROLE): node for node in nodes if node.GetAttribute(_CASE) == str(folder.resolve())}


def _is_current(nodes: dict[str, Any], folder: Path) -> bool:
    from hnseg.curation import record as names

    wanted = {"ct", "masks", *(("mr",) if (folder / names.MR).exists() else ())}
    return nodes.keys() == wanted and {node.GetAttribute(_VERSION) for node in nodes.values()} == {_version(folder)}


def _version(folder: Path) -> str:
    from hnseg.curation.record import RECORD

    return str(_stamp(folder / RECORD))


def _read(scene: slicer.vtkMRMLScene, folder: Path) -> dict[str, Any]:
    from hnseg.curation import record as names
    from hnseg.image.files import read_volume
    from HNSegLib.volumes import add_volume

    nodes: dict[str, Any] = {}
    try:
        nodes["ct"] = add_volume(scene, read_volume(folder / names.CT), f"{folder.name} CT")
        if (folder / names.MR).exists():
            nodes["mr"] = add_volume(scene, read_volume(folder / names.MR), f"{folder.name} MR")
        nodes["masks"] = _segmentation(scene, folder / names.SEGMENTATION, f"{folder.name} masks", nodes["ct"])
    except BaseException:
        _remove(scene, nodes)
        raise
    for role, node in nodes.items():
        for name, value in ((_CASE, str(folder.resolve())), (_ROLE, role), (_VERSION, _version(folder))):
            node.SetAttribute(name, value)
    return nodes


def _remove(scene: slicer.vtkMRMLScene, nodes: dict[str, Any]) -> None:
    """With what stores and displays them."""
    for node in nodes.values():
        displays = [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
        for one in (*displays, node.GetStorageNode(), node):
            if one is not None:
                scene.RemoveNode(one)


_HALF = 0.5


def show_alone(ct: slicer.vtkMRMLScalarVolumeNode) -> None:
    """The CT in every slice view, nothing over it."""
    scene = ct.GetScene()
    for n in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        layers = scene.GetNthNodeByClass(n, "vtkMRMLSliceCompositeNode")
        layers.SetBackgroundVolumeID(ct.GetID())
        layers.SetForegroundVolumeID(None)


def _segmentation(
    scene: slicer.vtkMRMLScene, path: Path, name: str, ct: slicer.vtkMRMLScalarVolumeNode
) -> slicer.vtkMRMLSegmentationNode:
    from hnseg.errors import UnreadableFile

    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    storage = node.CreateDefaultStorageNode()
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    node.SetAndObserveStorageNodeID(storage.GetID())
    if not storage.ReadData(node):
        _remove(scene, {"masks": node})
        raise UnreadableFile(f"Slicer could not read {path}; curate the case again.")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    return node
