"""From a network's confidence in an organ to the agreement with an expert that organs of such confidence had."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Calibration:
    """A logistic curve that was fitted on the organs of cases that nobody trained on.

    ``offset``, ``mean``, ``boundary``, ``shortfall``: its coefficients; see ``expected_dsc``. ``check_below``: an organ
    with less expected DSC is to be checked. ``cases``: how many it was fitted on, by their kind.
    """

    offset: float
    mean: float
    boundary: float
    shortfall: float
    check_below: float
    cases: dict[str, int] = field(default_factory=dict)

    def expected_dsc(self, mean: float, boundary: float, shortfall: float) -> float:
        """The DSC, 0…1, to be expected of an organ with these mean winning probabilities, of it and of its boundary.

        ``shortfall``: see there.
        """
        score = self.offset + self.mean * mean + self.boundary * boundary + self.shortfall * shortfall
        return 1.0 / (1.0 + math.exp(-score))


def shortfall(ml: float, typical_ml: float) -> float:
    """By how much, as a logarithm, an organ is smaller than is typical; 0 for a large one.

    A mask that misses half of its organ is as sure of its voxels as a whole one: confidence does not tell this.
    """
    return max(0.0, math.log(typical_ml / ml))
