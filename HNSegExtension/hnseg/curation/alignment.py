"""The MR on the CT: which engine finds the pose, whether it may be used, and the MR's values there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from hnseg.curation.settings import Alignment
from hnseg.image.grid import Grid
from hnseg.image.padding import WHOLLY
from hnseg.image.resample import resample
from hnseg.image.volume import Volume
from hnseg.plain import to_plain
from hnseg.registration import DeformableRegistration, Registration, Verdict, register_deformable, register_rigid

OnProgress = Callable[[float, str], None]
Overruled = Literal["accepted", "rejected"]
_OUTSIDE = float(np.finfo(np.float32).min)


@dataclass(frozen=True, slots=True)
class AlignmentRecord:
    """``used``: whether the case has the MR. ``overruled`` is a person's word against the verdict."""

    method: str
    verdict: Verdict
    reason: str
    used: bool
    overruled: Overruled | None
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """The transform (CT points → MR points, LPS mm) and what is known of it."""

    transform: sitk.Transform
    record: AlignmentRecord


def align(
    ct: Volume, mr: Volume, method: Alignment, *, overruled: Overruled | None = None, on_progress: OnProgress
) -> Aligned:
    """Register and judge. Without a registration, CT and MR are taken to share one frame, which nobody checked."""
    if method == "none":
        reason = "Not registered: CT and MR were taken to share one frame."
        used = overruled != "rejected"
        return Aligned(sitk.Euler3DTransform(), AlignmentRecord("none", "doubtful", reason, used, overruled, {}))
    found = _ENGINES[method](ct, mr, on_progress=on_progress)
    used = overruled == "accepted" or (found.verdict != "failed" and overruled != "rejected")
    metrics, reason = to_plain(found.metrics), found.reason
    if isinstance(found, DeformableRegistration):
        bending = found.bending
        metrics |= {f"bending_{name}": getattr(bending, name) for name in ("gain", "largest_mm", "smallest_jacobian")}
        reason += f" {bending.reason}" if bending.used else f" It stays rigid. {bending.reason}"
    rounded = {name: round(float(value), 6) for name, value in metrics.items()}
    record = AlignmentRecord(method, found.verdict, reason, used, overruled, rounded)
    return Aligned(found.transform, record)


def mr_on(
    mr: Volume, grid: Grid, transform: sitk.Transform, *, seen: NDArray[np.bool_] | None = None
) -> tuple[Volume, NDArray[np.bool_]]:
    """The MR (float32, linear) at the voxels of a grid of the CT's space, and where its field of view reaches.

    ``seen``: the MR's voxels that were measured; None for all. Elsewhere the values are 0 and mean nothing.
    """
    array = mr.array_kji.astype(np.float32)
    if seen is not None:
        array[~seen] = 0
    values = resample(mr.with_array(array), grid, fill=_OUTSIDE, transform=transform).array_kji
    valid = values > _OUTSIDE
    if seen is not None and not seen.all():
        share = resample(mr.with_array(seen.astype(np.float32)), grid, transform=transform).array_kji
        valid &= share > WHOLLY
    values[~valid] = 0
    return Volume(values, grid), valid


class _Engine(Protocol):
    def __call__(self, ct: Volume, mr: Volume, *, on_progress: OnProgress | None = None) -> Registration: ...


_ENGINES: Mapping[str, _Engine] = {"rigid": register_rigid, "deformable": register_deformable}
