"""Organs as an RTSTRUCT on the original series. DICOM PS3.3 A.19, C.8.8.5, C.8.8.6, C.8.8.8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.sr.coding import Code
from pydicom.tag import Tag

from hnseg.dicomrt.contours import Outline, Polygon, keyhole, simplify, trace
from hnseg.dicomrt.files import tolerant, write_object
from hnseg.dicomrt.naming import generation_algorithm, learnt_from, structure_names
from hnseg.dicomrt.planes import PlaneMask, planes_of
from hnseg.dicomrt.provenance import Provenance, coded, copy_patient_and_study, set_character_set, sign
from hnseg.dicomrt.series import Series
from hnseg.errors import ConfigError, InputError
from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segment, Segmentation
from hnseg.terminology import CATEGORY

RT_STRUCTURE_SET_STORAGE = "1.2.840.10008.5.1.4.1.1.481.3"
_DETACHED_STUDY_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"  # the class that PS3.3 asks for in the Referenced Study Sequence
_CATEGORY_SCHEME, _CATEGORY_VALUE, _CATEGORY_MEANING = CATEGORY
HOLES = ("keyhole", "xor", "xor-typed")
_CONTOUR_DATA = Tag("ContourData")


@dataclass(frozen=True, slots=True)
class StructureSetOptions:
    """How contours are written.

    ``holes``: ``"keyhole"`` joins each hole to its outer contour, which every system reads; ``"xor"`` writes them apart
    as CLOSEDPLANAR_XOR. ``tolerance_mm``: no contour point is farther from the full outline. ``edited``: names of
    segments that a person has changed. ``label``: what a planning system lists, 16 characters at most.
    """

    holes: Literal["keyhole", "xor", "xor-typed"] = "keyhole"
    tolerance_mm: float = 0.05
    edited: frozenset[str] = frozenset()
    label: str = "HNSeg"
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if self.holes not in HOLES:
            raise ConfigError(f"Holes can be written as {', '.join(HOLES)}, got {self.holes!r}; choose one of them.")
        if not 0 <= self.tolerance_mm <= 5:
            raise ConfigError(f"The contour tolerance is {self.tolerance_mm} mm; give 0 to 5.")
        if not 0 < len(self.label) <= 16:
            raise ConfigError(f"The structure set label {self.label!r} must have 1 to 16 characters; shorten it.")


@dataclass(frozen=True, slots=True)
class Written:
    """What an export did: contours per structure, and what it left out, in sentences."""

    contours: dict[str, int]
    warnings: tuple[str, ...] = ()


def write_structure_set(
    path: str | Path, series: Series, segmentation: Segmentation, options: StructureSetOptions | None = None
) -> Written:
    """Write the RTSTRUCT, atomically; the series' files are only read. Raises ``OutputError``, ``InputError``."""
    with tolerant():
        dataset, written = build_structure_set(series, segmentation, options or StructureSetOptions())
        write_object(dataset, path)
    return written


def build_structure_set(
    series: Series, segmentation: Segmentation, options: StructureSetOptions
) -> tuple[Dataset, Written]:
    """The RTSTRUCT as a data set. Structures without a voxel are left out and named."""
    names = structure_names(segmentation.segments)
    rois: list[_Roi] = []
    warnings: list[str] = []
    empty: list[str] = []
    for name, segment in zip(names, segmentation.segments, strict=True):
        planes, lost = planes_of(segmentation.mask(segment.name), series)
        if lost:
            warnings.append(f"{segment.name} leaves the series: {lost:.2f} mL of it were not written.")
        if planes:
            rois.append(_Roi(len(rois) + 1, name, segment, tuple(planes)))
        else:
            empty.append(segment.name)
    if empty:
        warnings.append(f"Left out, as they are empty: {', '.join(empty)}.")
    if not rois:
        raise InputError("No structure has a voxel inside the series; check that labels and series belong together.")
    dataset = _frame(series, options)
    dataset.StructureSetROISequence = [_roi_item(roi, series, options) for roi in rois]
    dataset.ROIContourSequence = [_contour_item(roi, series, options) for roi in rois]
    dataset.RTROIObservationsSequence = [_observation_item(roi) for roi in rois]
    texts = [*(roi.name for roi in rois), options.label, options.provenance.model]
    set_character_set(series.header, dataset, texts)
    counts = {
        roi.segment.name: len(item.ContourSequence) for roi, item in zip(rois, dataset.ROIContourSequence, strict=True)
    }
    return dataset, Written(counts, tuple(warnings))


@dataclass(frozen=True, slots=True)
class _Roi:
    number: int
    name: str
    segment: Segment
    planes: tuple[PlaneMask, ...]


