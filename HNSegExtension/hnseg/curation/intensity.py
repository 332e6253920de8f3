"""Scales of grey values: named methods whose parameters are fitted once, kept with the case, and undone where they can.

Each is a frozen dataclass with ``apply`` and ``invert`` on plain arrays (float32 comes out). ``within`` keeps what lies
outside an MR's field of view out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from hnseg.errors import ConfigError, UnsupportedImage
from hnseg.preprocessing import scale_window, window_channel

Values = NDArray[Any]
Floats = NDArray[np.float32]

LANDMARKS = (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0)
"""Percentiles of the tissue that Nyúl's method pins."""


class Scale(Protocol):
    """A map of grey values and its inverse."""

    name: ClassVar[str]

    def apply(self, values: Values) -> Floats:
        """The values on the new scale."""

    def invert(self, values: Values) -> Floats:
        """The values on the old scale."""


def within(scale: Scale, values: Values, valid: NDArray[np.bool_], *, invert: bool = False) -> Floats:
    """``scale`` where ``valid``, 0 elsewhere: what the scanner did not see is masked, never normalised."""
    scaled = scale.invert(values) if invert else scale.apply(values)
    return np.where(valid, scaled, np.float32(0))


def tissue_threshold(values: Values) -> float:
    """A tenth of an MR's 99th percentile: above it is tissue, without air and cortical bone, as in preprocessing."""
    return 0.1 * float(np.percentile(values, 99))


def tissue(values: Values) -> Values:
    """The values of an MR that show tissue, flat. Raises ``UnsupportedImage`` where there is no contrast."""
    chosen: Values = values[values > tissue_threshold(values)] if values.size else values
    if chosen.size == 0 or chosen.min() == chosen.max():
        raise UnsupportedImage("The MR shows no contrast in its field of view, got a constant; leave it out.")
    return chosen


@dataclass(frozen=True, slots=True)
class Linear:
    """``low`` becomes ``to_low`` and ``high`` becomes ``to_high``; nothing is clipped, so ``invert`` is exact.

    Raises ``ConfigError`` where either pair is one value.
    """

    low: float
    high: float
    to_low: float = 0.0
    to_high: float = 1.0

    name: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        if not (self.low < self.high and self.to_low < self.to_high):
            raise ConfigError(
                f"A scale needs low below high, got {self.low}…{self.high} to {self.to_low}…{self.to_high}."
            )

    def apply(self, values: Values) -> Floats:
        """The values on the new scale."""
        return _linear(values, (self.low, self.high), (self.to_low, self.to_high))

    def invert(self, values: Values) -> Floats:
        """The values on the old scale."""
        return _linear(values, (self.to_low, self.to_high), (self.low, self.high))


@dataclass(frozen=True, slots=True)
class Window:
    """HU to −1…1 over a window, clipped: ``invert`` gives back what lay inside, and the ends for what did not.

    Raises ``ConfigError`` unless the ends are finite and the low one is below the high one.
    """

    low_hu: float
    high_hu: float

    name: ClassVar[str] = "window"

    def __post_init__(self) -> None:
        if not (self.low_hu < self.high_hu and np.isfinite([self.low_hu, self.high_hu]).all()):
            raise ConfigError(f"A window needs finite ends, low below high, got {self.low_hu}…{self.high_hu} HU.")

    @property
    def channel(self) -> str:
        """The name of a channel that shows the CT through it."""
        return window_channel(self.low_hu, self.high_hu)

    def apply(self, values: Values) -> Floats:
        """−1 at and below the low end, 1 at and above the high one."""
        return scale_window(values, (self.low_hu, self.high_hu))

    def invert(self, values: Values) -> Floats:
        """HU, clipped to the window."""
        return _linear(np.clip(values, -1, 1), (-1.0, 1.0), (self.low_hu, self.high_hu))


SOFT_TISSUE, BRAIN, BONE = Window(-160.0, 240.0), Window(0.0, 80.0), Window(-500.0, 1800.0)
"""Windows that show muscle and glands, the brain, and the skull."""

WINDOWS = {"soft-tissue": SOFT_TISSUE, "brain": BRAIN, "bone": BONE}
"""By name, as a command has them."""


def stacked_windows(ct_hu: Values, windows: Sequence[Window]) -> Floats:
    """(channels, K, J, I): the CT through each window."""
    return np.stack([window.apply(ct_hu) for window in windows])


@dataclass(frozen=True, slots=True)
class ZScore:
    """Mean 0 and deviation 1 over the tissue."""

    mean: float
    deviation: float

    name: ClassVar[str] = "z-score"

    def __post_init__(self) -> None:
        if not self.deviation > 0:
            raise ConfigError(f"A z-score needs a deviation above 0, got {self.deviation}.")

    @classmethod
    def fit(cls, mr: Values) -> ZScore:
        """From the tissue of the MR's own voxels."""
        chosen = tissue(mr)
        return cls(float(chosen.mean(dtype=np.float64)), float(chosen.std(dtype=np.float64)))

    def apply(self, values: Values) -> Floats:
        """Deviations from the mean."""
        return np.asarray((values - np.float32(self.mean)) / np.float32(self.deviation), np.float32)

    def invert(self, values: Values) -> Floats:
        """The scanner's scale."""
        return np.asarray(values * np.float32(self.deviation) + np.float32(self.mean), np.float32)


