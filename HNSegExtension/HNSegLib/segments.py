"""Label volumes → segments of a segmentation node, with names, colours, terminology and status.

One import for all organs: Slicer puts them into one shared layer in a tenth of a second, where thirty single updates
take ten seconds and erase one another. The import bypasses undo, masking and status, so these are honoured here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from hnseg.errors import UnsupportedImage
from hnseg.image.volume import Volume
from hnseg.organs import ORGANS, Organ
from hnseg.terminology import MODEL_TAG as MODEL_TAG
from hnseg.terminology import ORGAN_TAG, STATUS_TAG, segment_tags
from HNSegLib.merging import ExistingSegment, Kept, MergePolicy, Plan, Status, organ_of, plan_merge
from HNSegLib.space import flipped_rows, from_vtk, to_vtk
from HNSegLib.volumes import matrix_between, scalars_of

CONFIDENCE_TAG = "HNSeg.Confidence"
"""The model's mean winning probability over the segment, 0…1, as text."""
EXPECTED_TAG = "HNSeg.ExpectedDSC"
"""The agreement with an expert that organs of such confidence had, 0…1, as text."""
NOTES_TAG = "HNSeg.Notes"
"""What the engine found odd about the segment."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of each organ: written (with its segment's id), kept as it was, or written but empty."""

    written: tuple[tuple[Organ, str], ...]
    kept: tuple[Kept, ...]
    empty: tuple[Organ, ...]


def import_labels(
    labels: Volume,
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    *,
    organs: Sequence[Organ] = ORGANS,
    policy: MergePolicy = MergePolicy.REPLACE,
    protect: bool = True,
    tags: Mapping[str, Mapping[str, str]] | None = None,
) -> ImportReport:
    """Write the labels of ``organs`` into the node; each organ that is not kept has a segment afterwards, empty or not.

    ``labels`` lies in the world (LPS) and may be on any grid; the node's own parent transform is undone. ``tags``:
    further ones for the segments, by organ name. Nothing is changed when this raises: ``UnsupportedImage`` for a node
    whose source is not a binary labelmap or labels that are not integers, ``GeometryMismatch`` when the node stands
    under a non-linear transform.
    """
    _check(labels, segmentation_node)
    to_node = matrix_between(None, segmentation_node.GetParentTransformNode(), repr(segmentation_node.GetName()))
    plan = plan_merge(existing_segments(segmentation_node), organs, policy=policy, protect=protect)
    segmentation = segmentation_node.GetSegmentation()
    surfaces = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    shown_in_3d = segmentation.ContainsRepresentation(surfaces)
    if shown_in_3d:
        segmentation.RemoveRepresentation(surfaces)  # else each of the thirty is triangulated as it changes
    ids = _prepare_segments(segmentation, plan)
    _import(labels, to_node, segmentation_node, ids)
    for organ, segment_id in ids:
        _describe(segmentation.GetSegment(segment_id), organ, (tags or {}).get(organ.name, {}))
    if shown_in_3d:
        segmentation_node.CreateClosedSurfaceRepresentation()
    empty = tuple(organ for organ, segment_id in ids if _voxels(segmentation.GetSegment(segment_id)) == 0)
    return ImportReport(ids, plan.kept, empty)


def existing_segments(segmentation_node: slicer.vtkMRMLSegmentationNode) -> tuple[ExistingSegment, ...]:
    """The node's segments, in their order, as the merge decision sees them."""
    segmentation = segmentation_node.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
    return tuple(_existing(segment_id, segmentation.GetSegment(segment_id)) for segment_id in ids)


def volumes_ml(segmentation_node: slicer.vtkMRMLSegmentationNode) -> dict[str, float]:
    """Volume of each segment by its id, counted in voxels, in the segmentation's own space."""
    segmentation = segmentation_node.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
    return {segment_id: _volume_ml(segmentation.GetSegment(segment_id)) for segment_id in ids}


def status_of(segment: slicer.vtkSegment) -> Status:
    """The segment's status; NOT_STARTED when it has none."""
    return Status(tag_of(segment, STATUS_TAG) or "notstarted")


def set_status(segment: slicer.vtkSegment, status: Status) -> None:
    """Set the status, also where the segment had none."""
    segment.SetTag(STATUS_TAG, status.value)


def _check(labels: Volume, node: slicer.vtkMRMLSegmentationNode) -> None:
    if not np.issubdtype(labels.array_kji.dtype, np.integer):
        raise UnsupportedImage(f"Labels must be integers, got {labels.array_kji.dtype}; round and cast them first.")
    source = node.GetSegmentation().GetSourceRepresentationName()
    if source != slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName():
        raise UnsupportedImage(
            f"{node.GetName()!r} is kept as {source}, got labels to write; make the binary labelmap its source "
            "representation in the Segmentations module."
        )


def _existing(segment_id: str, segment: slicer.vtkSegment) -> ExistingSegment:
    tagged = tag_of(segment, ORGAN_TAG)
    return ExistingSegment(
        id=segment_id,
        name=segment.GetName() or "",
        organ=organ_of(tagged or segment.GetName() or ""),
        status=status_of(segment),
        empty=_voxels(segment) == 0,
        ours=bool(tagged),
    )