def _frame(series: Series, options: StructureSetOptions) -> Dataset:
    dataset = Dataset()
    copy_patient_and_study(series.header, dataset)
    sign(dataset, options.provenance)
    dataset.SOPClassUID = RT_STRUCTURE_SET_STORAGE
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesNumber = 1
    dataset.SeriesDescription = "HNSeg organs at risk, research use only"
    dataset.OperatorsName = ""
    dataset.StructureSetLabel = options.label
    dataset.StructureSetName = "Organs at risk"
    accuracy = f"No contour point lies farther than {options.tolerance_mm:g} mm from the voxels' outline."
    dataset.StructureSetDescription = f"{options.provenance.sentence} {accuracy}"
    dataset.StructureSetDate, dataset.StructureSetTime = dataset.InstanceCreationDate, dataset.InstanceCreationTime
    dataset.ApprovalStatus = "UNAPPROVED"
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(series)]
    return dataset


def _frame_of_reference(series: Series) -> Dataset:
    in_series = Dataset()
    in_series.SeriesInstanceUID = series.series_uid
    in_series.ContourImageSequence = [_image_reference(series, index) for index in range(len(series.slices))]
    in_study = Dataset()
    in_study.ReferencedSOPClassUID = _DETACHED_STUDY_MANAGEMENT
    in_study.ReferencedSOPInstanceUID = series.study_uid
    in_study.RTReferencedSeriesSequence = [in_series]
    frame = Dataset()
    frame.FrameOfReferenceUID = series.frame_of_reference_uid
    frame.RTReferencedStudySequence = [in_study]
    return frame


def _image_reference(series: Series, index: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = series.sop_class_uid
    item.ReferencedSOPInstanceUID = series.slices[index].sop_instance_uid
    return item


def _roi_item(roi: _Roi, series: Series, options: StructureSetOptions) -> Dataset:
    item = Dataset()
    item.ROINumber = roi.number
    item.ReferencedFrameOfReferenceUID = series.frame_of_reference_uid
    item.ROIName = roi.name
    english = roi.segment.organ.english if roi.segment.organ else roi.segment.name
    item.ROIDescription = "; ".join([english, options.provenance.review, *learnt_from(roi.segment)])[:1024]
    item.ROIVolume = f"{sum(plane.ml for plane in roi.planes):.4f}"
    item.ROIGenerationAlgorithm = generation_algorithm(roi.segment, options.edited)
    item.ROIGenerationDescription = ", ".join(options.provenance.software)[:64]
    return item


def _contour_item(roi: _Roi, series: Series, options: StructureSetOptions) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = roi.number
    item.ROIDisplayColor = list(roi.segment.rgb)
    item.ContourSequence = []
    for plane in roi.planes:
        for polygon in _polygons(trace(plane.mask_ji), plane.grid, options):
            contour = _contour(plane, polygon, options)
            contour.ContourImageSequence = [_image_reference(series, plane.index)]
            contour.ContourNumber = len(item.ContourSequence) + 1
            item.ContourSequence.append(contour)
    return item


def _polygons(outlines: Iterable[Outline], grid: Grid, options: StructureSetOptions) -> Iterable[Polygon]:
    pixel = (grid.spacing_mm[1], grid.spacing_mm[0])
    for outline in outlines:
        thin = Outline(*_thinned((outline.outer, *outline.holes), options.tolerance_mm, pixel))
        if options.holes != "keyhole":
            yield from (thin.outer, *thin.holes)
        else:
            yield keyhole(thin)


def _thinned(
    polygons: Sequence[Polygon], tolerance_mm: float, pixel: tuple[float, float]
) -> tuple[Polygon, tuple[Polygon, ...]]:
    outer, *holes = (simplify(polygon, tolerance=tolerance_mm, pixel=pixel) for polygon in polygons)
    return outer, tuple(holes)


def _contour(plane: PlaneMask, polygon: Polygon, options: StructureSetOptions) -> Dataset:
    points_lps = plane.grid.to_lps(np.column_stack([polygon[:, 1], polygon[:, 0], np.zeros(len(polygon))]))
    item = Dataset()
    item.ContourGeometricType = "CLOSEDPLANAR_XOR" if options.holes == "xor-typed" else "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(polygon)
    item[_CONTOUR_DATA] = _decimal_strings(points_lps.ravel())
    return item


def _decimal_strings(values: NDArray[np.float64]) -> RawDataElement:
    """Contour data as written: to 0.1 µm, without the cost of a Python object per number."""
    text = "\\".join([f"{value:.4f}" for value in values]).encode("ascii")
    text += b" " * (len(text) % 2)
    return RawDataElement(_CONTOUR_DATA, "DS", len(text), text, 0, True, True, True)


def _observation_item(roi: _Roi) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = roi.number
    item.ROIObservationLabel = roi.name.encode()[:16].decode(errors="ignore")
    item.RTROIInterpretedType = "ORGAN"
    item.ROIInterpreter = ""
    organ = roi.segment.organ
    if organ:
        code = coded(Code(organ.sct_code, "SCT", organ.sct_meaning))
        if organ.side:
            side = coded(Code(organ.side.code, "SCT", organ.side.meaning))
            code.SegmentedPropertyTypeModifierCodeSequence = [side]
        item.SegmentedPropertyCategoryCodeSequence = [coded(Code(_CATEGORY_VALUE, _CATEGORY_SCHEME, _CATEGORY_MEANING))]
        item.RTROIIdentificationCodeSequence = [code]
    return item
