"""Whether the organs that were found lie along the image's axes as in a patient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hnseg.image.volume import Volume
from hnseg.inference.voxels import centroid_lps, organ_voxels
from hnseg.organs import ORGANS

_ACROSS = ("from right to left", "from front to back", "from foot to head")
_FEWEST = 6
_LEAST_SPREAD_MM = 15.0
_LEAST_CORRELATION = 0.5


def orientation_warnings(labels: Volume, typical_lps: Mapping[str, tuple[float, float, float]]) -> tuple[str, ...]:
    """A warning where, along an axis, the organs' order is not that of ``typical_lps``, mean centres in one frame.

    A network recognises much of a head that stands on its vertex because a header is wrong, so its confidence does not
    tell. Order is the correlation of found and typical centres; too few organs, or such as lie in one plane, say
    nothing. A mirror image from left to right looks like a patient and cannot be told.
    """
    centres = {ORGANS[label - 1].name: centroid_lps(part, labels.grid) for label, part in organ_voxels(labels).items()}
    names = [name for name in centres if name in typical_lps]
    if len(names) < _FEWEST:
        return ()
    found, typical = (np.array([places[name] for name in names]) for places in (centres, typical_lps))
    odd = [words for words, a, b in zip(_ACROSS, found.T, typical.T, strict=True) if _is_odd(a, b)]
    if not odd:
        return ()
    return (
        f"The organs do not lie {' and '.join(odd)} as in a patient: the image's header may give a wrong orientation; "
        "compare it with the scanner's before anything of this is used.",
    )


def _is_odd(found_mm: NDArray[np.float64], typical_mm: NDArray[np.float64]) -> bool:
    if typical_mm.std() < _LEAST_SPREAD_MM:
        return False
    return found_mm.std() == 0 or float(np.corrcoef(found_mm, typical_mm)[0, 1]) < _LEAST_CORRELATION
