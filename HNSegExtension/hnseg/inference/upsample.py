"""From probabilities on the working grid to labels on the CT grid, two working slices at a time.

The plain route resamples every class to the CT grid and takes the largest. This one gives the same labels without
holding, or even computing, most of those values. Linear interpolation is a weighted mean of a cell's eight corners with
weights that are ≥ 0; so where one class is the largest at all eight, it is the largest everywhere between them. Only
cells whose corners disagree are interpolated, and only for the classes that can win there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from hnseg.errors import GeometryMismatch
from hnseg.image.grid import Grid
from hnseg.inference.slab import NEGLIGIBLE

_MIXED = 255
_POINTS_PER_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class AxisMap:
    """Where the voxel centres ``first … first + len(lower) − 1`` of one target axis lie between two source voxels.

    Value = (1 − weight) · source[lower] + weight · source[upper]. Target voxels outside the source are not listed.
    """

    first: int
    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    weight: NDArray[np.float32]

    @property
    def span(self) -> slice:
        """The target voxels that the source reaches."""
        return slice(self.first, self.first + len(self.lower))


def axis_maps(source: Grid, target: Grid, nearest_axis: int | None = None) -> tuple[AxisMap, AxisMap, AxisMap]:
    """Maps for k, j, i of two grids with parallel axes of one sense; otherwise ``GeometryMismatch``.

    A voxel centre within half a voxel beyond the outermost source centre takes that centre's value, as in ITK. Along
    ``nearest_axis`` the nearest source voxel counts alone.
    """
    relation = source.lps_to_ijk @ target.ijk_to_lps
    scale = np.diag(relation)[:3]
    skew = relation[:3, :3] - np.diag(scale)
    if np.abs(skew @ np.asarray(target.size_ijk)).max() > 0.01 or scale.min() <= 0:
        raise GeometryMismatch("The working grid does not run along the CT's axes; make it with `preprocess`.")
    i, j, k = (_axis_map(source.size_ijk[n], target.size_ijk[n], scale[n], relation[n, 3]) for n in range(3))
    k, j, i = (_nearest(m) if axis == nearest_axis else m for axis, m in enumerate((k, j, i)))
    return k, j, i


def _nearest(m: AxisMap) -> AxisMap:
    return replace(m, weight=(m.weight >= 0.5).astype(np.float32))


def _axis_map(source_size: int, target_size: int, scale: float, offset: float) -> AxisMap:
    position = scale * np.arange(target_size) + offset
    inside = np.flatnonzero((position >= -0.5) & (position <= source_size - 0.5))
    position = np.clip(position[inside], 0, source_size - 1)
    lower = np.minimum(np.floor(position).astype(np.int64), max(source_size - 2, 0))
    upper = np.minimum(lower + 1, source_size - 1)
    return AxisMap(int(inside[0]) if inside.size else 0, lower, upper, (position - lower).astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class ProbabilitySlice:
    """A finished working slice: probabilities or logits ``values`` (C, J, I), their argmax ``winner`` (J, I) uint8."""

    values: Tensor
    winner: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _MixedPoints:
    """Target voxels of one slice pair that need interpolation: flat index, four corner rows and their weights."""

    flat: Tensor
    rows: Tensor
    weights: Tensor


class LabelUpsampler:
    """Takes the working grid's slices in order and writes finished label slices into ``out_kji``.

    ``out_kji``: uint8 array on a grid parallel to the working grid, any strides, zero beforehand; only what the working
    grid reaches is written. ``labels``: the label of each class. ``least``: what the largest value of a voxel is never
    below; None stands for the slab's probabilities.
    """

    def __init__(
        self,
        out_kji: NDArray[np.uint8],
        maps: tuple[AxisMap, AxisMap, AxisMap],
        labels: Sequence[int],
        device: torch.device | str = "cpu",
        *,
        least: float | None = None,
    ) -> None:
        # C probabilities that sum to 1 have a largest of at least 1/C, and interpolation never exceeds the corners.
        self._least = (1 - 1e-4) / len(labels) - NEGLIGIBLE if least is None else least
        along_k, self._along_j, self._along_i = maps
        self._out = out_kji[:, self._along_j.span, self._along_i.span]
        self._label_of = np.zeros(256, np.uint8)
        self._label_of[: len(labels)] = labels
        self._todo: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for n, (upper, weight) in enumerate(zip(along_k.upper, along_k.weight, strict=True)):
            self._todo[int(upper)].append((along_k.first + n, float(weight)))
        self._rows_j, self._rows_i = (torch.from_numpy(m.lower).to(device) for m in (self._along_j, self._along_i))
        self._weight_j, self._weight_i = (torch.from_numpy(m.weight).to(device) for m in (self._along_j, self._along_i))
        self._below: ProbabilitySlice | None = None

    def push(self, k: int, above: ProbabilitySlice) -> None:
        """Write the target slices between working slices k − 1 and k."""
        below = self._below or above
        if self._todo[k] and self._out.size:
            self._write(self._todo[k], below, above)
        self._below = above

    def _write(self, slices: list[tuple[int, float]], below: ProbabilitySlice, above: ProbabilitySlice) -> None:
        cells = _agreement(below.winner, above.winner)
        picture = cells.index_select(0, self._rows_j).index_select(1, self._rows_i)
        flat = (picture.flatten() == _MIXED).nonzero().squeeze(1)
        if flat.numel() == 0:
            for z, _ in slices:
                self._out[z] = self._label_of[picture.cpu().numpy()]
            return
        corners = _corners(cells == _MIXED)
        classes, lower, upper = _candidates(corners, below.values, above.values, self._least)
        points = self._locate(flat, corners, tuple(cells.shape))
        for z, weight in slices:
            picture.view(-1)[flat] = classes[_winners(points, torch.lerp(lower, upper, weight))]
            self._out[z] = self._label_of[picture.cpu().numpy()]

    def _locate(self, flat: Tensor, corners: Tensor, shape_ji: tuple[int, ...]) -> _MixedPoints:
        """Corner rows and weights of the target voxels ``flat``; rows count within ``corners``."""
        height, width = shape_ji
        column = flat % len(self._rows_i)
        line = torch.div(flat, len(self._rows_i), rounding_mode="floor")
        j, i = self._rows_j[line], self._rows_i[column]
        j_next, i_next = (j + 1).clamp_(max=height - 1), (i + 1).clamp_(max=width - 1)
        compact = torch.empty(height * width, dtype=torch.int64, device=flat.device)
        compact[corners] = torch.arange(len(corners), device=flat.device)
        at = torch.stack([j * width + i, j * width + i_next, j_next * width + i, j_next * width + i_next], dim=1)
        b, a = self._weight_j[line], self._weight_i[column]
        weights = torch.stack([(1 - b) * (1 - a), (1 - b) * a, b * (1 - a), b * a], dim=1)
        return _MixedPoints(flat, compact[at], weights)


def _agreement(below: Tensor, above: Tensor) -> Tensor:
    """Per cell (named by its first corner) the class that wins at all eight corners, else ``_MIXED``; (J, I) uint8."""
    agreed = torch.where(below == above, below, _MIXED)
    for axis in (0, 1):
        following = torch.cat([agreed.narrow(axis, 1, agreed.shape[axis] - 1), agreed.narrow(axis, -1, 1)], dim=axis)
        agreed = torch.where(agreed == following, agreed, _MIXED)
    return agreed


def _corners(mixed: Tensor) -> Tensor:
    """Flat indices of every corner of the mixed cells, (J, I) bool → (n,) int64."""
    corners = mixed.clone()
    corners[1:] |= mixed[:-1]
    corners[:, 1:] |= mixed[:, :-1]
    corners[1:, 1:] |= mixed[:-1, :-1]
    return corners.flatten().nonzero().squeeze(1)


def _candidates(corners: Tensor, below: Tensor, above: Tensor, least: float) -> tuple[Tensor, Tensor, Tensor]:
    """The classes that can win anywhere between the corners, and their values there, each (corners, classes)."""
    lower, upper = below.flatten(1)[:, corners], above.flatten(1)[:, corners]
    highest = torch.maximum(lower.amax(dim=1), upper.amax(dim=1))
    able = (highest >= least).nonzero().squeeze(1)
    return able.to(torch.uint8), lower[able].t().contiguous(), upper[able].t().contiguous()


def _winners(points: _MixedPoints, values: Tensor) -> Tensor:
    """Index of the largest interpolated column of ``values`` (corners, classes) at each point; the first on ties."""
    chunks = zip(*(torch.split(part, _POINTS_PER_CHUNK) for part in (points.rows, points.weights)), strict=True)
    blends = (embedding_bag(rows, values, per_sample_weights=weights, mode="sum") for rows, weights in chunks)
    return torch.cat([blend.argmax(dim=1) for blend in blends])
