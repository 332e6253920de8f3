"""Named structures on one grid, overlaps kept, and their way into and out of files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.errors import GeometryMismatch, OutputError, UnknownOrgan, UnreadableFile, UnsupportedImage
from hnseg.image.files import atomic_write, read_sitk, read_volume, readable_file
from hnseg.image.grid import Grid
from hnseg.image.itk import grid_of
from hnseg.image.seg_nrrd import segmentation_fields, segments_in, write_nrrd
from hnseg.image.segment import Segment, other_segment, segment_of
from hnseg.image.volume import Volume
from hnseg.organs import ORGANS, Organ, find_organ

__all__ = ["Segment", "Segmentation", "read_segmentation", "write_segmentation"]

_FILE_ENDINGS = (".seg.nrrd", ".nrrd", ".nii.gz", ".nii", ".mha")
_HAN_SEG_MARK = "_OAR_"  # case_XX_OAR_<NAME>.seg.nrrd
_IMAGE_MARK = re.compile(r"(^|[_\-.])(img|ct|mr)([_\-.]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """Segments in one or more label layers (uint8 or uint16) on ONE grid; segments of a layer never overlap.

    Raises ``GeometryMismatch`` when the layers' grids differ, ``UnsupportedImage`` when two segments share a name or a
    label, or one points to no layer.
    """

    layers: tuple[Volume, ...]
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise UnsupportedImage("A segmentation needs at least one layer, got none; give an empty label volume.")
        if any(layer.grid != self.grid for layer in self.layers):
            raise GeometryMismatch("The layers of a segmentation lie on different grids; resample them onto one.")
        if any(layer.array_kji.dtype not in (np.uint8, np.uint16) for layer in self.layers):
            raise UnsupportedImage("The layers of a segmentation must be uint8 or uint16; cast them first.")
        if any(not 0 <= segment.layer < len(self.layers) for segment in self.segments):
            raise UnsupportedImage("A segment points to a layer that is not there; check the layers.")
        _refuse_twins([segment.name for segment in self.segments], "are called")
        _refuse_twins([(segment.layer, segment.label) for segment in self.segments], "share layer and label")

    @property
    def grid(self) -> Grid:
        """The grid of every layer."""
        return self.layers[0].grid

    @classmethod
    def from_labels(cls, labels: Volume, organs: Sequence[Organ] = ORGANS) -> Segmentation:
        """One layer, one segment per organ, empty ones included, in the order of ``organs``.

        Labels of organs that were not asked for become background. Raises ``UnsupportedImage`` for values that are no
        label of the table.
        """
        array = _as_labels(labels.array_kji, "The label map")
        if array.max() > len(ORGANS):
            raise UnsupportedImage(
                f"The label map holds the value {array.max()}, but labels end at {len(ORGANS)}; "
                "give a label map of the organ table, or a .seg.nrrd with named segments."
            )
        kept = np.zeros(len(ORGANS) + 1, dtype=np.uint8)
        for organ in organs:
            kept[organ.label] = organ.label
        return cls((labels.with_array(kept[array]),), tuple(segment_of(organ) for organ in organs))

    @classmethod
    def from_masks(cls, masks: Mapping[str, Volume] | Iterable[tuple[str, Volume]]) -> Segmentation:
        """From masks by name (nonzero = inside) on one grid; disjoint ones share a layer, overlaps open further ones.

        A name or alias of the organ table becomes that organ, with its label, colour and codes; other names get a free
        label. Pairs are taken one at a time, so that a generator need not hold all masks at once. Raises
        ``GeometryMismatch`` when the grids differ by more than 0.001 mm.
        """
        grid: Grid | None = None
        strangers = 0
        layers: list[NDArray[Any]] = []
        segments: list[Segment] = []
        for name, mask in masks.items() if isinstance(masks, Mapping) else masks:
            grid = grid or mask.grid
            if not mask.grid.is_close(grid):
                raise GeometryMismatch(f"The mask of {name} lies on another grid than the first; resample it first.")
            box = _box(mask.array_kji)
            inside = mask.array_kji[box] != 0
            layer = _layer_with_room(layers, box, inside)
            if layer == len(layers):
                layers.append(np.zeros(grid.shape_kji, dtype=np.uint8))
            segment = _named(name, layer=layer, stranger=strangers)
            strangers += segment.organ is None
            if segment.label > np.iinfo(layers[layer].dtype).max:
                layers[layer] = layers[layer].astype(np.uint16)
            layers[layer][box][inside] = segment.label
            segments.append(segment)
        if grid is None:
            raise UnsupportedImage("There are no masks to stack; give at least one.")
        return cls(tuple(Volume(layer, grid) for layer in layers), tuple(segments))

    def segment(self, name: str) -> Segment:
        """The segment of that name, else the one of that organ (any alias); else ``UnknownOrgan``."""
        for segment in self.segments:
            if segment.name == name:
                return segment
        organ = _organ(name)
        for segment in self.segments:
            if organ and segment.organ == organ:
                return segment
        raise UnknownOrgan(f"No segment is called {name!r}; there are {', '.join(s.name for s in self.segments)}.")

    def mask(self, name: str) -> Volume:
        """The named segment's voxels, bool."""
        segment = self.segment(name)
        layer = self.layers[segment.layer]
        return layer.with_array(layer.array_kji == segment.label)

    def tagged(
        self, tags: Mapping[str, str], own: Mapping[str, Mapping[str, str]] = MappingProxyType({})
    ) -> Segmentation:
        """The same, with those tags on every segment and, by the segment's name, its own ones."""
        tagged = (replace(one, tags={**one.tags, **tags, **own.get(one.name, {})}) for one in self.segments)
        return replace(self, segments=tuple(tagged))

    def to_labels(self) -> Volume:
        """One uint8 label map with the table's labels; where organs overlap, the one that is small by nature wins.

        Raises ``UnknownOrgan`` when a segment is no organ of the table.
        """
        merged = np.zeros(self.grid.shape_kji, dtype=np.uint8)
        organs = [(find_organ(segment.name) if segment.organ is None else segment.organ) for segment in self.segments]
        boxes = [ndimage.find_objects(layer.array_kji) for layer in self.layers]
        for segment, organ in sorted(zip(self.segments, organs, strict=True), key=lambda pair: -pair[1].priority):
            if segment.label <= len(boxes[segment.layer]) and (box := boxes[segment.layer][segment.label - 1]):
                merged[box][self.layers[segment.layer].array_kji[box] == segment.label] = organ.label
        return Volume(merged, self.grid)


