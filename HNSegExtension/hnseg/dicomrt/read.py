"""RTSTRUCT → segmentation on a grid, as a rule the series'."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from hnseg.dicomrt.rasterise import rasterise
from hnseg.dicomrt.rois import StructureSet, read_rois
from hnseg.dicomrt.series import Series, open_series
from hnseg.errors import GeometryMismatch, InputError
from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segmentation
from hnseg.image.volume import Volume


@dataclass(frozen=True, slots=True)
class ReadStructures:
    """The segmentation, and in sentences what could not be taken literally; ``drawn_elsewhere`` are those of the
    warnings that leave a doubt whether the structures were drawn on these images.
    """

    segmentation: Segmentation
    warnings: tuple[str, ...]
    drawn_elsewhere: tuple[str, ...] = ()


def read_structure_set(path: str | Path, grid: Grid, *, series: Series | None = None) -> ReadStructures:
    """Every region of an RTSTRUCT as a segment on the grid; regions that hold nothing there stay, empty, and are named.

    With ``series``, the frame of reference must be the series' (``GeometryMismatch`` otherwise), and contours that
    refer to images outside it are counted: they are placed by their coordinates all the same. Without it, only
    coordinates count. Raises ``UnreadableFile``; ``InputError`` if there is no region at all.
    """
    return _fill(read_rois(path), Path(path).name, grid, series)


def read_on_series(path: str | Path, folder: str | Path) -> ReadStructures:
    """``read_structure_set`` on the series below the folder that the file refers to, else the only one there."""
    structures = read_rois(path)
    series = open_series(folder, preferred=structures.series_uids)
    return _fill(structures, Path(path).name, series.grid, series)


def _fill(structures: StructureSet, name: str, grid: Grid, series: Series | None) -> ReadStructures:
    if not structures.rois:
        raise InputError(f"{name} holds no structure; export it again.")
    elsewhere: tuple[str, ...] = ()
    if series is not None:
        elsewhere = (*_frame_warnings(structures, series, name), *_dangling(structures, series))
    warnings = [*structures.warnings, *elsewhere]
    segmentation = Segmentation.from_masks(_masks(structures, grid, warnings))
    return ReadStructures(_marked(segmentation, structures), tuple(warnings), elsewhere)


def _masks(structures: StructureSet, grid: Grid, warnings: list[str]) -> Iterable[tuple[str, Volume]]:
    """Each region's mask in turn; what is to be said about it goes to ``warnings``."""
    for roi in structures.rois:
        result = rasterise(roi.contours, grid)
        warnings.extend(f"{roi.name}: {remark}." for remark in result.remarks)
        if roi.contours and not result.mask_kji.any():
            warnings.append(f"{roi.name} has no voxel in the image.")
        yield roi.name, Volume(result.mask_kji, grid)


def _marked(segmentation: Segmentation, structures: StructureSet) -> Segmentation:
    """Each segment with the name, colour and tags that the file gives it."""
    segments = tuple(
        replace(segment, rgb=roi.rgb, tags={**segment.tags, **roi.tags})
        for segment, roi in zip(segmentation.segments, structures.rois, strict=True)
    )
    return replace(segmentation, segments=segments)


def _frame_warnings(structures: StructureSet, series: Series, name: str) -> Iterable[str]:
    """Refuse another frame of reference, unless the file refers to this very series, as some writers invent one."""
    frames = structures.frame_of_reference_uids
    if not frames or series.frame_of_reference_uid in frames:
        return
    if series.series_uid not in structures.series_uids:
        raise GeometryMismatch(
            f"{name} was drawn in another frame of reference than this series'; give the series that it was drawn on."
        )
    yield f"{name} names another frame of reference but refers to this series; it was taken as drawn on it."


def _dangling(structures: StructureSet, series: Series) -> Iterable[str]:
    known = {part.sop_instance_uid for part in series.slices}
    referring = [contour.image_uid for roi in structures.rois for contour in roi.contours if contour.image_uid]
    missing = sum(uid not in known for uid in referring)
    if missing:
        yield (
            f"{missing} of {len(referring)} contours refer to images that are not in this series; "
            "they were placed by their coordinates."
        )
    if structures.series_uids and series.series_uid not in structures.series_uids:
        yield "The structures were drawn on another series in the same frame of reference."
