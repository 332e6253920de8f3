"""Whether an image can be what its role asks for, judged by its values and its grid before anything long begins.

Thresholds were set on head-and-neck CTs and MRs of several scanners; they ask "can this be it?", not "is it good?".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnseg.errors import UnsupportedImage, WrongModality
from hnseg.image.volume import Volume

FEWEST_SLICES = 8

_SAMPLE = 2_000_000
_AIR_HU = (-1100.0, -700.0)
_SOFT_HU = (-200.0, 200.0)
_LEAST_AIR = 1e-3  # of all voxels above air's lower end: the airways alone are more
_LEAST_SOFT = 0.1  # of all voxels above air's upper end
_GAP_HU = (-700.0, -250.0)  # between air and fat, where a CT has partial volumes only
_MOST_GAP = 0.3  # of what is soft; an MR has tissue there when it is taken for a CT with an offset
_BONE_HU = 250.0
_MOST_LABELS = 40
_SHORT_CT_MM, _SHORT_MR_MM = 100.0, 50.0
_LEAST_MM, _MOST_MM = 20.0, 3000.0  # of the longest side: less is no patient, more is taller than one
_COARSE_MM = 4.5


def check_ct(volume: Volume) -> tuple[str, ...]:
    """Warnings about a CT in HU; none if all is well.

    Raises ``UnsupportedImage`` for what is no image at all (constant, NaN, a label map, fewer than 8 slices) and
    ``WrongModality`` where air does not read about −1000 and soft tissue about 0.
    """
    _refuse_unusable(volume, "CT")
    sample = _sample(volume.array_kji)
    if not _reads_as_hu(sample):
        raise WrongModality(_why_not_hu(sample))
    return (*_ct_warnings(sample), *_grid_warnings(volume, "CT", _SHORT_CT_MM))


def check_mr(volume: Volume) -> tuple[str, ...]:
    """Warnings about an MR; none if all is well. Raises like ``check_ct``: ``WrongModality`` where it reads as HU."""
    _refuse_unusable(volume, "MR")
    if _reads_as_hu(_sample(volume.array_kji)):
        raise WrongModality("The MR looks like a CT: air reads about −1000; give the CT as --ct and the MR as --mr.")
    return _grid_warnings(volume, "MR", _SHORT_MR_MM)


def check_pair(ct: Volume, mr: Volume | None) -> tuple[str, ...]:
    """``check_ct`` and, with an MR, ``check_mr``; one sentence of its own where the two were swapped."""
    if mr is not None and not looks_like_ct(ct) and looks_like_ct(mr):
        raise WrongModality("The CT looks like an MR, and the MR like a CT; swap --ct and --mr.")
    return (*check_ct(ct), *(check_mr(mr) if mr is not None else ()))


def looks_like_ct(volume: Volume) -> bool:
    """Whether the values read as HU: some air near −1000, and much of the rest near 0."""
    return _reads_as_hu(_sample(volume.array_kji))


def _refuse_unusable(volume: Volume, role: str) -> None:
    array = volume.array_kji
    if array.dtype.kind not in "iuf":
        raise UnsupportedImage(f"The {role} holds {array.dtype} values; give an image with numbers.")
    if min(array.shape) < FEWEST_SLICES:
        raise UnsupportedImage(
            f"The {role} has only {min(array.shape)} slices along one axis, of at least {FEWEST_SLICES}; "
            "give the whole volume."
        )
    longest = max(n * mm for n, mm in zip(volume.grid.size_ijk, volume.grid.spacing_mm, strict=True))
    if not _LEAST_MM <= longest <= _MOST_MM:
        raise UnsupportedImage(
            f"The {role} is {longest:.5g} mm long, with voxels of {max(volume.grid.spacing_mm):.3g} mm: its spacing "
            "must be wrong; correct it in the file."
        )
    # One sum finds any NaN or infinity without an array of its own.
    if array.dtype.kind == "f" and not math.isfinite(float(array.sum(dtype=np.float64))):
        count = int(array.size - np.count_nonzero(np.isfinite(array)))
        raise UnsupportedImage(f"The {role} holds {count} NaN or infinite voxels; replace them and try again.")
    low, high = array.min(), array.max()
    if low == high:
        raise UnsupportedImage(f"The {role} is {low} everywhere, so it shows nothing; give another image.")
    if array.dtype.kind != "f" and high <= _MOST_LABELS and low >= 0:
        raise UnsupportedImage(f"The {role} holds only values from {low} to {high}, as label maps do; give the image.")


def _sample(array_kji: NDArray[Any]) -> NDArray[np.float32]:
    """A regular sample of the voxels, flat; all of them where there are few."""
    step = max(1, math.ceil((array_kji.size / _SAMPLE) ** (1 / 3)))
    return array_kji[::step, ::step, ::step].astype(np.float32).ravel()


def _count(sample: NDArray[np.float32], low: float, high: float) -> int:
    return int(np.count_nonzero((sample >= low) & (sample <= high)))


def _reads_as_hu(sample: NDArray[np.float32]) -> bool:
    lowest_air, highest_air = _AIR_HU
    scanned, dense = sample[sample >= lowest_air], sample[sample > highest_air]  # below it is padding
    if not scanned.size or not dense.size:
        return False
    return (
        _count(scanned, *_AIR_HU) >= _LEAST_AIR * scanned.size and _count(dense, *_SOFT_HU) >= _LEAST_SOFT * dense.size
    )


def _has_gap(sample: NDArray[np.float32]) -> bool:
    return _count(sample, *_GAP_HU) <= _MOST_GAP * _count(sample, *_SOFT_HU)


def _why_not_hu(sample: NDArray[np.float32]) -> str:
    low, high = (float(value) for value in np.percentile(sample, (0.5, 99.9)))
    values = f"its values run from {low:.4g} to {high:.4g}"
    if high - low <= 20:
        return f"The CT is not in HU but normalised: {values}; give it as it came from the scanner."
    if low >= 0 and high <= 255:
        return f"The CT is not in HU but in grey levels: {values}; export it with its rescale slope and intercept."
    if any(_reads_as_hu(shifted) and _has_gap(shifted) for shifted in (sample - 1000, sample - 1024)):
        return f"The CT is not in HU but lacks its rescale intercept: {values}; add it (usually −1024) and try again."
    if low < _AIR_HU[0] / 10:
        return f"The CT is not in HU: {values}, yet air is not near −1000 with tissue near 0; check its rescale values."
    return f"The CT is not in HU but looks like an MR: {values}; give a CT in HU as --ct and the MR as --mr."


def _ct_warnings(sample: NDArray[np.float32]) -> tuple[str, ...]:
    if np.count_nonzero(sample > _BONE_HU) < 1e-4 * sample.size:
        return (
            f"The CT shows no bone: hardly a voxel is above {_BONE_HU:.0f} HU, so its values may have been clipped.",
        )
    return ()


def _grid_warnings(volume: Volume, role: str, short_mm: float) -> tuple[str, ...]:
    low, high = volume.grid.bounds_lps()
    length, widest = float(high[2] - low[2]), max(volume.grid.spacing_mm)
    found = []
    if length < short_mm:
        found.append(f"The {role} covers only {length:.0f} mm from head to foot: organs outside it cannot be found.")
    if widest > _COARSE_MM and role == "CT":
        found.append(f"The CT's voxels are up to {widest:.1f} mm wide: small organs will be coarse or missed.")
    return tuple(found)
