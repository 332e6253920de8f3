"""CT (+ MR) → network input: the one path that training and prediction share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from hnseg.errors import ConfigError, UnsupportedImage
from hnseg.image.body import body_mask
from hnseg.image.brain import find_brain
from hnseg.image.grid import Grid
from hnseg.image.itk import from_sitk, to_sitk
from hnseg.image.orient import canonical
from hnseg.image.padding import WHOLLY, measured
from hnseg.image.resample import resample
from hnseg.image.volume import Volume

AIR_HU = -1000.0

_HALF = 0.499
"""Half, with half itself safely inside."""
_OUTSIDE_MR = -1e30


@dataclass(frozen=True, slots=True)
class PreprocessSettings:
    """How images become network input; stored in the model bundle, so that training and prediction cannot differ.

    ``ct_windows_hu``: each window is one channel, scaled so that its limits become −1 and 1, clipped there.
    ``mr_clip``: MR z-scores (mean and deviation over the MR's foreground) are clipped to ± this.
    ``margin_mm``: how far the working grid reaches beyond the body. ``below_brain_mm``: how far it reaches below the
    brain, 0 as far as the CT does; of a CT that shows no brain all is taken. ``takes_mr``: false for a network of CT
    alone, which is never shown an MR; its channels stay and are 0.
    """

    spacing_mm: tuple[float, float, float] = (1.5, 1.5, 1.5)
    ct_windows_hu: tuple[tuple[float, float], ...] = ((-160.0, 240.0), (-1000.0, 2000.0))
    mr_clip: float = 3.0
    margin_mm: float = 6.0
    below_brain_mm: float = 0.0
    takes_mr: bool = True

    def __post_init__(self) -> None:
        if len(self.spacing_mm) != 3 or min(self.spacing_mm) <= 0:
            raise ConfigError(f"spacing_mm needs three positive numbers, got {self.spacing_mm}; correct it.")
        if not self.ct_windows_hu or any(high <= low for low, high in self.ct_windows_hu):
            raise ConfigError(f"ct_windows_hu needs (low, high) pairs, got {self.ct_windows_hu}; correct it.")
        if self.below_brain_mm < 0:
            raise ConfigError(f"below_brain_mm must not be negative, got {self.below_brain_mm:g}; 0 crops nothing.")

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, in order."""
        windows = tuple(f"CT [{low:g}, {high:g}] HU" for low, high in self.ct_windows_hu)
        return (*windows, *(("MR T1 z-score", "MR valid") if self.takes_mr else ("empty", "empty")))

    @property
    def padding(self) -> tuple[float, ...]:
        """What lies beyond the image, by channel: air in the CT's windows, no MR."""
        air = np.array([AIR_HU])
        return (*(float(scale_window(air, window)[0]) for window in self.ct_windows_hu), 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class MrScale:
    """Mean and deviation of the MR's tissue: z-score = (signal − mean) / deviation."""

    mean: float
    deviation: float


@dataclass(frozen=True, slots=True, eq=False)
class NetworkInput:
    """Channels × K × J × I float32 on ``grid``, with the body on the same grid (bool).

    ``mr_scale``: how the MR was normalised; None where it shows nothing of the body. ``nearest_axis``: the axis
    (k, j, i) along which labels are taken from the nearest slice, not interpolated, on the way to the CT grid.
    ``mr_measured``: the MR's own voxels without its padding; None if nobody looked.
    """

    array_ckji: NDArray[np.float32]
    grid: Grid
    body_kji: NDArray[np.bool_] = field(repr=False)
    mr_scale: MrScale | None = None
    nearest_axis: int | None = None
    mr_measured: NDArray[np.bool_] | None = field(default=None, repr=False)


def preprocess(
    ct: Volume, mr: Volume | None = None, ct_to_mr: sitk.Transform | None = None, *, settings: PreprocessSettings
) -> NetworkInput:
    """Put CT and MR on the working grid and normalise them.

    The working grid runs along the CT's own axes, turned to be nearest to +x, +y, +z of LPS, and covers the body.
    ``ct_to_mr`` maps CT points to MR points (LPS mm); None means that the two share one frame. Without an MR, for a
    network that takes none, and outside its field of view, the last two channels are 0: nothing outside the MR is ever
    normalised.
    """
    body = body_mask(ct)
    mr = mr if settings.takes_mr else None
    seen = None if mr is None else measured(mr)
    return _network_input(ct, mr, ct_to_mr, body, working_grid(ct, body, settings), settings, seen=seen)


def preprocess_part(
    ct: Volume,
    mr: Volume | None = None,
    ct_to_mr: sitk.Transform | None = None,
    *,
    grid: Grid,
    settings: PreprocessSettings,
    whole: NetworkInput,
) -> NetworkInput:
    """As ``preprocess``, on a given ``grid`` that covers a part of the patient.

    ``whole``: the whole patient's input, at any spacing. Its body is used, what it found of the MR's padding, and its
    MR scale: a part's own would change with what it happens to show.
    """
    scale = whole.mr_scale
    body = Volume(whole.body_kji, whole.grid)
    mr = mr if scale and settings.takes_mr else None
    return _network_input(ct, mr, ct_to_mr, body, grid, settings, scale=scale, seen=whole.mr_measured)


def _network_input(
    ct: Volume,
    mr: Volume | None,
    ct_to_mr: sitk.Transform | None,
    body: Volume,
    grid: Grid,
    settings: PreprocessSettings,
    *,
    scale: MrScale | None = None,
    seen: NDArray[np.bool_] | None,
) -> NetworkInput:
    ct_hu = _on_grid(canonical(ct), grid, fill=AIR_HU).array_kji
    mr_z, valid, scale = mr_channels(mr, grid, ct_to_mr, clip=settings.mr_clip, scale=scale, seen=seen)
    windows = [scale_window(ct_hu, window) for window in settings.ct_windows_hu]
    # Not "nearest": where the grids' ratio is whole it meets ties, which the last bit of a direction would decide.
    inside = resample(body.with_array(body.array_kji.astype(np.float32)), grid)
    return NetworkInput(np.stack([*windows, mr_z, valid]), grid, inside.array_kji > _HALF, scale, mr_measured=seen)


def working_grid(ct: Volume, body: Volume, settings: PreprocessSettings) -> Grid:
    """The box around the body, or around the head alone, at the model's spacing, clipped to the CT's own extent."""
    canonical_ct = canonical(ct).grid
    occupied = np.argwhere(body.array_kji)[:, ::-1]
    if settings.below_brain_mm:
        heights = body.grid.to_lps(occupied)[:, 2]
        occupied = occupied[heights >= _lowest_z(ct, settings.below_brain_mm)]
    ends = np.stack([occupied.min(axis=0) - 0.5, occupied.max(axis=0) + 0.5])
    corners = np.array([[ends[n, axis] for axis, n in enumerate(pick)] for pick in product((0, 1), repeat=3)])
    # Rounded: the last bit of a direction, which differs with the file format, must not move the grid by a voxel.
    on_ct = np.round(canonical_ct.to_ijk(body.grid.to_lps(corners)), 6)
    margin = settings.margin_mm / np.asarray(canonical_ct.spacing_mm)
    start = np.maximum(np.floor(on_ct.min(axis=0) - margin), 0).astype(int)
    stop = np.minimum(np.ceil(on_ct.max(axis=0) + margin) + 1, canonical_ct.size_ijk).astype(int)
    return canonical_ct.cropped(start.tolist(), (stop - start).tolist()).respaced(settings.spacing_mm)


def _lowest_z(ct: Volume, below_brain_mm: float) -> float:
    """Where the head ends, LPS z, mm; −∞ of a CT that shows no brain."""
    try:
        return find_brain(ct).low_lps[2] - below_brain_mm
    except UnsupportedImage:
        return -np.inf


def scale_window(
    ct_hu: NDArray[np.floating] | NDArray[np.integer], window_hu: tuple[float, float]
) -> NDArray[np.float32]:
    """HU to −1…1 over the window, clipped."""
    low, high = window_hu
    scaled = (np.asarray(ct_hu, dtype=np.float32) - low) * (2.0 / (high - low)) - 1.0
    return np.clip(scaled, -1.0, 1.0, out=scaled)


_WINDOW_NAME = re.compile(r"CT (-?[\d.]+?(?:e[+-]?\d+)?)\.\.(-?[\d.]+(?:e[+-]?\d+)?) HU")


def window_channel(low_hu: float, high_hu: float) -> str:
    """The name of a channel that shows the CT through a window."""
    return f"CT {low_hu:.10g}..{high_hu:.10g} HU"


def window_of_channel(name: str) -> tuple[float, float] | None:
    """The window that the channel's name tells; None if it tells none."""
    found = _WINDOW_NAME.fullmatch(name)
    return (float(found[1]), float(found[2])) if found else None


def mr_channels(
    mr: Volume | None,
    grid: Grid,
    ct_to_mr: sitk.Transform | None,
    *,
    clip: float,
    scale: MrScale | None = None,
    seen: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], MrScale | None]:
    """MR z-score and MR-valid mask on ``grid``, both 0 where the MR does not reach or holds padding, and the scale.

    ``scale``: None takes that of the MR's foreground on ``grid``; it stays None where there is nothing of the MR.
    ``seen``: what ``measured`` says of the MR; None asks it.
    """
    nothing = np.zeros(grid.shape_kji, dtype=np.float32)
    if mr is None:
        return nothing, nothing, scale
    values = _on_grid(mr, grid, fill=_OUTSIDE_MR, transform=ct_to_mr).array_kji
    inside = values != np.float32(_OUTSIDE_MR)
    seen = measured(mr) if seen is None else seen
    if not seen.all():
        share = mr.with_array(seen.astype(np.float32))
        inside &= _on_grid(share, grid, fill=0.0, transform=ct_to_mr).array_kji > WHOLLY
    if not inside.any():
        return nothing, nothing, scale
    scale = scale or _foreground_scale(values[inside])
    z_score = np.clip((values - scale.mean) / scale.deviation, -clip, clip, dtype=np.float32)
    return np.where(inside, z_score, np.float32(0)), inside.astype(np.float32), scale


def _foreground_scale(values: NDArray[np.float32]) -> MrScale:
    """Mean and deviation above a tenth of the 99th percentile: tissue without air and cortical bone."""
    tissue = values[values > 0.1 * np.percentile(values, 99)]
    if tissue.size == 0 or float(tissue.std()) == 0.0:
        raise UnsupportedImage("The MR holds no signal where it meets the CT, got a constant; leave it out.")
    return MrScale(float(tissue.mean()), float(tissue.std()))


def _on_grid(volume: Volume, grid: Grid, *, fill: float, transform: sitk.Transform | None = None) -> Volume:
    """Linear resampling in float32, after averaging where the target is at least twice as coarse (no aliasing)."""
    ratio = (
        np.asarray(grid.spacing_mm) / np.asarray(volume.grid.spacing_mm)
        if transform is None
        else (min(grid.spacing_mm) / np.asarray(volume.grid.spacing_mm))
    )
    shrink = np.clip(np.floor(ratio + 1e-6), 1, volume.grid.size_ijk).astype(int)
    if shrink.max() > 1:
        volume = from_sitk(sitk.BinShrink(to_sitk(volume), shrink.tolist()))
    return resample(Volume(volume.array_kji.astype(np.float32), volume.grid), grid, fill=fill, transform=transform)
