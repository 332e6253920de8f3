"""The Segment Editor effect without its widgets: from Apply to thirty segments and a sentence about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import slicer

from hnseg.errors import HNSegError, InputError
from hnseg.organs import ORGANS, find_organs
from hnseg.reporting.record import OrganRecord, RunRecord
from hnseg.terminology import TAUGHT_TAG, taught_words
from HNSegLib.choices import Choices
from HNSegLib.segmenting import Images, Phase, Result, SegmentJob
from HNSegLib.segments import CONFIDENCE_TAG, EXPECTED_TAG, MODEL_TAG, NOTES_TAG, ImportReport, import_labels
from HNSegLib.transforms import keep_registration
from HNSegLib.volumes import is_bent, volume_of

WRITING_MS = 100
"""How often a timer should call ``tick``."""


@dataclass(frozen=True, slots=True)
class View:
    """What the widgets show: whether a job runs, how far it is, a sentence, and the report's lines."""

    busy: bool = False
    fraction: float = 0.0
    text: str = ""
    details: tuple[str, ...] = ()
    failed: bool = False


@dataclass(frozen=True, slots=True)
class _Errand:
    """Where the result goes, remembered when the job starts: the user may look at something else by then."""

    segmentation: Any
    mr: Any
    choices: Choices
    remarks: tuple[str, ...]


class EffectLogic:
    """``show`` is told of every change; ``save_state_for_undo`` is called once, right before the scene is touched."""

    def __init__(
        self, job: SegmentJob, *, show: Callable[[View], None], save_state_for_undo: Callable[[], None]
    ) -> None:
        self._job = job
        self._show = show
        self._save_state_for_undo = save_state_for_undo
        self._errand: _Errand | None = None

    @property
    def busy(self) -> bool:
        """Whether a job runs or its result waits to be written."""
        return self._errand is not None

    def apply(
        self,
        ct: slicer.vtkMRMLScalarVolumeNode | None,
        mr: slicer.vtkMRMLScalarVolumeNode | None,
        segmentation: slicer.vtkMRMLSegmentationNode | None,
        choices: Choices,
    ) -> None:
        """Start the worker on these images. What cannot be used is said through ``show``; nothing is raised."""
        if self.busy:
            self._show(View(True, self._job.state.fraction, "A segmentation is already running; wait or cancel it."))
            return
        try:
            self._start(ct, mr, segmentation, choices)
        except HNSegError as error:
            self._end(View(text=str(error), failed=True))

    def tick(self, segmentation: slicer.vtkMRMLSegmentationNode | None) -> None:
        """Take in progress; write the result when it is there. ``segmentation``: the one that the editor edits now.

        None, or another one, makes the result wait: undo belongs to the segmentation that the editor shows.
        """
        if self._errand is None:
            return
        if self._errand.segmentation.GetScene() is None:
            self._end(View(text="The segmentation was removed from the scene; its result was dropped."))
            return
        state = self._job.poll()
        if state.phase is Phase.RUNNING:
            self._show(View(True, state.fraction, state.text))
        elif state.phase is Phase.DONE:
            self._finish(self._errand, segmentation)
        else:
            self._end(View(text=state.text, failed=state.phase is Phase.FAILED))

    def cancel(self) -> None:
        """Stop the job; segments stay as they are."""
        if self._errand is not None:
            self._end(View(text="Cancelled; nothing was changed."))

    def _start(self, ct: Any, mr: Any, segmentation: Any, choices: Choices) -> None:
        if ct is None:
            raise InputError("No CT is chosen; choose it as the source volume of the Segment Editor.")
        if segmentation is None:
            raise InputError("No segmentation is chosen; choose or create one in the Segment Editor.")
        if mr is ct:
            raise InputError("The MR is the same volume as the CT; choose another one, or none.")
        images = Images(
            volume_of(ct, resample=True),
            volume_of(mr, resample=True) if mr is not None else None,
            choices.mr_registered,
        )
        self._job.start(images, model=choices.model, organs=choices.organs, device=choices.device)
        self._errand = _Errand(segmentation, mr, choices, _remarks(ct, mr))
        self._show(View(True, 0.0, self._job.state.text))

    def _finish(self, errand: _Errand, shown: Any) -> None:
        if shown is not errand.segmentation:
            name = errand.segmentation.GetName()
            self._show(View(True, 1.0, f"Done; come back here with {name!r} chosen to take over the result."))
            return
        try:
            result = self._job.result()
            self._save_state_for_undo()
            report = _write(result, errand)
            remarks = (*errand.remarks, *_keep_registration(result, errand))
        except HNSegError as error:
            self._end(View(text=str(error), failed=True))
        else:
            self._end(View(text=summary(report, result.record), details=details(report, result.record, remarks)))

    def _end(self, view: View) -> None:
        self._job.forget()
        self._errand = None
        self._show(view)


