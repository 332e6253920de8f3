"""What a phantom cohort may look like: checked when made, saved with the result."""

from __future__ import annotations

from dataclasses import dataclass

from hnseg.errors import ConfigError
from hnseg.organs import find_organ


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomOptions:
    """Ranges and probabilities from which ``draw_patient`` draws. Raises ``ConfigError`` for values out of range.

    ``variation`` scales every anatomical spread: 1 is HaN-Seg-like, 1.5 harder, 0 the average patient. ``deformation``
    False leaves CT→MR rigid; ``jaw_degrees`` and ``neck_degrees`` are the standard deviations of how the MR's jaw and
    neck differ from the CT's. ``missing`` organs exist but are not labelled. ``contrast`` is the range of arterial HU;
    ``dental_metal``, ``mask_shell`` (thermoplastic) and ``non_contrast`` are probabilities.
    """

    variation: float = 1.0
    deformation: bool = True
    jaw_degrees: float = 2.0
    neck_degrees: float = 3.0
    far_origin: bool = True
    dental_metal: float = 0.35
    mask_shell: float = 0.6
    contrast: tuple[float, float] = (150.0, 250.0)
    non_contrast: float = 0.1
    noise_hu: tuple[float, float] = (8.0, 22.0)
    mr: bool = True
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("dental_metal", "mask_shell", "non_contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a probability from 0 to 1, got {getattr(self, name)}; correct it.")
        for name, highest in (("variation", 3.0), ("jaw_degrees", 5.0), ("neck_degrees", 10.0)):
            if not 0 <= getattr(self, name) <= highest:
                raise ConfigError(f"{name} goes from 0 to {highest:g}, got {getattr(self, name)}; correct it.")
        for name in ("contrast", "noise_hu"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ConfigError(f"{name} is a range from low to high, got {low}…{high}; swap or correct them.")
        object.__setattr__(self, "missing", tuple(find_organ(name).name for name in self.missing))
