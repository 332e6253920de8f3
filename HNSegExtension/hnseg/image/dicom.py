"""DICOM series → volumes: the one that is meant, whole, in LPS, in HU for CT."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from hnseg.errors import DicomSeriesError, UnreadableFile
from hnseg.image.dicom_headers import SeriesInfo, SliceHeader, list_series, read_header
from hnseg.image.dicom_stack import Stack, stack
from hnseg.image.quiet import native_chatter_silenced
from hnseg.image.volume import Volume

__all__ = ["SeriesInfo", "list_series", "read_series"]

Modality = Literal["CT", "MR"]
OnNote = Callable[[str], None]

_MOST_LISTED = 8
_OUTSIDE = {"CT": -1000.0, "MR": 0.0}
_NEARLY_ON_A_SLICE = 0.1  # of the slice distance


def read_series(path: str | Path, *, modality: Modality, on_note: OnNote | None = None) -> Volume:
    """The one CT or MR volume below a folder, or the series to which one DICOM file belongs; CT in HU.

    A series that a gantry tilt sheared, or with uneven slices, is resampled linearly onto an upright grid, which
    ``on_note`` is told in a sentence. The patient's position (head or feet first, supine, prone, on a side) needs no
    care: it is in the slices' own axes. Raises ``DicomSeriesError`` when no series or several fit, when slices are
    missing, doubled or mixed, or when the images are no slices at all; ``UnreadableFile`` when one cannot be decoded.
    """
    path = Path(path)
    series = _pick(path, modality) if path.is_dir() else _series_of_file(path, modality)
    slices = stack(series)
    volume = _read(slices, outside=_OUTSIDE[modality])
    for note in _notes(series, slices, volume):
        if on_note is not None:
            on_note(note)
    return volume


def _pick(folder: Path, modality: Modality) -> SeriesInfo:
    everything = list_series(folder)
    fitting = [series for series in everything if series.modality == modality and not series.unfit]
    if len(fitting) == 1:
        return fitting[0]
    listed = _listed(fitting or everything)
    if fitting:
        raise DicomSeriesError(
            f"{folder} holds {len(fitting)} {modality} series: {listed}. Give one file of the series that is meant."
        )
    raise DicomSeriesError(
        f"{folder} holds no {modality} series that is a volume, only {listed}. Give the folder with the {modality}."
    )


def _listed(series: Sequence[SeriesInfo]) -> str:
    """The series in words: all of a patient's, the first of an archive's."""
    more = len(series) - _MOST_LISTED
    return "; ".join([*map(str, series[:_MOST_LISTED]), *([f"and {more} more"] if more > 0 else [])])


def _series_of_file(path: Path, modality: Modality) -> SeriesInfo:
    header = read_header(path)
    if header is None:
        raise DicomSeriesError(f"{path.name} is DICOM but no image; give a slice of the {modality}.")
    series = next(series for series in list_series(path.parent) if series.uid == header.series_uid)
    if series.modality != modality or series.unfit:
        raise DicomSeriesError(f"{path.name} belongs to {series}, not to a {modality} volume; give a slice of one.")
    return series


def _notes(series: SeriesInfo, slices: Stack, volume: Volume) -> list[str]:
    notes = []
    if not slices.is_upright:
        notes.append(
            f"{series} was sheared by a gantry tilt of {slices.tilt_degrees:.1f}°; it was resampled to an upright grid."
        )
    if not slices.is_even:
        distances = np.diff(slices.offset_mm[:, 2])
        notes.append(
            f"{series} has slices {distances.min():.2f} to {distances.max():.2f} mm apart; "
            f"it was resampled to {volume.grid.spacing_mm[2]:.2f} mm."
        )
    first = slices.slices[0]
    if first.modality == "CT" and "DERIVED" in first.image_type:
        kind = "\\".join(first.image_type)
        notes.append(f"{series} was computed from other images ({kind}), so its values may not be HU.")
    if first.modality == "CT" and first.rescale_type not in ("", "HU", "US"):
        notes.append(f"{series} declares its values to be {first.rescale_type}, not HU.")
    return notes


def _read(slices: Stack, *, outside: float) -> Volume:
    images = [_read_slice(header) for header in slices.slices]
    dtype = _narrowest(np.result_type(*images), images)
    grid = slices.grid
    if slices.is_upright and slices.is_even:
        return Volume(np.stack([image.astype(dtype, copy=False) for image in images]), grid)
    array = np.empty(grid.shape_kji, dtype=dtype)
    for k in range(len(array)):
        blended = _at(k * slices.step_mm, slices, images, outside)
        array[k] = np.rint(blended) if np.issubdtype(dtype, np.integer) else blended
    return Volume(array, grid)


def _read_slice(header: SliceHeader) -> NDArray[Any]:
    """The stored values with the slice's own rescale slope and intercept applied (rows, columns)."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(header.path))
    try:
        with native_chatter_silenced():
            image = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError:
        raise UnreadableFile(
            f"The pixels of {header.path.name} cannot be decoded; export the series again, uncompressed."
        ) from None
    plane = image.reshape(image.shape[-2:]) if image.size == math.prod(header.size_rows_columns) else None
    if plane is None or plane.shape != header.size_rows_columns:
        raise UnreadableFile(f"The pixels of {header.path.name} do not fit its header; export the series again.")
    return np.asarray(plane)


def _narrowest(dtype: np.dtype[Any], images: Sequence[NDArray[Any]]) -> np.dtype[Any]:
    """int16 where the whole numbers fit, as CT and MR do; float32 for fractions."""
    if dtype.kind == "f":
        return np.dtype(np.float32)
    bounds = np.iinfo(np.int16)
    fits = all(bounds.min <= image.min() and image.max() <= bounds.max for image in images)
    return np.dtype(np.int16) if fits else np.dtype(np.int32)


def _at(along_mm: float, slices: Stack, images: Sequence[NDArray[Any]], outside: float) -> NDArray[np.float64]:
    """The plane that far along the normal: a slice put upright, or a blend of the two around it."""
    index = float(np.interp(along_mm, slices.offset_mm[:, 2], np.arange(len(images))))
    nearest = round(index)
    if abs(index - nearest) <= _NEARLY_ON_A_SLICE:
        return _upright(nearest, slices, images, outside)
    below = math.floor(index)
    weight = index - below
    planes = (_upright(n, slices, images, outside) for n in (below, below + 1))
    return next(planes) * (1 - weight) + next(planes) * weight


def _upright(n: int, slices: Stack, images: Sequence[NDArray[Any]], outside: float) -> NDArray[np.float64]:
    """Slice ``n`` moved within its plane to where it lies in the grid, linearly."""
    grid = slices.grid
    plane = sitk.GetImageFromArray(images[n].astype(np.float64))
    plane.SetSpacing(grid.spacing_mm[:2])
    origin = (np.array(slices.slices[0].position_lps) - grid.origin_lps) @ slices.axes[:, :2]
    shift = np.zeros(2) if slices.is_upright else slices.offset_mm[n, :2]
    plane.SetOrigin(tuple(origin + shift))
    moved = sitk.Resample(
        plane, grid.size_ijk[:2], sitk.Transform(2, sitk.sitkIdentity), sitk.sitkLinear, (0.0, 0.0),
        grid.spacing_mm[:2], (1.0, 0.0, 0.0, 1.0), outside,
    )  # fmt: skip
    return np.asarray(sitk.GetArrayFromImage(moved))