def summary(report: ImportReport, record: RunRecord) -> str:
    """One sentence: how many organs, how many to look at, how long it took."""
    found = len(report.written) - len(report.empty)
    parts = [f"{found} {'organ' if found == 1 else 'organs'} written"]
    if report.empty:
        parts.append(f"{len(report.empty)} not found")
    if report.kept:
        parts.append(f"{len(report.kept)} kept as they were")
    seconds = sum(record.seconds.values())
    took = f" in {seconds:.0f} s" if seconds else ""
    return f"{', '.join(parts)}{took}; review every contour."


def details(report: ImportReport, record: RunRecord, remarks: Sequence[str] = ()) -> tuple[str, ...]:
    """The lines of the report: warnings first, then what was not found, kept, or is in doubt."""
    lines = [*remarks, *record.warnings]
    if record.registration is not None:
        lines.append(f"MR registration: {record.registration.verdict}. {record.registration.reason}")
    if report.empty:
        lines.append(f"Not found: {', '.join(organ.name for organ in report.empty)}.")
    lines += [f"{kept.organ.name} was kept: it {kept.reason}." for kept in report.kept]
    lines += [_doubt(organ) for organ in record.organs if organ.status == "check"]
    lines.append(f"Model {record.model.name} {record.model.version}, trained on: {record.model.training_data}")
    return tuple(lines)


def tags_of(record: RunRecord) -> dict[str, dict[str, str]]:
    """What each segment is to remember of the run, by organ name: it stays with the scene and with .seg.nrrd files."""
    model = {MODEL_TAG: f"{record.model.name} {record.model.version}"}
    return {organ.name: {**model, **_organ_tags(organ)} for organ in record.organs}


def _organ_tags(organ: OrganRecord) -> dict[str, str]:
    confidence = {} if organ.confidence is None else {CONFIDENCE_TAG: f"{organ.confidence:.3f}"}
    expected = {} if organ.expected_dsc is None else {EXPECTED_TAG: f"{organ.expected_dsc:.2f}"}
    taught = {TAUGHT_TAG: taught_words(organ.taught_by)} if organ.taught_by else {}
    return {**confidence, **expected, **taught, NOTES_TAG: " ".join(organ.notes)}


def _write(result: Result, errand: _Errand) -> ImportReport:
    choices = errand.choices
    organs = find_organs(choices.organs) if choices.organs else ORGANS
    return import_labels(
        result.labels,
        errand.segmentation,
        organs=organs,
        policy=choices.policy,
        protect=choices.protect,
        tags=tags_of(result.record),
    )


def _keep_registration(result: Result, errand: _Errand) -> tuple[str, ...]:
    if result.ct_to_mr is None:
        return ()
    node = keep_registration(result.ct_to_mr, errand.mr, errand.segmentation)
    return (f"The transform {node.GetName()!r} puts the MR where it was found to lie.",) if node is not None else ()


def _remarks(ct: Any, mr: Any) -> tuple[str, ...]:
    bent = [node.GetName() for node in (ct, mr) if node is not None and is_bent(node)]
    return tuple(f"{name!r} stands under a non-linear transform and was resampled for the model." for name in bent)


def _doubt(organ: OrganRecord) -> str:
    low, high = organ.range_ml
    notes = " ".join(organ.notes) or f"{organ.volume_ml:.1f} mL; usual are {low:g} to {high:g} mL."
    return f"Look at {organ.name}: {notes}"