def tag_of(segment: slicer.vtkSegment, name: str) -> str:
    """The value of a segment's tag; empty when it has none."""
    value = vtk.reference("")
    return str(value) if segment.GetTag(name, value) else ""


def _prepare_segments(segmentation: slicer.vtkSegmentation, plan: Plan) -> tuple[tuple[Organ, str], ...]:
    """A segment for each organ that is to be written: the one it replaces, or a new empty one."""
    return tuple((organ, segment_id or _add(segmentation, organ)) for organ, segment_id in plan.writes)


def _add(segmentation: slicer.vtkSegmentation, organ: Organ) -> str:
    return str(
        segmentation.AddEmptySegment(segmentation.GenerateUniqueSegmentID(organ.name), organ.name, organ.rgb_unit)
    )


def _import(
    labels: Volume,
    to_node: NDArray[np.float64],
    node: slicer.vtkMRMLSegmentationNode,
    ids: Iterable[tuple[Organ, str]],
) -> None:
    """Slicer takes label n for the n-th id and skips empty ids; so label values, also in files, stay the organs'."""
    by_label = {organ.label: segment_id for organ, segment_id in ids}
    if not by_label:
        return
    names = vtk.vtkStringArray()
    for label in range(1, max(by_label) + 1):
        names.InsertNextValue(by_label.get(label, ""))
    (i, j, k), size = _content(labels)
    ni, nj, nk = size
    cropped = labels.cropped((i, j, k), size).array_kji
    image = slicer.vtkOrientedImageData()
    image.SetExtent(i, i + ni - 1, j, j + nj - 1, k, k + nk - 1)
    image.GetPointData().SetScalars(scalars_of(np.where(np.isin(cropped, list(by_label)), cropped, 0).astype(np.uint8)))
    image.SetGeometryFromImageToWorldMatrix(to_vtk(to_node @ flipped_rows(labels.grid.ijk_to_lps)))
    # The overload that takes a labelmap NODE applies a differing parent transform twice (Slicer 5.10 to 5.13).
    if not slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(image, node, names):
        raise UnsupportedImage(f"Slicer could not import the labels into {node.GetName()!r}; see its error log.")


def _content(labels: Volume) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Start and size of the box around what is not zero: undo keeps copies of it, and most of a CT is background."""
    (i, ni), (j, nj), (k, nk) = (_content_along(labels.array_kji, axis) for axis in (2, 1, 0))
    return (i, j, k), (ni, nj, nk)


def _content_along(array_kji: NDArray[Any], axis: int) -> tuple[int, int]:
    others = tuple(n for n in range(3) if n != axis)
    content = np.flatnonzero(array_kji.any(axis=others))
    return (int(content[0]), int(content[-1] - content[0]) + 1) if content.size else (0, 1)


def _describe(segment: slicer.vtkSegment, organ: Organ, tags: Mapping[str, str]) -> None:
    segment.SetName(organ.name)
    segment.SetNameAutoGenerated(False)
    segment.SetColor(organ.rgb_unit)
    segment.SetColorAutoGenerated(False)
    for name, value in {**segment_tags(organ), **tags}.items():
        segment.SetTag(name, value.replace("|", "/"))  # "|" ends a tag in .seg.nrrd


def _labelmap(segment: slicer.vtkSegment) -> slicer.vtkOrientedImageData | None:
    """The segment's (shared) layer; None when it has none, or an empty one."""
    image = segment.GetRepresentation(slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName())
    if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        return None
    return image


def _voxels(segment: slicer.vtkSegment) -> int:
    image = _labelmap(segment)
    return int(_counts(image).get(segment.GetLabelValue(), 0)) if image is not None else 0


def _volume_ml(segment: slicer.vtkSegment) -> float:
    image = _labelmap(segment)
    if image is None:
        return 0.0
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return float(_voxels(segment) * abs(np.linalg.det(from_vtk(matrix)[:3, :3])) / 1000.0)


def _counts(image: slicer.vtkOrientedImageData) -> dict[int, int]:
    """Voxels by label value. Thirty segments share a layer, so what was counted is kept until the layer changes."""
    key = (image.GetAddressAsString("vtkObject"), image.GetMTime())
    if key not in _counted:
        if len(_counted) >= _REMEMBERED_LAYERS:
            _counted.clear()
        scalars = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
        _counted[key] = dict(_tally(scalars))
    return _counted[key]


_REMEMBERED_LAYERS = 64
_counted: dict[tuple[str, int], dict[int, int]] = {}


def _tally(values: NDArray[Any]) -> Counter[int]:
    """Piece by piece, so that counting a layer needs little memory beside it; what is negative is no label."""
    total: Counter[int] = Counter()
    for start in range(0, values.size, _PIECE):
        counts = np.bincount(np.maximum(values[start : start + _PIECE], 0))
        total.update({int(label): int(counts[label]) for label in np.flatnonzero(counts)})
    return total


_PIECE = 1 << 22
