"""What an RTSTRUCT holds, as plain values: regions with their contours, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from hnseg.dicomrt.files import read_object, tolerant
from hnseg.dicomrt.naming import GENERATION_TAG, terminology_entry
from hnseg.errors import UnreadableFile
from hnseg.terminology import TERMINOLOGY_TAG

_CONTOUR_DATA = Tag("ContourData")
_FARTHEST_MM = 1e5
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


@dataclass(frozen=True, slots=True, eq=False)
class Contour:
    """A closed polygon (n, 3) in LPS mm; ``xor`` if it is to be combined with the region's others by exclusive or."""

    points_lps: NDArray[np.float64]
    xor: bool
    image_uid: str = ""


@dataclass(frozen=True, slots=True)
class Roi:
    """One region: its name as written, colour, tags (generation, terminology) and usable contours."""

    name: str
    rgb: tuple[int, int, int]
    tags: dict[str, str]
    contours: tuple[Contour, ...]


@dataclass(frozen=True, slots=True)
class StructureSet:
    """The regions, the frame of reference and series they were drawn on, and warnings about what was left out."""

    rois: tuple[Roi, ...]
    frame_of_reference_uids: frozenset[str]
    series_uids: frozenset[str]
    warnings: tuple[str, ...]


def read_rois(path: str | Path) -> StructureSet:
    """Parse an RTSTRUCT. Unusable contours are left out and named; ``UnreadableFile`` if nothing can be made of it."""
    dataset = read_object(path, kind="RTSTRUCT")
    try:
        with tolerant():
            return _structure_set(dataset)
    except Exception as error:
        raise UnreadableFile(
            f"{Path(path).name} holds values that are not DICOM ({type(error).__name__}); export it again."
        ) from error


@dataclass(slots=True)
class _Left:
    """Counts, per reason, of the contours of one region that were left out."""

    counts: dict[str, int] = field(default_factory=dict)

    def out(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1

    def sentences(self, name: str) -> Iterable[str]:
        for reason, count in self.counts.items():
            yield f"{name}: contours left out because {reason}: {count}."


def _structure_set(dataset: Dataset) -> StructureSet:
    warnings: list[str] = []
    contour_items = {int(item.ReferencedROINumber): item for item in dataset.get("ROIContourSequence") or ()}
    observations = {int(item.ReferencedROINumber): item for item in dataset.get("RTROIObservationsSequence") or ()}
    rois: list[Roi] = []
    for item in dataset.get("StructureSetROISequence") or ():
        number = int(item.ROINumber)
        name = _unique(str(item.get("ROIName") or f"ROI {number}").strip(), [roi.name for roi in rois], warnings)
        contour_item = contour_items.get(number)
        left = _Left()
        contours = _contours(contour_item, left)
        warnings.extend(left.sentences(name))
        if not contours:
            warnings.append(f"{name} has no closed contour; it is empty.")
        tags = _tags(item, observations.get(number))
        rois.append(Roi(name, _colour(contour_item), tags, contours))
    frames, series = _references(dataset)
    return StructureSet(tuple(rois), frames, series, tuple(warnings))


def _contours(item: Dataset | None, left: _Left) -> tuple[Contour, ...]:
    contours: list[Contour] = []
    seen: set[bytes] = set()
    for part in (item.get("ContourSequence") if item is not None else None) or ():
        kind = str(part.get("ContourGeometricType", "of no type"))
        points = _points(part)
        reason = _unusable(kind, points)
        if reason is None and points is not None:
            key = np.unique(np.round(points, 3), axis=0).tobytes()
            if key not in seen:
                seen.add(key)
                contours.append(Contour(points, kind == "CLOSEDPLANAR_XOR", _image_uid(part)))
                continue
            reason = "they are drawn twice"
        left.out(str(reason))
    return tuple(contours)


def _unusable(kind: str, points: NDArray[np.float64] | None) -> str | None:
    if kind == "POINT":
        return "they are points"
    if kind not in _CLOSED:
        return "they are open" if kind.startswith("OPEN") else f"their type {kind} is no closed polygon"
    if points is None:
        return "their numbers are not triplets of finite millimetres"
    if len(np.unique(points, axis=0)) < 3:
        return "they have fewer than three points"
    return None


def _points(part: Dataset) -> NDArray[np.float64] | None:
    """The contour's points (n, 3), without the cost of a Python object per number; None if they make no sense."""
    try:
        values = _numbers(part.get_item(_CONTOUR_DATA))
    except ValueError:
        return None
    if values.size % 3 or not values.size or not np.isfinite(values).all() or np.abs(values).max() > _FARTHEST_MM:
        return None
    points = values.reshape(-1, 3)
    return points[:-1] if len(points) > 1 and np.array_equal(points[0], points[-1]) else points


def _numbers(element: Any) -> NDArray[np.float64]:
    if element is None or element.value is None:
        return np.empty(0)
    if isinstance(element, RawDataElement):
        text = element.value.decode("ascii", "replace").strip(" \0")
        return np.array([float(number) for number in text.split("\\")] if text else [])
    return np.asarray(element.value, dtype=np.float64).reshape(-1)


def _image_uid(part: Dataset) -> str:
    images = part.get("ContourImageSequence") or ()
    return str(images[0].get("ReferencedSOPInstanceUID", "")) if images else ""


def _colour(item: Dataset | None) -> tuple[int, int, int]:
    values = item.get("ROIDisplayColor") if item is not None else None
    if not values or len(values) != 3:
        return 128, 174, 128
    r, g, b = (min(max(int(value), 0), 255) for value in values)
    return r, g, b


def _tags(item: Dataset, observation: Dataset | None) -> dict[str, str]:
    tags = {GENERATION_TAG: str(item.get("ROIGenerationAlgorithm") or "")}
    codes = (observation.get("RTROIIdentificationCodeSequence") if observation is not None else None) or ()
    if codes:
        tags[TERMINOLOGY_TAG] = terminology_entry(codes[0])
    return {name: text for name, text in tags.items() if text}


def _references(dataset: Dataset) -> tuple[frozenset[str], frozenset[str]]:
    frames: set[str] = {str(dataset.get("FrameOfReferenceUID") or "")}
    series: set[str] = set()
    for item in dataset.get("StructureSetROISequence") or ():
        frames.add(str(item.get("ReferencedFrameOfReferenceUID") or ""))
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        frames.add(str(frame.get("FrameOfReferenceUID") or ""))
        for study in frame.get("RTReferencedStudySequence") or ():
            for referenced in study.get("RTReferencedSeriesSequence") or ():
                series.add(str(referenced.get("SeriesInstanceUID") or ""))
    return frozenset(frames - {""}), frozenset(series - {""})


def _unique(name: str, taken: Sequence[str], warnings: list[str]) -> str:
    if name not in taken:
        return name
    number = next(n for n in range(2, len(taken) + 3) if f"{name}_{n}" not in taken)
    warnings.append(f"{name} is the name of more than one structure; one was renamed {name}_{number}.")
    return f"{name}_{number}"
