"""What is asked of the engine: one request type for the command line, the worker, Slicer and a server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from hnseg.errors import ConfigError, OutputError
from hnseg.jobs.json_request import JsonRequest
from hnseg.organs import ORGANS, Organ, find_organs
from hnseg.plain import from_plain, to_plain
from hnseg.reporting.record import RunRecord

SEGMENTATION = ".seg.nrrd"
LABEL_MAPS = (".nrrd", ".nii.gz", ".nii", ".mha")


@dataclass(frozen=True, slots=True)
class SegmentOutcome:
    """Where the labels are, and the record of the run."""

    output: str
    record: RunRecord

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain: dict[str, Any] = to_plain(self)
        return plain


@dataclass(frozen=True, slots=True)
class SegmentRequest(JsonRequest):
    """Segment one patient. Paths are text, so that the request is plain JSON.

    ``ct``, ``mr``: image file or DICOM folder. ``output``: ``.seg.nrrd``, or a label map by its suffix. ``transform``:
    maps CT points to MR points (LPS mm); without it the MR is registered. ``transform_output``: where the transform
    that was used goes; not written when the MR was not used. ``model``: name or folder; None is the one that ships.
    ``organs``: those wanted; empty means all. ``report_json``, ``report``: file and folder of the reports.
    ``reference``: true contours, to be scored against in the report. ``precision``, ``mirror``: as in
    ``SegmentOptions``. ``uncertainty``: image file for a map of it, on the model's own grid. Raises ``UnknownOrgan``,
    ``OutputError`` or ``ConfigError`` when made.
    """

    ct: str
    output: str
    mr: str | None = None
    transform: str | None = None
    model: str | None = None
    organs: tuple[str, ...] = ()
    device: str = "auto"
    report_json: str | None = None
    report: str | None = None
    reference: str | None = None
    transform_output: str | None = None
    precision: Literal["auto", "full"] = "auto"
    mirror: bool = False
    uncertainty: str | None = None

    job: ClassVar[str] = "segment"

    def __post_init__(self) -> None:
        if self.transform and not self.mr:
            raise ConfigError("A transform from CT to MR was given without an MR; give the MR too, or leave it out.")
        if not self.output.lower().endswith((SEGMENTATION, *LABEL_MAPS)):
            known = ", ".join((SEGMENTATION, *LABEL_MAPS))
            raise OutputError(f"The output {Path(self.output).name} has no known ending; use one of {known}.")
        if self.uncertainty and not self.uncertainty.lower().endswith(LABEL_MAPS):
            name, known = Path(self.uncertainty).name, ", ".join(LABEL_MAPS)
            raise OutputError(f"The uncertainty map {name} has no known ending; use one of {known}.")
        if len(set(self.outputs)) < len(self.outputs):
            raise OutputError("Two outputs have the same path; give each its own.")
        object.__setattr__(self, "organs", tuple(organ.name for organ in find_organs(self.organs)))

    @property
    def output_files(self) -> tuple[Path, ...]:
        """The files that will be written."""
        files = (self.output, self.report_json, self.transform_output, self.uncertainty)
        return tuple(Path(path) for path in files if path)

    @property
    def output_folders(self) -> tuple[Path, ...]:
        """The folders that will be written."""
        return (Path(self.report),) if self.report else ()

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Both."""
        return self.output_files + self.output_folders

    @property
    def wanted(self) -> tuple[Organ, ...]:
        """The organs asked for, in label order; all if none was named."""
        return find_organs(self.organs) if self.organs else ORGANS

    def absolute(self) -> Self:
        """The same request with absolute paths, as another process may have another working folder."""
        names = (
            "ct", "output", "mr", "transform", "report_json", "report", "reference", "transform_output", "uncertainty",
        )  # fmt: skip
        given = {name: getattr(self, name) for name in names}
        changes: dict[str, Any] = {name: str(Path(path).absolute()) for name, path in given.items() if path}
        return replace(self, **changes)

    def outcome_from_json(self, data: Any) -> SegmentOutcome:
        """The worker's answer to this request."""
        return from_plain(SegmentOutcome, data, where="The outcome")
