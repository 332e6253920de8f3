"""The slow change of an MR's brightness across the coil, found by N4 and taken out; and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from hnseg.curation.intensity import tissue_threshold
from hnseg.errors import ConfigError
from hnseg.image.grid import Grid
from hnseg.image.itk import from_sitk, to_sitk
from hnseg.image.padding import WHOLLY
from hnseg.image.resample import resample
from hnseg.image.volume import Volume


@dataclass(frozen=True, slots=True)
class N4Settings:
    """N4 (Tustison et al. 2010) on voxels of about ``working_mm``, ``levels`` times ``iterations``."""

    working_mm: float = 8.0
    levels: int = 3
    iterations: int = 25
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if not (self.working_mm > 0 and self.levels >= 1 and self.iterations >= 1):
            raise ConfigError(f"N4 needs a working size above 0 and at least one level and iteration, got {self}.")


@dataclass(frozen=True, slots=True, eq=False)
class BiasField:
    """``log_field``: the natural logarithm of the MR's gain, coarse and smooth, around the MR's whole grid."""

    log_field: Volume
    settings: N4Settings = N4Settings()

    name: ClassVar[str] = "n4"

    def apply(self, mr: Volume) -> Volume:
        """The MR without the gain, float32, on its own grid."""
        return mr.with_array(mr.array_kji * np.exp(-self._on(mr.grid)))

    def invert(self, mr: Volume) -> Volume:
        """The MR with the gain again, float32."""
        return mr.with_array(mr.array_kji * np.exp(self._on(mr.grid)))

    def _on(self, grid: Grid) -> NDArray[np.float32]:
        return np.asarray(resample(self.log_field, grid).array_kji, np.float32)


def fit_bias(mr: Volume, settings: N4Settings | None = None, *, seen: NDArray[np.bool_] | None = None) -> BiasField:
    """Find the gain of an MR from its tissue. The same input gives the same field, on any number of cores.

    ``seen``: the MR's voxels that were measured; None for all.
    """
    settings = settings or N4Settings()
    image = _shrunk(mr, settings.working_mm)
    values = sitk.GetArrayViewFromImage(image)
    inside = np.ones(values.shape, dtype=bool)
    if seen is not None:
        inside = sitk.GetArrayFromImage(_shrunk(mr.with_array(seen), settings.working_mm)) > WHOLLY
    mask = sitk.GetImageFromArray((inside & (values > tissue_threshold(values[inside]))).astype(np.uint8))
    mask.CopyInformation(image)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([settings.iterations] * settings.levels)
    n4.SetConvergenceThreshold(settings.tolerance)
    with _one_thread():
        n4.Execute(image, mask)
        field = n4.GetLogBiasFieldAsImage(image)
    return BiasField(_with_rim(from_sitk(field)), settings)


@contextmanager
def _one_thread() -> Iterator[None]:
    """N4 adds up what its threads found, so their number changes the last digits; its inner filters heed this alone."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _shrunk(mr: Volume, working_mm: float) -> sitk.Image:
    factors = [max(1, int(working_mm / mm)) for mm in mr.grid.spacing_mm]
    factors = [min(factor, size // 4 or 1) for factor, size in zip(factors, mr.grid.size_ijk, strict=True)]
    return sitk.BinShrink(to_sitk(mr.with_array(np.maximum(mr.array_kji, 0).astype(np.float32))), factors)


def _with_rim(field: Volume) -> Volume:
    """A voxel more on every side, so that the MR's own rim lies inside."""
    i, j, k = field.grid.size_ijk
    return Volume(np.pad(field.array_kji, 1, mode="edge"), field.grid.cropped((-1, -1, -1), (i + 2, j + 2, k + 2)))