def percentile_range(mr: Values, percentiles: tuple[float, float] = (1.0, 99.0)) -> Linear:
    """The tissue's percentiles to 0 and 1."""
    low, high = np.percentile(tissue(mr), percentiles)
    return Linear(float(low), float(high))


def match_to_ct(mr: Values, ct_hu: Values, percentiles: tuple[float, float] = (1.0, 99.0)) -> Linear:
    """The MR's tissue range to that of the CT's soft tissue and bone, as the seed project brought both to one scale.

    ``ct_hu`` should hold the patient's voxels; air below −200 HU is passed over. Contrast is not made alike: bone stays
    dark in T1.
    """
    dense = ct_hu[ct_hu > _AIR_BELOW_HU]
    if dense.size == 0 or dense.min() == dense.max():
        raise UnsupportedImage("The CT shows no tissue to match the MR to, got air; check that it is in HU.")
    low, high = (float(value) for value in np.percentile(tissue(mr), percentiles))
    return Linear(low, high, *(float(value) for value in np.percentile(dense, percentiles)))


_AIR_BELOW_HU = -200.0


@dataclass(frozen=True, slots=True)
class Nyul:
    """Piecewise linear through pairs of landmarks; beyond the ends the outermost pieces go on. Nyúl et al. 2000.

    Raises ``ConfigError`` unless both rise strictly, as ``strictly_rising`` makes them.
    """

    landmarks: tuple[float, ...]
    standard: tuple[float, ...]

    name: ClassVar[str] = "nyul"

    def __post_init__(self) -> None:
        if len(self.landmarks) != len(self.standard) or len(self.landmarks) < 2:
            raise ConfigError(f"Nyúl needs as many landmarks as standard ones, got {len(self.landmarks)}.")
        if min(*np.diff(self.landmarks), *np.diff(self.standard)) <= 0:
            raise ConfigError("Nyúl's landmarks must rise strictly; fit them again on an MR with contrast.")

    def apply(self, values: Values) -> Floats:
        """On the cohort's scale."""
        return _through(values, self.landmarks, self.standard)

    def invert(self, values: Values) -> Floats:
        """On the scanner's scale."""
        return _through(values, self.standard, self.landmarks)


@dataclass(frozen=True, slots=True)
class NyulStandard:
    """A cohort's scale: where the percentiles of an average patient lie, from 0 to 100.

    Raises ``ConfigError`` unless there are as many landmarks as percentiles and both rise strictly.
    """

    percentiles: tuple[float, ...]
    landmarks: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.percentiles) != len(self.landmarks):
            got = f"{len(self.percentiles)} and {len(self.landmarks)}"
            raise ConfigError(f"A standard needs as many landmarks as percentiles, got {got}; fit it again.")
        Nyul(self.percentiles, self.landmarks)

    @classmethod
    def fit(cls, cases: Sequence[Sequence[float]], percentiles: tuple[float, ...] = LANDMARKS) -> NyulStandard:
        """The mean of the cases' landmarks, each case's first and last at 0 and 100."""
        if not cases:
            raise ConfigError("Nyúl's scale needs at least one MR to be fitted on, got none.")
        scaled = [100.0 * (np.asarray(case) - case[0]) / (case[-1] - case[0]) for case in cases]
        return cls(percentiles, strictly_rising(np.mean(scaled, axis=0)))

    def scale(self, landmarks: Sequence[float]) -> Nyul:
        """The map that brings a case with these landmarks onto the scale."""
        return Nyul(tuple(landmarks), self.landmarks)


def landmarks_of(mr: Values, percentiles: tuple[float, ...] = LANDMARKS) -> tuple[float, ...]:
    """The tissue's percentiles, strictly rising."""
    return strictly_rising(np.percentile(tissue(mr), percentiles))


def strictly_rising(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, ...]:
    """The values, where two are equal the later one raised by a millionth of the whole range."""
    step = max((values[-1] - values[0]) * 1e-6, 1e-6)
    risen = [float(values[0])]
    for value in values[1:]:
        risen.append(max(float(value), risen[-1] + step))
    return tuple(risen)


def _through(values: Values, source: tuple[float, ...], target: tuple[float, ...]) -> Floats:
    first, last = ((target[n + 1] - target[n]) / (source[n + 1] - source[n]) for n in (0, len(source) - 2))
    below, above = np.minimum(values - source[0], 0) * first, np.maximum(values - source[-1], 0) * last
    return np.asarray(np.interp(values, source, target) + below + above, np.float32)


def _linear(values: Values, source: tuple[float, float], target: tuple[float, float]) -> Floats:
    slope = (target[1] - target[0]) / (source[1] - source[0])
    return np.asarray((values - np.float32(source[0])) * np.float32(slope) + np.float32(target[0]), np.float32)