def read_segmentation(path: str | Path) -> Segmentation:
    """A Slicer ``.seg.nrrd``; a label map with the table's labels; a mask file named after its organ; a folder of such.

    HaN-Seg's masks (``case_XX_OAR_<NAME>.seg.nrrd``) carry no segment names, so theirs comes from the file name; in a
    folder, that of other structures does, too. Raises ``UnreadableFile``, ``UnsupportedImage``, or ``UnknownOrgan`` for
    an unnamed mask.
    """
    path = Path(path)
    if path.is_dir():
        return _read_masks(path)
    path = readable_file(path)
    if path.name.lower().endswith(".nrrd"):
        image = read_sitk(path)
        if fields := _segment_fields(image):
            return _from_slicer(image, fields, path)
    return _from_plain(read_volume(path), path)


def write_segmentation(segmentation: Segmentation, path: str | Path) -> None:
    """Write Slicer's ``.seg.nrrd``, whole or not at all; equal input gives equal bytes. Raises ``OutputError``."""
    path = Path(path)
    if not path.name.lower().endswith(".nrrd"):
        raise OutputError(f"Cannot write {path.name} as a segmentation; give a name that ends in .seg.nrrd.")
    layers = [layer.array_kji for layer in segmentation.layers]
    widest = np.result_type(*layers)
    with atomic_write(path) as temporary:
        fields = segmentation_fields(segmentation.segments, layers, segmentation.grid)
        write_nrrd(temporary, [layer.astype(widest, copy=False) for layer in layers], segmentation.grid, fields)


def _segment_fields(image: sitk.Image) -> dict[str, str]:
    keys = [key for key in image.GetMetaDataKeys() if key.isascii() and key.startswith("Segment")]
    # SimpleITK hands bytes that are not UTF-8 on as surrogates, which no file could be written with again.
    return {key: image.GetMetaData(key).encode(errors="surrogateescape").decode(errors="replace") for key in keys}


def _from_slicer(image: sitk.Image, fields: Mapping[str, str], path: Path) -> Segmentation:
    if "Segmentation_Extent" in fields:
        raise UnsupportedImage(f"{path.name} is in the format of Slicer before 4.11; open and save it in a newer one.")
    if image.GetDimension() != 3:
        raise UnsupportedImage(f"{path.name} is {image.GetDimension()}D; a segmentation has 3 dimensions and layers.")
    count = image.GetNumberOfComponentsPerPixel()
    array = sitk.GetArrayViewFromImage(image)
    arrays = [array[..., n] for n in range(count)] if count > 1 else [array]
    grid = grid_of(image)
    layers = tuple(Volume(_as_labels(np.array(layer), path.name), grid) for layer in arrays)
    return Segmentation(layers, segments_in(fields, layers=count, name=path.name))


