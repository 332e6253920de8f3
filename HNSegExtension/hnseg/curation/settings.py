"""What a curation does: chosen once for a cohort, checked when made, kept in its manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hnseg.curation.bias import N4Settings
from hnseg.curation.intensity import LANDMARKS, NyulStandard, Window
from hnseg.curation.masks import PartialMasks
from hnseg.curation.shape import ShapeSettings
from hnseg.errors import ConfigError

MrScaling = Literal["scanner", "z-score", "percentiles", "match-ct", "nyul"]
"""The grey values of the MR that is written; ``nyul`` is fitted on the cohort and reaches the exports alone."""
Alignment = Literal["rigid", "deformable", "none"]
"""The engine that finds the MR in the CT; deformable: with jaw and neck bent; none: the two share one frame already."""

EXPORT_SETTINGS = ("nyul", "ct_windows", "test_share", "folds", "seed")
"""What no case depends on: the splits and the exports are made anew in every run."""


@dataclass(frozen=True, slots=True)
class CurationSettings:
    """``n4`` None leaves the coil's shading in. ``nyul``: the scale of another cohort, in place of one fitted on this.
    ``ct_windows``: the CT's channels in the exports, one a window; none exports HU. ``seed`` draws the splits;
    ``test_share`` and ``folds`` size them. Raises ``ConfigError``.
    """

    partial: PartialMasks = "ignore"
    registration: Alignment = "rigid"
    n4: N4Settings | None = field(default_factory=N4Settings)
    mr_scale: MrScaling = "scanner"
    nyul: NyulStandard | None = None
    ct_windows: tuple[Window, ...] = ()
    shape: ShapeSettings = field(default_factory=ShapeSettings)
    test_share: float = 0.2
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.test_share < 1 and self.folds >= 2):
            got = f"{self.test_share} and {self.folds}"
            raise ConfigError(f"Splits need a test share from 0 to below 1 and at least 2 folds, got {got}.")
        if self.nyul and self.mr_scale != "nyul":
            raise ConfigError(f"A Nyúl standard needs the scale 'nyul', got {self.mr_scale!r}; choose it or none.")
        if self.nyul and self.nyul.percentiles != LANDMARKS:
            raise ConfigError(
                f"A Nyúl standard needs the percentiles {LANDMARKS}, got {self.nyul.percentiles}; fit it again."
            )
        if len({window.channel for window in self.ct_windows}) < len(self.ct_windows):
            raise ConfigError("A CT window was given twice; give each once.")
