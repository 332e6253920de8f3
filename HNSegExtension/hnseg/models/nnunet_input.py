"""CT (+ MR) → network input as nnU-Net v2 prepares it, for networks that were trained there.

Follows nnU-Net's own steps to the letter (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z; version 2's
DefaultPreprocessor): crop to what is not zero, normalise, resample with splines, slice by slice where the slices are
thick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from skimage.transform import resize

from hnseg.errors import ConfigError, InputError
from hnseg.image.body import body_mask
from hnseg.image.grid import Grid
from hnseg.image.orient import canonical
from hnseg.image.resample import resample
from hnseg.image.volume import Volume
from hnseg.preprocessing import NetworkInput, scale_window

Scheme = Literal["CTNormalization", "ZScoreNormalization", "RescaleTo01Normalization", "NoNormalization"]
Array = NDArray[np.float32]

_THICK = 3.0
"""Slices are thick when they are more than this many times the finest spacing apart."""
_TINY = 1e-8


@dataclass(frozen=True, slots=True)
class NnunetChannel:
    """One input channel. ``within_mask``: mean and deviation over what is not zero alone; the others are the training
    data's, in HU, for ``CTNormalization``. ``window_hu``: of the CT, which then goes from −1 to 1 before the scheme.
    """

    image: Literal["ct", "mr"]
    scheme: Scheme
    within_mask: bool = False
    mean: float = 0.0
    deviation: float = 1.0
    lowest: float = 0.0
    highest: float = 0.0
    window_hu: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class NnunetSettings:
    """How nnU-Net prepares a case. ``spacing_kji_mm``: 0 along an axis keeps the CT's own. ``order``: of the splines.
    ``thick_slices``: whether thick slices are resampled one by one; None lets the spacing decide.
    """

    channels: tuple[NnunetChannel, ...]
    spacing_kji_mm: tuple[float, float, float]
    order: int = 3
    thick_slices: bool | None = None

    def __post_init__(self) -> None:
        if not self.channels or min(self.spacing_kji_mm) < 0:
            raise ConfigError("nnU-Net's settings need channels and spacings of at least 0; correct the metadata.")


def nnunet_input(
    ct: Volume, mr: Volume | None = None, ct_to_mr: sitk.Transform | None = None, *, settings: NnunetSettings
) -> NetworkInput:
    """The input on nnU-Net's grid, along the CT's canonical axes. Raises ``InputError`` when an image is missing.

    The MR is first placed on the CT's grid, since nnU-Net wants channels that share one.
    """
    whole = canonical(ct)
    images = np.stack([_image(channel, whole, mr, ct_to_mr) for channel in settings.channels])
    mask = ndimage.binary_fill_holes((images != 0).any(axis=0))
    if not mask.any():
        raise InputError("The images are zero everywhere; check what was read.")
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    pairs = zip(settings.channels, images, strict=True)
    scaled = [_normalised(image[box].copy(), mask[box], channel) for channel, image in pairs]
    start, size = [part.start for part in box[::-1]], [part.stop - part.start for part in box[::-1]]
    source = whole.grid.cropped(start, size)
    grid = _resampled_grid(source, settings)
    spacings = np.asarray(source.spacing_mm[::-1]), _target_mm(source, settings)
    axis = _thick_axis(*spacings, settings)
    resampled = np.stack([_resampled(image, grid.shape_kji, axis, settings.order) for image in scaled])
    body = resample(_as_float(body_mask(ct)), grid).array_kji > 0.5
    return NetworkInput(resampled, grid, body, None, _thick_axis(*spacings[::-1], settings))


def _image(channel: NnunetChannel, ct: Volume, mr: Volume | None, ct_to_mr: sitk.Transform | None) -> Array:
    if channel.image == "ct":
        hu = np.asarray(ct.array_kji, np.float32)
        return scale_window(hu, channel.window_hu) if channel.window_hu else hu
    if mr is None:
        raise InputError("This nnU-Net model needs an MR besides the CT; give one, or use another model.")
    return np.asarray(resample(_as_float(mr), ct.grid, transform=ct_to_mr).array_kji)


def _as_float(volume: Volume) -> Volume:
    return volume.with_array(np.asarray(volume.array_kji, np.float32))


def _normalised(image: Array, mask: NDArray[np.bool_], channel: NnunetChannel) -> Array:
    """``image`` in the channel's scale, in place."""
    if channel.scheme == "CTNormalization":
        np.clip(image, channel.lowest, channel.highest, out=image)
        image -= np.float32(channel.mean)
        image /= np.float32(max(channel.deviation, _TINY))
    elif channel.scheme == "ZScoreNormalization":
        where = mask if channel.within_mask else np.ones_like(mask)
        values = image[where]
        image[where] = (values - values.mean()) / max(float(values.std()), _TINY)
    elif channel.scheme == "RescaleTo01Normalization":
        image -= image.min()
        image /= max(float(image.max()), _TINY)
    return image


def _target_mm(source: Grid, settings: NnunetSettings) -> NDArray[np.float64]:
    wanted = np.asarray(settings.spacing_kji_mm)
    return np.where(wanted > 0, wanted, source.spacing_mm[::-1])


def _resampled_grid(source: Grid, settings: NnunetSettings) -> Grid:
    """The same box in nnU-Net's number of voxels, from which the spacing follows."""
    size, spacing = np.asarray(source.size_ijk), np.asarray(source.spacing_mm)
    # Python's rounding, half to even, as nnU-Net's.
    count = np.array([round(float(n)) for n in spacing / _target_mm(source, settings)[::-1] * size])
    return source.respaced((spacing * size / count).tolist())


def _thick_axis(before_mm: NDArray[np.float64], after_mm: NDArray[np.float64], settings: NnunetSettings) -> int | None:
    """The axis (k, j, i) along which slices are so thick, before or else after, that they are resampled one by one."""
    if settings.thick_slices is False:
        return None
    for spacing in (before_mm, after_mm):
        if settings.thick_slices or spacing.max() / spacing.min() > _THICK:
            thickest = np.flatnonzero(spacing == spacing.max())
            return int(thickest[0]) if len(thickest) == 1 else None
    return None


def _resampled(image: Array, shape_kji: tuple[int, int, int], thick: int | None, order: int) -> Array:
    if image.shape == shape_kji:
        return image
    if thick is None:
        return _resized(image, shape_kji, order)
    across = tuple(n for axis, n in enumerate(shape_kji) if axis != thick)
    slices = np.stack([_resized(part, across, order) for part in np.moveaxis(image, thick, 0)], axis=thick)
    count, depth = shape_kji[thick], image.shape[thick]
    nearest = np.floor(depth / count * (np.arange(count) + 0.5)).astype(int)
    return np.asarray(slices.take(np.minimum(nearest, depth - 1), axis=thick))


def _resized(image: Array, shape: tuple[int, ...], order: int) -> Array:
    return np.asarray(
        resize(image.astype(np.float64), shape, order, mode="edge", anti_aliasing=False), dtype=np.float32
    )
