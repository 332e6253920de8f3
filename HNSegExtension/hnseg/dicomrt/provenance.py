"""Who made an object, with what, when, and what it may be used for: in the attributes that DICOM has for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from hnseg.image.segmentation import Segmentation
from hnseg.terminology import MODEL_TAG, NOT_STARTED, STATUS_TAG
from hnseg.version import RESEARCH_USE, __version__

MANUFACTURER = "HNSeg contributors"
_COMPLETED = "completed"  # Slicer's status of a segment that somebody has finished with
_PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
COPIED_FROM_PATIENT_AND_STUDY = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
    "StudyDescription", "FrameOfReferenceUID", "PositionReferenceIndicator",
)  # fmt: skip
"""What makes an object part of the same patient, study and frame of reference."""
_REQUIRED_EVEN_IF_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber", "PositionReferenceIndicator",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Provenance:
    """The model behind the contours, if one is known, when they were exported and in which state of review."""

    model: str = ""
    model_version: str = ""
    review: str = "not reviewed"
    exported: datetime = field(default_factory=lambda: datetime.now(UTC).astimezone())

    @classmethod
    def of(cls, segmentation: Segmentation, *, model: str = "", model_version: str = "") -> Provenance:
        """With what the segments' tags tell: the model, unless one is named, and the state of review.

        Reviewed is only what has every segment completed. Several models are all named.
        """
        if not model:
            model, model_version = _model(segmentation)
        states = {segment.tags.get(STATUS_TAG, NOT_STARTED) for segment in segmentation.segments}
        review = {frozenset({_COMPLETED}): "reviewed", frozenset({NOT_STARTED}): "not reviewed"}
        return cls(model, model_version, review.get(frozenset(states), "partly reviewed"))

    @property
    def software(self) -> list[str]:
        """HNSeg's version and, where known, the model's."""
        named = f"model {self.model} {self.model_version}".strip()
        return [f"HNSeg {__version__}", *([named[:64]] if self.model else [])]

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence where the model is not known."""
        return () if self.model else ("The file does not say which model made the organs; --model can.",)

    @property
    def sentence(self) -> str:
        """One text for people: made by what, reviewed or not, for research only."""
        return f"Made by {', '.join(self.software)}; {self.review}. {RESEARCH_USE}"


def _model(segmentation: Segmentation) -> tuple[str, str]:
    """Name and version; of several models the names with their versions, and no version."""
    models = sorted({tag for segment in segmentation.segments if (tag := segment.tags.get(MODEL_TAG, ""))})
    if len(models) > 1:
        return ", ".join(models), ""
    name, _, version = "".join(models).rpartition(" ")
    return (name, version) if name else (version, "")


def copy_patient_and_study(source: Dataset, target: Dataset) -> None:
    """The same patient, study and frame of reference as the series; nothing else of it but ``set_character_set``."""
    for keyword in COPIED_FROM_PATIENT_AND_STUDY:
        if keyword in source:
            target[keyword] = source[keyword]
        elif keyword in _REQUIRED_EVEN_IF_EMPTY:
            setattr(target, keyword, "")


def set_character_set(source: Dataset, target: Dataset, texts: Iterable[str]) -> None:
    """The series' character set, which every reader of the series knows, or UTF-8 where it may not hold the texts."""
    known = source.get("SpecificCharacterSet") if all(text.isascii() for text in texts) else "ISO_IR 192"
    if known:
        target.SpecificCharacterSet = known
    elif "SpecificCharacterSet" in target:
        del target.SpecificCharacterSet


def sign(dataset: Dataset, provenance: Provenance) -> None:
    """Set new UIDs, maker, software, model and dates. An object that is exported twice is two objects."""
    dataset.SOPInstanceUID = generate_uid(prefix=None)
    dataset.SeriesInstanceUID = generate_uid(prefix=None)
    date, time = f"{provenance.exported:%Y%m%d}", f"{provenance.exported:%H%M%S}"
    dataset.InstanceCreationDate = dataset.SeriesDate = date
    dataset.InstanceCreationTime = dataset.SeriesTime = time
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = "HNSeg"
    dataset.SoftwareVersions = provenance.software
    if provenance.model:
        others = dataset.get("ContributingEquipmentSequence") or ()
        dataset.ContributingEquipmentSequence = [_equipment(provenance), *others]


def coded(code: Code) -> Dataset:
    """A code as a sequence item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _equipment(provenance: Provenance) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [coded(_PROCESSING_EQUIPMENT)]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = f"HNSeg model {provenance.model}"[:64]
    item.SoftwareVersions = provenance.model_version or "unknown"
    item.ContributionDescription = RESEARCH_USE
    return item
