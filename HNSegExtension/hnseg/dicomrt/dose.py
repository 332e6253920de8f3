"""RTDOSE → a volume in Gy. DICOM PS3.3 C.8.8.3."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from hnseg.dicomrt.files import read_object, tolerant
from hnseg.errors import HNSegError, UnreadableFile, UnsupportedImage
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume


def read_dose(path: str | Path) -> Volume:
    """The dose grid in Gy, float32, in LPS.

    Raises ``UnreadableFile`` for what is broken or no RTDOSE; ``UnsupportedImage`` for a relative dose, a dose without
    a grid (points only), or uneven planes.
    """
    path = Path(path)
    dataset = read_object(path, kind="RTDOSE")
    try:
        with tolerant():
            return _volume(dataset, path.name)
    except HNSegError:
        raise
    except Exception as error:
        raise UnreadableFile(
            f"{path.name} holds a dose that cannot be read ({type(error).__name__}); export it again."
        ) from error


def _volume(dataset: Dataset, name: str) -> Volume:
    planes = int(dataset.get("NumberOfFrames") or 1)
    if "PixelData" not in dataset or (planes > 1 and "GridFrameOffsetVector" not in dataset):
        raise UnsupportedImage(f"{name} has no dose grid; export the dose as a 3D grid.")
    if str(dataset.get("DoseUnits", "GY")) != "GY":
        raise UnsupportedImage(f"{name} holds dose in {dataset.DoseUnits}, not GY; export the absolute dose.")
    array = np.asarray(dataset.pixel_array, dtype=np.float64) * float(dataset.DoseGridScaling)
    array = array.reshape(-1, dataset.Rows, dataset.Columns).astype(np.float32)
    heights = _heights(dataset, name)
    order = np.argsort(heights)
    return Volume(array[order], _grid(dataset, heights[order]))


def _heights(dataset: Dataset, name: str) -> NDArray[np.float64]:
    """Each plane's distance (mm) from the first, along the normal; a file may give offsets or absolute z."""
    offsets = np.array(dataset.get("GridFrameOffsetVector", [0.0]), dtype=np.float64).reshape(-1)
    steps = np.diff(np.sort(offsets))
    if len(offsets) > 1 and (steps.min() <= 0 or np.ptp(steps) > 0.01 * steps.max()):
        raise UnsupportedImage(f"{name} has unevenly spaced dose planes; export the dose on an even grid.")
    return np.asarray(offsets - offsets[0])


def _grid(dataset: Dataset, heights_mm: NDArray[np.float64]) -> Grid:
    row, column = np.reshape(np.asarray(dataset.ImageOrientationPatient, dtype=np.float64), (2, 3))
    normal = np.cross(row, column)
    row_mm, column_mm = (float(value) for value in dataset.PixelSpacing)
    step = float(np.diff(heights_mm).mean()) if len(heights_mm) > 1 else float(dataset.get("SliceThickness") or 1.0)
    x, y, z = (np.asarray(dataset.ImagePositionPatient, dtype=np.float64) + heights_mm[0] * normal).tolist()
    axes = np.column_stack([row, column, normal])
    size = (int(dataset.Columns), int(dataset.Rows), len(heights_mm))
    return Grid(size, (column_mm, row_mm, step), (x, y, z), tuple(axes.ravel()))