def _from_plain(volume: Volume, path: Path) -> Segmentation:
    labels = _as_labels(volume.array_kji, path.name)
    organ = organ_in_file_name(path)
    values = [label for label, box in enumerate(ndimage.find_objects(labels), start=1) if box]
    if organ and len(values) <= 1:
        return Segmentation.from_masks({organ.name: volume})
    if values == [1]:
        raise UnknownOrgan(
            f"{path.name} holds one mask without a name; name the file after its organ, as in case_01_OAR_Parotid_L."
        )
    return Segmentation.from_labels(volume.with_array(labels))


def _read_masks(folder: Path) -> Segmentation:
    files = [path for path in sorted(folder.iterdir()) if path.name.lower().endswith(_FILE_ENDINGS)]
    organs = [organ.name for path in files if (organ := organ_in_file_name(path))]
    if not organs:
        raise UnreadableFile(f"{folder} holds no mask named after an organ; give files as …_OAR_Parotid_L.seg.nrrd.")
    _refuse_twins(organs, f"in {folder} are both of")
    return Segmentation.from_masks(_masks_in(files))


def _masks_in(files: Iterable[Path]) -> Iterator[tuple[str, Volume]]:
    """Organs, and other structures under their file's name; images and label maps beside them are passed over."""
    for path in files:
        organ = organ_in_file_name(path)
        if organ:
            yield organ.name, read_volume(path)
        elif not _IMAGE_MARK.search(path.name):
            volume = read_volume(path)
            if not ((volume.array_kji != 0) & (volume.array_kji != 1)).any():
                yield _name_in(path), volume


def organ_in_file_name(path: Path) -> Organ | None:
    """The organ that a file is named after: the whole name or what follows ``_OAR_``, without its ending."""
    return _organ(_name_in(path))


def _name_in(path: Path) -> str:
    ending = next((ending for ending in _FILE_ENDINGS if path.name.lower().endswith(ending)), "")
    return path.name[: len(path.name) - len(ending)].rpartition(_HAN_SEG_MARK)[2]


def _organ(name: str) -> Organ | None:
    try:
        return find_organ(name)
    except UnknownOrgan:
        return None


def _named(name: str, *, layer: int, stranger: int) -> Segment:
    organ = _organ(name)
    return (
        segment_of(organ, layer=layer) if organ else other_segment(name, layer=layer, label=len(ORGANS) + 1 + stranger)
    )


def _layer_with_room(layers: Sequence[NDArray[Any]], box: tuple[slice, ...], inside: NDArray[np.bool_]) -> int:
    """The first layer that is empty where the mask is; the number of layers if there is none."""
    return next((n for n, layer in enumerate(layers) if not layer[box][inside].any()), len(layers))


def _box(mask_kji: NDArray[Any]) -> tuple[slice, ...]:
    """Around what is not zero: the slices first, as most of them are empty, then the rest."""
    filled = np.flatnonzero([slice_ji.any() for slice_ji in mask_kji])
    if not len(filled):
        return (slice(0, 0),) * 3
    slices = slice(int(filled[0]), int(filled[-1]) + 1)
    flat = (mask_kji[slices] != 0).any(axis=0)
    spans = [np.flatnonzero(flat.any(axis=axis)) for axis in (1, 0)]
    return (slices, *(slice(int(span[0]), int(span[-1]) + 1) for span in spans))


def _as_labels(array: NDArray[Any], what: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The values as uint8, or uint16 where they need it; ``UnsupportedImage`` for what is no label map."""
    low, high = array.min(), array.max()
    whole = array.dtype.kind in "uib" or (
        np.isfinite(low) and np.isfinite(high) and np.array_equal(array, np.rint(array))
    )
    if not whole or low < 0 or high > np.iinfo(np.uint16).max:
        raise UnsupportedImage(
            f"{what} holds values from {low} to {high}, not whole numbers from 0 to 65535; give labels, not an image."
        )
    return array.astype(np.uint8, copy=False) if high < 256 else array.astype(np.uint16, copy=False)


def _refuse_twins(values: Iterable[object], what: str) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise UnsupportedImage(f"Two segments {what} {value}; rename or remove one of them.")
        seen.add(value)
