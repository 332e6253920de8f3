"""Where organs usually lie, told from those that were found."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Point = NDArray[np.float64]

_ANCHORS = 5


def usual_places(
    found_lps: Mapping[str, Point], typical_lps: Mapping[str, tuple[float, float, float]]
) -> dict[str, Point]:
    """Where each organ of ``typical_lps`` should lie in the scan, LPS mm; empty when none of them was found.

    ``found_lps``: centres in the scan. ``typical_lps``: mean centres in one common frame. An organ is displaced from
    its typical place as its nearest five among those that were found, by their median, so that a bent neck counts and
    a stray organ does not.
    """
    anchors = [name for name in typical_lps if name in found_lps]
    if not anchors:
        return {}
    frame = np.array([typical_lps[name] for name in anchors])
    shifts = np.array([found_lps[name] for name in anchors]) - frame

    def place(typical: tuple[float, float, float]) -> Point:
        nearest = np.argsort(np.linalg.norm(frame - typical, axis=1), kind="stable")[:_ANCHORS]
        return np.asarray(typical + np.median(shifts[nearest], axis=0))

    return {name: place(typical) for name, typical in typical_lps.items()}
