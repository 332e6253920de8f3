"""The MR of a case: corrected, scaled, and at the voxels of the case's grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from hnseg.curation.alignment import mr_on
from hnseg.curation.bias import BiasField, fit_bias
from hnseg.curation.intensity import Linear, Scale, Values, ZScore, landmarks_of, match_to_ct, percentile_range
from hnseg.curation.settings import CurationSettings, MrScaling
from hnseg.image.grid import Grid
from hnseg.image.padding import measured
from hnseg.image.volume import Volume


@dataclass(frozen=True, slots=True)
class MrScales:
    """Every named scale, fitted on one patient. ``landmarks``: the tissue's percentiles, which Nyúl's method maps."""

    z_score: ZScore
    percentiles: Linear
    match_ct: Linear
    landmarks: tuple[float, ...]

    @classmethod
    def fit(cls, mr: Values, ct_hu: Values) -> MrScales:
        """From the MR's own voxels and a sample of the CT's. ``UnsupportedImage`` where one shows no contrast."""
        return cls(ZScore.fit(mr), percentile_range(mr), match_to_ct(mr, ct_hu), landmarks_of(mr))

    def named(self, name: MrScaling) -> Scale | None:
        """The scale; None for the scanner's own, and for what only a cohort can fit."""
        known: dict[str, Scale] = {
            "z-score": self.z_score,
            "percentiles": self.percentiles,
            "match-ct": self.match_ct,
        }
        return known.get(name)


@dataclass(frozen=True, slots=True)
class MrRecord:
    """``scale``: that of ``mr.nrrd``. ``bias_corrected``: N4's field is in ``mr_log_bias.nrrd``.

    ``coverage``: share of the case's grid where the MR is valid. ``grid`` is the MR's own.
    """

    scale: str
    bias_corrected: bool
    scales: MrScales
    grid: Grid
    coverage: float


@dataclass(frozen=True, slots=True, eq=False)
class MrOnGrid:
    """The MR at the case's voxels; ``valid`` where its field of view reaches, 0 where it does not or holds padding."""

    image: Volume
    valid: NDArray[np.bool_]
    bias: BiasField | None
    record: MrRecord


def place_mr(mr: Volume, transform: sitk.Transform, ct_hu: Values, grid: Grid, settings: CurationSettings) -> MrOnGrid:
    """Correct, fit, scale, resample. On the scanner's scale, whole numbers stay whole; others are float32.

    Everything is fitted on the MR's own voxels, before it is resampled, and without its padding: nothing outside its
    field of view can enter.
    """
    seen = measured(mr)
    bias = fit_bias(mr, settings.n4, seen=seen) if settings.n4 else None
    corrected = bias.apply(mr) if bias else mr
    scales = MrScales.fit(corrected.array_kji[seen], ct_hu)
    scale = scales.named(settings.mr_scale)
    scaled = scale.apply(corrected.array_kji) if scale else corrected.array_kji
    image, valid = mr_on(mr.with_array(scaled), grid, transform, seen=seen)
    if scale is None and mr.array_kji.dtype.kind in "iu":
        image = image.with_array(_whole(image.array_kji, mr.array_kji.dtype))
    coverage = round(float(valid.mean()), 4)
    name = settings.mr_scale if scale else "scanner"
    return MrOnGrid(image, valid, bias, MrRecord(name, bias is not None, scales, mr.grid, coverage))


def _whole(values: NDArray[np.float32], own: np.dtype[Any]) -> NDArray[Any]:
    """Rounded, in the MR's ``own`` type where that holds them: N4 may lift some over its end. float32 if none does."""
    rounded = np.rint(values)
    low, high = float(rounded.min()), float(rounded.max())
    for kind in (own, np.dtype(np.int16), np.dtype(np.int32)):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return rounded.astype(kind)
    return rounded
