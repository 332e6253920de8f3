"""DICOM series: found, judged and read into LPS volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import SimpleITK as sitk

from hnseg.errors import DicomSeriesError
from hnseg.image.itk import from_sitk
from hnseg.image.volume import Volume


def read_series(folder: str | Path, *, modality: Literal["CT", "MR"]) -> Volume:
    """The folder's one series of that modality."""
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    if not names:
        raise DicomSeriesError(f"{folder} holds no {modality} series; give the folder with its DICOM files.")
    return from_sitk(sitk.ReadImage(names))
