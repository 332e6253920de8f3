"""Windows over the working grid: where they lie, and how much each of their voxels counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hnseg.errors import ConfigError

_SIGMA_PER_PATCH = 1 / 8
"""Width of the Gaussian importance map, as in nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z)."""


@dataclass(frozen=True, slots=True)
class TileSettings:
    """How the working grid is cut into windows.

    ``patch_kji``: size of a window in voxels. ``overlap``: least shared part of two neighbours, 0 ≤ overlap < 1.
    ``padding``: value per channel of what lies beyond the image; empty means 0. ``skip_outside_body``: windows that
    hold no body voxel are background without asking the network. ``blend_logits``: windows are averaged before the
    softmax, as nnU-Net does, not after it. ``batch``: windows per network call; 0 lets the
    device choose.
    """

    patch_kji: tuple[int, int, int]
    overlap: float = 0.5
    padding: tuple[float, ...] = ()
    skip_outside_body: bool = True
    blend_logits: bool = False
    batch: int = 0

    def __post_init__(self) -> None:
        if len(self.patch_kji) != 3 or min(self.patch_kji) < 1:
            raise ConfigError(f"patch_kji needs three positive numbers, got {self.patch_kji}; correct the settings.")
        if not 0.0 <= self.overlap < 1.0:
            raise ConfigError(f"overlap lies in 0 … 1 (1 excluded), got {self.overlap}; 0.5 is usual.")
        if self.batch < 0:
            raise ConfigError(f"batch is at least 1, or 0 for the device's own choice, got {self.batch}.")


def window_starts(size: int, patch: int, overlap: float) -> tuple[int, ...]:
    """First voxel of each window along one axis: evenly spread, the whole axis covered, neighbours share ``overlap``
    to within a voxel of rounding.

    An axis that is not longer than the patch has one window at 0.
    """
    if size <= patch:
        return (0,)
    steps = math.ceil((size - patch) / max(patch * (1.0 - overlap), 1.0) - 1e-9)
    return tuple(round(n * (size - patch) / steps) for n in range(steps + 1))


@dataclass(frozen=True, slots=True)
class WindowRow:
    """The windows that begin at slice ``k``, as (j, i) starts."""

    k: int
    starts_ji: tuple[tuple[int, int], ...]


def window_rows(
    shape_kji: Sequence[int], settings: TileSettings, body_kji: NDArray[np.bool_] | None = None
) -> tuple[WindowRow, ...]:
    """All windows, in rows along k so that slabs finish in order. A row may be empty where there is no body.

    With ``body_kji`` (bool, ``shape_kji``) and ``skip_outside_body``, windows without body are left out.
    """
    starts = [window_starts(n, p, settings.overlap) for n, p in zip(shape_kji, settings.patch_kji, strict=True)]
    pk, pj, pi = settings.patch_kji
    body = body_kji if settings.skip_outside_body else None

    def wanted(k: int, j: int, i: int) -> bool:
        return body is None or bool(body[k : k + pk, j : j + pj, i : i + pi].any())

    return tuple(
        WindowRow(k, tuple((j, i) for j, i in product(starts[1], starts[2]) if wanted(k, j, i))) for k in starts[0]
    )


def importance(patch_kji: Sequence[int], centre_kji: Sequence[float] | None = None) -> NDArray[np.float32]:
    """Weight of each voxel of a window, shape ``patch_kji``, 1 in the middle: a Gaussian, positive everywhere.

    ``centre_kji``: where it is highest; None is the middle, which lies between two voxels of an even patch.
    """
    centre_kji = [(n - 1) / 2 for n in patch_kji] if centre_kji is None else centre_kji
    weight = np.ones((1, 1, 1))
    for axis, n in enumerate(patch_kji):
        offset = (np.arange(n) - centre_kji[axis]) / (n * _SIGMA_PER_PATCH)
        shape = [1, 1, 1]
        shape[axis] = n
        weight = weight * np.exp(-0.5 * offset**2).reshape(shape)
    return np.asarray(weight / weight.max(), dtype=np.float32)
