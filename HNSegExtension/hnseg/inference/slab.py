"""The rolling slab: sums of overlapping windows' probabilities for the slices that windows may still reach.

Organs are local: at most places all but a few classes are out of the question. So the sums are kept in small square
tiles, each of one class in one slice, and a tile exists only once some window gives its class ``NEGLIGIBLE`` or more
there. What the slab holds then follows the volume, not the number of classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

NEGLIGIBLE = 1e-4
"""Where a window's probabilities of a class stay below this all over a tile, they count as 0 there. So a class's mean
is too low by less than this, and never too high.
"""

_TILE = 16
_CLASSES_AT_FIRST = 8
_CACHED_PLANES = 128
"""Classes × slices of a window that a processor's cache holds."""


class RollingSlab:
    """Weighted sums of probabilities, or logits, of ``depth`` slices; slice k lives at k modulo the depth."""

    def __init__(
        self, classes: int, depth: int, shape_ji: Sequence[int], device: torch.device, *, of_logits: bool = False
    ) -> None:
        self._of_logits, self._least = of_logits, -torch.inf if of_logits else NEGLIGIBLE
        self._weights = torch.zeros((depth, *shape_ji), device=device)
        tiles_ji = [_tiles(n) for n in shape_ji]
        self._row = torch.full((depth, classes, *tiles_ji), -1, device=device)
        self._pool = _Pool(depth * min(classes, _CLASSES_AT_FIRST) * tiles_ji[0] * tiles_ji[1], device)
        self._next = 0
        # On a CPU few slices at a time, which then stay in the cache.
        self._at_once = max(1, _CACHED_PLANES // classes) if device.type == "cpu" else depth

    def add(self, logits: Tensor, weight: Tensor, start_kji: tuple[int, int, int]) -> None:
        """Add a window, weighted; of ``logits`` (C, K, J, I) what lies in the padding is dropped."""
        k, j, i = start_kji
        depth, height, width = self._weights.shape
        logits, weight = (
            part[..., :depth, : height - j, : width - i].to(self._weights.device) for part in (logits, weight)
        )
        classes, count, down, along = logits.shape
        # About the window, a frame of zeros that begins and ends where tiles do.
        first_j, first_i = j % _TILE, i % _TILE
        inside = (..., slice(first_j, first_j + down), slice(first_i, first_i + along))
        frame = (min(count, self._at_once), _TILE * _tiles(first_j + down), _TILE * _tiles(first_i + along))
        values, factors = weight.new_zeros((classes, *frame)), weight.new_zeros(frame)
        for slots, part in _ring_parts(k, count, depth, self._at_once):
            n = slots.stop - slots.start
            self._weights[slots, j : j + down, i : i + along] += weight[part]
            self._write(values[:, :n][inside], factors[:n][inside], logits[:, part], weight[part])
            self._add_tiles(values[:, :n], factors[:n], (slots.start, j // _TILE, i // _TILE))

    def _write(self, values: Tensor, factors: Tensor, logits: Tensor, weight: Tensor) -> None:
        """What to add, as values (C, K, J, I) to be multiplied by factors (K, J, I)."""
        if self._of_logits:
            values.copy_(logits)
            factors.copy_(weight)
        else:
            torch.div(weight, exponentials(logits, values), out=factors)

    def _add_tiles(self, values: Tensor, factors: Tensor, start: tuple[int, int, int]) -> None:
        """Add ``values`` (C, K, J, I) × ``factors`` (K, J, I), both of whole tiles, from slot and tile ``start`` on."""
        # Rows first: that keeps to the order in memory.
        peak = _in_tiles(values).amax(dim=-2).amax(dim=-1)
        # Not ``peak >= …``: what is not a number must be seen to be none.
        c, k, j, i = (~(peak < self._least)).nonzero(as_tuple=True)
        at = (k + start[0], c, j + start[1], i + start[2])
        rows = self._row[at]
        missing = (rows < 0).nonzero().squeeze(1)
        if len(missing):
            rows[missing] = self._pool.take(len(missing))
            self._row[at] = rows
        added = _take_tiles(values, (c, k, j, i)).mul_(_take_tiles(factors, (k, j, i)))
        self._pool.sums.index_add_(0, rows, added)

    def finish_before(self, k: int) -> Iterator[tuple[int, Tensor]]:
        """Slices not yet given and below ``k``: (index, means (C, J, I)); voxels that no window saw are background."""
        depth, height, width = self._weights.shape
        for index in range(self._next, k):
            slot = index % depth
            at = (self._row[slot] >= 0).nonzero(as_tuple=True)
            rows = self._row[slot][at]
            frame = self._weights.new_zeros((self._row.shape[1], *(_TILE * n for n in self._row.shape[2:])))
            _in_tiles(frame)[at] = self._pool.sums[rows]
            self._pool.give(rows)
            self._row[slot] = -1
            weight = self._weights[slot]
            seen = weight > 0
            values = frame[:, :height, :width] / torch.where(seen, weight, 1.0)
            values[0] = torch.where(seen, values[0], 1.0)
            self._weights[slot] = 0
            self._next = index + 1
            yield index, values


def exponentials(logits: Tensor, into: Tensor) -> Tensor:
    """Exponentials of (C, …) such that the largest class's is 1, written to ``into``; gives their sums over C."""
    values = logits.to(torch.float32, copy=True)
    values -= values.amax(dim=0)
    values.exp_()
    into.copy_(values)
    return values.sum(dim=0)


class _Pool:
    """Tiles to take and give back; it grows when all are taken. On a CPU memory that was never taken costs nothing."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.sums = torch.empty((count, _TILE, _TILE), device=device)
        self._free = torch.arange(count - 1, -1, -1, device=device)

    def take(self, count: int) -> Tensor:
        """Rows of ``sums`` that are 0."""
        while len(self._free) < count:
            self._grow()
        rows, self._free = self._free[-count:], self._free[:-count]
        self.sums[rows] = 0
        return rows

    def give(self, rows: Tensor) -> None:
        """They can be taken again."""
        self._free = torch.cat([self._free, rows])

    def _grow(self) -> None:
        count = len(self.sums)
        sums = self.sums.new_empty((2 * count, _TILE, _TILE))
        sums[:count] = self.sums
        self.sums = sums
        self._free = torch.cat([torch.arange(2 * count - 1, count - 1, -1, device=sums.device), self._free])


def _tiles(voxels: int) -> int:
    return -(-voxels // _TILE)


def _in_tiles(slices: Tensor) -> Tensor:
    """(…, J, I), multiples of the tile → a view (…, tiles, tiles, tile, tile)."""
    *lead, height, width = slices.shape
    return slices.view(*lead, height // _TILE, _TILE, width // _TILE, _TILE).transpose(-3, -2)


def _take_tiles(slices: Tensor, at: tuple[Tensor, ...]) -> Tensor:
    """``_in_tiles(slices)[at]`` of contiguous slices, in a third of the time: (n, tile, tile)."""
    *lead, height, width = slices.shape
    *outer, j, i = at
    line, lines = j * _TILE, height
    for size, index in zip(reversed(lead), reversed(outer), strict=True):
        line = line + index * lines
        lines *= size
    segments = (line[:, None] + torch.arange(_TILE, device=line.device)) * (width // _TILE) + i[:, None]
    return slices.reshape(-1, _TILE).index_select(0, segments.flatten()).view(-1, _TILE, _TILE)


def _ring_parts(start: int, count: int, depth: int, at_once: int) -> Iterator[tuple[slice, slice]]:
    """Runs of ≤ ``at_once`` slots that ``count`` ≤ ``depth`` slices from ``start`` on occupy, and their indices."""
    done = 0
    while done < count:
        slot = (start + done) % depth
        run = min(at_once, count - done, depth - slot)
        yield slice(slot, slot + run), slice(done, done + run)
        done += run
