"""How sure the network is, organ by organ, from the probabilities as they stream past."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Confidence:
    """Mean winning probability over an organ's voxels on the working grid, and over its boundary voxels alone.

    A boundary voxel has at least one of its six neighbours in another class; its mean tells how sharp the contour is.
    An organ without boundary (it fills the grid) has its mean there.
    """

    mean: float
    boundary: float


class ConfidenceTally:
    """Takes the working grid's slices in order: the winning class (J, I) and its probability (J, I)."""

    def __init__(self, classes: int, device: torch.device | str = "cpu") -> None:
        self._classes = classes
        self._sums = torch.zeros((4, classes), dtype=torch.float64, device=device)
        self._before: Tensor | None = None
        self._last: tuple[Tensor, Tensor] | None = None

    def push(self, winner: Tensor, certainty: Tensor) -> None:
        """Add the next slice; the one before it is counted now that both its neighbours are known."""
        if self._last is not None:
            self._count(self._before, *self._last, winner)
            self._before = self._last[0]
        self._last = (winner, certainty)

    def finish(self) -> dict[int, Confidence]:
        """Confidence by class index, background and absent classes left out."""
        if self._last is not None:
            self._count(self._before, *self._last, None)
            self._last = None
        return {
            n: Confidence(total / voxels, edge_total / edge_voxels if edge_voxels else total / voxels)
            for n, (voxels, total, edge_voxels, edge_total) in enumerate(self._sums.T.tolist())
            if n and voxels
        }

    def _count(self, below: Tensor | None, winner: Tensor, certainty: Tensor, above: Tensor | None) -> None:
        edge = _in_plane_boundary(winner)
        for neighbour in (below, above):
            if neighbour is not None:
                edge |= neighbour != winner
        for row, chosen in ((0, None), (2, edge)):
            label = (winner if chosen is None else winner[chosen]).flatten().to(torch.int64)
            value = (certainty if chosen is None else certainty[chosen]).flatten()
            self._sums[row] += torch.bincount(label, minlength=self._classes)
            self._sums[row + 1] += torch.bincount(label, weights=value, minlength=self._classes)


def _in_plane_boundary(winner: Tensor) -> Tensor:
    edge = torch.zeros(winner.shape, dtype=torch.bool, device=winner.device)
    across_j, across_i = winner[1:] != winner[:-1], winner[:, 1:] != winner[:, :-1]
    edge[1:] |= across_j
    edge[:-1] |= across_j
    edge[:, 1:] |= across_i
    edge[:, :-1] |= across_i
    return edge
