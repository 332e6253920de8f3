"""The skull and what it holds: the part of the head that moves as one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.registration.images import Prepared
from hnseg.registration.information import smooth

SOFT_HU = (-20.0, 100.0)
BONE_HU = 200.0
DEPTH_MM = 18.0
"""Soft tissue that far from bone, fat and air in every direction is brain, or the thick of a shoulder."""
SHELL_MM = 10.0
"""From the brain's surface to the outer table and the skull base."""
_ENCLOSED = 0.3
"""Share of bone in the shell, from which on it is a skull and no shoulder."""
_SMALLEST_ML = 50.0


def skull(ct: Prepared) -> NDArray[np.bool_]:
    """Where the CT (HU, 3…5 mm) shows brain and skull, (nk, nj, ni); nowhere where no brain is found."""
    values = smooth(ct.values.array_kji, ct.grid.spacing_mm, 2.0)
    spacing = ct.grid.spacing_mm[::-1]
    soft = (values > SOFT_HU[0]) & (values < SOFT_HU[1])
    parts, _ = ndimage.label(ndimage.distance_transform_edt(soft, sampling=spacing) > DEPTH_MM)
    sizes_ml = np.bincount(parts.ravel())[1:] * ct.grid.voxel_ml
    for n in np.argsort(-sizes_ml)[: np.count_nonzero(sizes_ml >= _SMALLEST_ML)]:
        away = np.asarray(ndimage.distance_transform_edt(parts != n + 1, sampling=spacing))
        shell = (away > DEPTH_MM) & (away <= DEPTH_MM + SHELL_MM)
        if shell.any() and (values[shell] > BONE_HU).mean() > _ENCLOSED:
            return np.asarray(away <= DEPTH_MM + SHELL_MM)
    return np.zeros(values.shape, dtype=bool)
