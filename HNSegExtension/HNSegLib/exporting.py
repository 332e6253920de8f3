"""A segmentation node out of Slicer: ``.seg.nrrd``, and RTSTRUCT on the original CT series."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from hnseg.errors import GeometryMismatch, InputError, OutputError
from hnseg.image.files import atomic_write
from hnseg.image.segmentation import Segmentation, read_segmentation
from HNSegLib.merging import Status
from HNSegLib.segments import existing_segments
from HNSegLib.volumes import matrix_between

if TYPE_CHECKING:
    from hnseg.dicomrt.structure_set import Written

_EDITED = (Status.IN_PROGRESS, Status.COMPLETED, Status.FLAGGED)


def write_seg_nrrd(segmentation_node: slicer.vtkMRMLSegmentationNode, path: Path) -> None:
    """Slicer's own file, with names, colours, terminology and status; whole or not at all.

    The file holds world coordinates: a node under a transform that is not the identity is refused
    (``GeometryMismatch``), since Slicer would leave the transform out. ``OutputError`` when it cannot be written.
    """
    if not path.name.endswith(".seg.nrrd"):
        raise OutputError(f"{path.name} must end in .seg.nrrd, else Slicer reads it as a volume; add the ending.")
    if segmentation_node.GetSegmentation().GetNumberOfSegments() == 0:
        raise InputError(f"{segmentation_node.GetName()!r} has no segments to export; segment first.")
    _refuse_transformed(segmentation_node)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    with atomic_write(path) as temporary:
        storage.SetFileName(str(temporary))
        if not storage.WriteData(segmentation_node):
            raise OutputError(f"Slicer could not write {path}; choose another place.")


def write_rtstruct(segmentation_node: slicer.vtkMRMLSegmentationNode, series_folder: Path, path: Path) -> Written:
    """An RTSTRUCT that refers to the CT series in ``series_folder``, which is only read.

    What a person edited or approved is written as SEMIAUTOMATIC. Raises ``HNSegError`` in one sentence.
    """
    from hnseg.dicomrt.provenance import Provenance  # pydicom is needed here alone
    from hnseg.dicomrt.series import open_series
    from hnseg.dicomrt.structure_set import StructureSetOptions, write_structure_set

    segmentation = _engine_segmentation(segmentation_node)
    options = StructureSetOptions(
        edited=frozenset(one.name for one in existing_segments(segmentation_node) if one.status in _EDITED),
        provenance=Provenance.of(segmentation),
    )
    return write_structure_set(path, open_series(series_folder), segmentation, options)


def series_folder_of(ct: slicer.vtkMRMLVolumeNode, database: Any) -> Path | None:
    """Where Slicer's DICOM database has the volume's first slice; None when it was not loaded from there."""
    uids = (ct.GetAttribute("DICOM.instanceUIDs") or "").split()
    file = database.fileForInstance(uids[0]) if uids and database is not None else ""
    return Path(file).parent if file else None


def _engine_segmentation(node: slicer.vtkMRMLSegmentationNode) -> Segmentation:
    """Through Slicer's file format, which both sides read and write exactly."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "organs.seg.nrrd"
        write_seg_nrrd(node, path)
        return read_segmentation(path)


def _refuse_transformed(node: slicer.vtkMRMLSegmentationNode) -> None:
    to_world = matrix_between(node.GetParentTransformNode(), None, repr(node.GetName()))
    if not np.allclose(to_world, np.eye(4), atol=1e-6):
        raise GeometryMismatch(
            f"{node.GetName()!r} stands under a transform, which files do not hold; harden it before the export."
        )
