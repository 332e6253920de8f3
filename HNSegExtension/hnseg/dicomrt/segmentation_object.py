"""Organs as a DICOM Segmentation (SEG) on the original series, by highdicom. DICOM PS3.3 A.51, C.8.20."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

from hnseg.dicomrt.files import read_object, tolerant, write_object
from hnseg.dicomrt.naming import GENERATION_TAG, generation_algorithm, learnt_from, structure_names, terminology_entry
from hnseg.dicomrt.provenance import MANUFACTURER, Provenance, coded, set_character_set, sign
from hnseg.dicomrt.series import Series
from hnseg.errors import HNSegError, InputError, UnreadableFile
from hnseg.image.grid import Grid
from hnseg.image.resample import resample
from hnseg.image.segmentation import Segment, Segmentation
from hnseg.image.volume import Volume
from hnseg.terminology import CATEGORY, TERMINOLOGY_TAG
from hnseg.version import __version__

_ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
_UNSPECIFIED = Code("85756007", "SCT", "Tissue")
_RESEARCH = "Research use only, not a medical device"


@dataclass(frozen=True, slots=True)
class SegmentationObjectOptions:
    """``edited``: names of segments that a person has changed."""

    edited: frozenset[str] = frozenset()
    provenance: Provenance = field(default_factory=Provenance)


def write_segmentation_object(
    path: str | Path, series: Series, segmentation: Segmentation, options: SegmentationObjectOptions | None = None
) -> tuple[str, ...]:
    """Write a binary SEG, atomically; returns what was left out, in sentences. Raises ``OutputError``, ``InputError``.

    Frames are whole slices of the segmentation's grid. Only where segments overlap are they cut to the box around all
    segments, as they would take gigabytes otherwise.
    """
    with tolerant():
        dataset, left_out = build_segmentation_object(series, segmentation, options or SegmentationObjectOptions())
        write_object(dataset, path, transfer_syntax=ExplicitVRLittleEndian)
    return left_out


def build_segmentation_object(
    series: Series, segmentation: Segmentation, options: SegmentationObjectOptions
) -> tuple[Dataset, tuple[str, ...]]:
    """The SEG as a data set, and sentences about segments without a voxel, which are left out."""
    boxes = [ndimage.find_objects(layer.array_kji) for layer in segmentation.layers]
    present = [
        segment
        for segment in segmentation.segments
        if segment.label <= len(boxes[segment.layer]) and boxes[segment.layer][segment.label - 1]
    ]
    if not present:
        raise InputError("No structure has a voxel; there is nothing to write.")
    provenance = options.provenance
    names = structure_names(present)
    descriptions = [
        _description(n, name, segment, options)
        for n, (name, segment) in enumerate(zip(names, present, strict=True), start=1)
    ]
    images = [_header(part.path) for part in series.slices]
    dataset = hd.seg.Segmentation(
        source_images=images,
        pixel_array=_pixels(segmentation, present, series),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(prefix=None),
        series_number=1,
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name="HNSeg",
        software_versions=provenance.software[0],
        device_serial_number="none",
        content_label="HNSEG",
        content_description=f"{_RESEARCH}; {provenance.review}"[:64],
        series_description="HNSeg organs at risk, research use only",
    )
    empty = [segment.name for segment in segmentation.segments if segment not in present]
    sign(dataset, provenance)
    set_character_set(series.header, dataset, names)
    return dataset, ((f"Left out, as they are empty: {', '.join(empty)}.",) if empty else ())


def read_segmentation_object(path: str | Path, *, grid: Grid | None = None) -> Segmentation:
    """A SEG as a segmentation on its own grid, or brought onto ``grid`` (nearest neighbour, exact where voxels
    coincide).

    Raises ``UnreadableFile`` for files that are broken, of another kind or fractional, or whose frames form no volume.
    """
    path = Path(path)
    read_object(path, kind="SEG")
    try:
        with tolerant():
            dataset = hd.seg.segread(path)
            segments = [dataset.get_segment_description(number) for number in dataset.segment_numbers]
            named = _unique_names([str(segment.segment_label) for segment in segments])
            read = Segmentation.from_masks(_masks(dataset, named, grid))
    except HNSegError:
        raise
    except Exception as error:
        raise UnreadableFile(f"{path.name} is no SEG that can be read ({type(error).__name__}).") from error
    marked = [_marked(segment, item) for segment, item in zip(read.segments, segments, strict=True)]
    return replace(read, segments=tuple(marked))


def _header(path: Path) -> Dataset:
    """One image without its pixels, and without an empty character set, which highdicom does not take."""
    with tolerant():
        image = dcmread(path, stop_before_pixels=True)
    if not image.get("SpecificCharacterSet", "none"):
        del image.SpecificCharacterSet
    return image


def _masks(dataset: Any, names: Sequence[str], grid: Grid | None) -> Iterator[tuple[str, Volume]]:
    for number, name in zip(dataset.segment_numbers, names, strict=True):
        volume = dataset.get_volume(segment_numbers=[number], dtype=np.uint8, rescale_fractional=False)
        own = Grid.from_affine(volume.spatial_shape, volume.affine[:, [2, 1, 0, 3]])
        mask = Volume(np.ascontiguousarray(volume.array[..., 0]), own)
        yield name, mask if grid is None else resample(mask, grid, interpolation="nearest")


def _unique_names(labels: Sequence[str]) -> list[str]:
    names: list[str] = []
    for label in labels:
        taken = sum(label == earlier for earlier in labels[: len(names)])
        names.append(f"{label}_{taken + 1}" if taken else label)
    return names


def _marked(segment: Segment, item: Any) -> Segment:
    """The segment with the colour, codes and way of generation that the file gives it."""
    tags = {
        GENERATION_TAG: str(item.get("SegmentAlgorithmType", "")),
        TERMINOLOGY_TAG: terminology_entry(item.SegmentedPropertyTypeCodeSequence[0]),
    }
    colour = item.get("RecommendedDisplayCIELabValue")
    rgb = hd.color.CIELabColor.from_dicom_value(colour).to_rgb() if colour else segment.rgb
    r, g, b = (int(channel) for channel in rgb)
    return replace(segment, rgb=(r, g, b), tags={**segment.tags, **tags})


def _description(number: int, name: str, segment: Segment, options: SegmentationObjectOptions) -> Any:
    organ, provenance = segment.organ, options.provenance
    algorithm = generation_algorithm(segment, options.edited)
    identification = hd.AlgorithmIdentificationSequence(
        name=provenance.model or "HNSeg",
        version=provenance.model_version or __version__,
        family=_ARTIFICIAL_INTELLIGENCE,
    )
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=_code(CATEGORY),
        segmented_property_type=_code(("SCT", organ.sct_code, organ.sct_meaning)) if organ else _UNSPECIFIED,
        algorithm_type=algorithm,
        algorithm_identification=None if algorithm == "MANUAL" else identification,
        tracking_uid=generate_uid(prefix=None),
        tracking_id=name,
        display_color=hd.color.CIELabColor.from_rgb(*segment.rgb),
    )
    if organ and organ.side:
        side = coded(_code(("SCT", organ.side.code, organ.side.meaning)))
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    if learnt := learnt_from(segment):
        description.SegmentDescription = learnt[0]
    return description


def _code(triple: tuple[str, str, str]) -> Code:
    scheme, value, meaning = triple
    return Code(value, scheme, meaning)


def _pixels(segmentation: Segmentation, present: Sequence[Segment], series: Series) -> Any:
    """Highdicom's volume: labels 1…n where nothing overlaps, else a channel per segment within the box around all."""
    if len(segmentation.layers) == 1:
        numbers = np.zeros(max(segment.label for segment in present) + 1, np.uint8)
        numbers[[segment.label for segment in present]] = np.arange(1, len(present) + 1)
        labels = segmentation.layers[0].array_kji
        known = np.where(labels < len(numbers), labels, 0)
        return _volume(numbers[known], segmentation.grid, series)
    box = _box_around(segmentation, present)
    channels = [segmentation.layers[segment.layer].array_kji[box] == segment.label for segment in present]
    k, j, i = box
    size = (i.stop - i.start, j.stop - j.start, k.stop - k.start)
    return _volume(np.stack(channels, axis=-1), segmentation.grid.cropped((i.start, j.start, k.start), size), series)


def _volume(array: NDArray[Any], grid: Grid, series: Series) -> Any:
    channels = {"SegmentNumber": range(1, array.shape[-1] + 1)} if array.ndim == 4 else None
    return hd.Volume(
        array,
        grid.ijk_to_lps[:, [2, 1, 0, 3]],
        coordinate_system="PATIENT",
        frame_of_reference_uid=series.frame_of_reference_uid,
        channels=channels,
    )


def _box_around(segmentation: Segmentation, present: Sequence[Segment]) -> tuple[slice, slice, slice]:
    boxes = [ndimage.find_objects(layer.array_kji) for layer in segmentation.layers]
    found = [boxes[segment.layer][segment.label - 1] for segment in present]
    k, j, i = (slice(min(box[n].start for box in found), max(box[n].stop for box in found)) for n in range(3))
    return k, j, i
