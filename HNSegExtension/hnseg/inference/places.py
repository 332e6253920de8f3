"""Where organs usually lie, told from those that were found."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

Point = NDArray[np.float64]

_ANCHORS = 5


def usual_places(found_lps: Mapping[str, Point], typical_lps: Mapping[str, ArrayLike]) -> dict[str, Point]:
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

    def place(typical: ArrayLike) -> Point:
        nearest = np.argsort(np.linalg.norm(frame - np.asarray(typical), axis=1), kind="stable")[:_ANCHORS]
        return np.asarray(np.asarray(typical) + np.median(shifts[nearest], axis=0))

    return {name: place(typical) for name, typical in typical_lps.items()}


def nearest_others_mm(name: str, found: Collection[str], typical_lps: Mapping[str, ArrayLike]) -> float:
    """Mean usual distance from an organ to the nearest five others among those that were found; they tell its place."""
    others = np.array([typical_lps[other] for other in found if other != name])
    return float(np.sort(np.linalg.norm(others - np.asarray(typical_lps[name]), axis=1))[:_ANCHORS].mean())
