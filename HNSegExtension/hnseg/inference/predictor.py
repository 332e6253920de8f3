"""The streaming sliding-window predictor.

Windows run in rows along k. Their softmax outputs are blended with Gaussian weights in a rolling slab (`slab`) that is
one patch deep; as soon as no further window can reach a slice, it is divided by its weights, its labels are written to
the CT grid (`upsample`), its confidence is counted, and its place in the slab is used again. The full probabilities
never exist: what is held is the few classes that count at each place, patch depth × the working grid's cross-section.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hnseg.errors import DeviceError, ModelError
from hnseg.image.grid import Grid
from hnseg.image.orient import canonical
from hnseg.image.volume import Volume
from hnseg.inference.confidence import Confidence, ConfidenceTally
from hnseg.inference.devices import Plan, Precision, is_out_of_memory, memory_ladder
from hnseg.inference.slab import RollingSlab
from hnseg.inference.tiles import TileSettings, importance, window_rows
from hnseg.inference.upsample import LabelUpsampler, ProbabilitySlice, axis_maps
from hnseg.preprocessing import NetworkInput

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What the network says.

    ``labels``: uint8 on the output grid. ``confidence``: by label, absent organs left out. ``uncertainty``: 1 − winning
    probability on the working grid, float32, if it was asked for. ``windows``: how many the network saw. ``precision``:
    the number format of its products.
    """

    labels: Volume
    confidence: Mapping[int, Confidence]
    uncertainty: Volume | None
    windows: int
    device: str
    precision: str
    warnings: tuple[str, ...] = ()


def predict_labels(
    network: nn.Module,
    network_input: NetworkInput,
    *,
    labels: Sequence[int],
    output_grid: Grid,
    tiles: TileSettings,
    device: torch.device | str = "cpu",
    precision: Precision = "auto",
    uncertainty: bool = False,
    on_progress: Progress | None = None,
) -> Prediction:
    """Labels on ``output_grid``, equal to: all windows' probabilities blended, resampled linearly, the largest taken.

    ``network``: (B, C, *patch) → logits (B, classes, *patch), in evaluation mode. ``labels[n]`` is class n's label,
    class 0 background. ``output_grid`` has axes parallel to the input's grid, in any order and sense; its voxels
    outside that grid are background. When memory runs out, smaller plans are tried, each with a warning; after the last
    ``DeviceError``. Whatever ``on_progress`` raises passes through.
    """
    report = on_progress or (lambda _fraction, _sentence: None)
    warnings: list[str] = []
    for plan in memory_ladder(torch.device(device), math.prod(tiles.patch_kji), tiles.batch, precision):
        if plan.reason:
            warnings.append(plan.reason)
            report(0.0, plan.reason)
        try:
            with torch.inference_mode():
                run = _Run(network.to(plan.device), network_input, tuple(labels), output_grid, tiles, plan, uncertainty)
                return run.predict(report, tuple(warnings))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        _release_memory()
    raise DeviceError(
        f"The prediction needs more memory than {device} and this machine have; close other programs, or use a model "
        "with a smaller patch."
    )


def _release_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class _Run:
    """One pass over the windows under one plan."""

    def __init__(
        self,
        network: nn.Module,
        network_input: NetworkInput,
        labels: tuple[int, ...],
        output_grid: Grid,
        tiles: TileSettings,
        plan: Plan,
        uncertainty: bool,
    ) -> None:
        self._network, self._input, self._labels, self._plan = network, network_input, labels, plan
        self._output_grid, self._patch, self._logits_blended = output_grid, tiles.patch_kji, tiles.blend_logits
        self._image = _padded(network_input.array_ckji, tiles)
        self._rows = window_rows(self._image.shape[1:], tiles, _padded_body(network_input.body_kji, tiles))
        # nnU-Net's windows count most half a voxel beyond their middle.
        centre = [n // 2 for n in tiles.patch_kji] if tiles.blend_logits else None
        self._weight = torch.from_numpy(importance(tiles.patch_kji, centre)).to(plan.device)
        self._certainty = np.empty(network_input.grid.shape_kji, np.float32) if uncertainty else None

    def predict(self, report: Progress, warnings: tuple[str, ...]) -> Prediction:
        out = np.zeros(self._output_grid.shape_kji, np.uint8)
        # Written through a canonical view: the voxels land in the caller's own axis order without a copy.
        view = canonical(Volume(out, self._output_grid))
        maps = axis_maps(self._input.grid, view.grid, self._input.nearest_axis)
        least = -math.inf if self._logits_blended else None
        upsampler = LabelUpsampler(view.array_kji, maps, self._labels, self._plan.gather, least=least)
        tally = ConfidenceTally(len(self._labels), self._plan.gather)
        for k, values in self._finished_slices(report):
            top, winner = values.max(dim=0)
            winner = winner.to(torch.uint8)
            upsampler.push(k, ProbabilitySlice(values, winner))
            if self._logits_blended:
                top = 1 / (values - top).exp().sum(dim=0)
            tally.push(winner, top)
            if self._certainty is not None:
                self._certainty[k] = top.cpu().numpy()
        return Prediction(
            labels=Volume(out, self._output_grid),
            confidence={self._labels[n]: value for n, value in tally.finish().items()},
            uncertainty=None if self._certainty is None else Volume(1 - self._certainty, self._input.grid),
            windows=sum(len(row.starts_ji) for row in self._rows),
            device=str(self._plan.device),
            precision=str(self._plan.dtype).removeprefix("torch."),
            warnings=warnings,
        )

    def _finished_slices(self, report: Progress) -> Iterator[tuple[int, Tensor]]:
        """Each working slice once, in order: (k, probabilities, or logits, (C, J, I))."""
        depth, *shape_ji = self._input.array_ckji.shape[1:]
        slab = RollingSlab(
            len(self._labels), min(depth, self._patch[0]), shape_ji, self._plan.gather, of_logits=self._logits_blended
        )
        total = max(sum(len(row.starts_ji) for row in self._rows), 1)
        done = 0
        for row in self._rows:
            yield from slab.finish_before(min(row.k, depth))
            for first in range(0, len(row.starts_ji), self._plan.batch):
                starts = row.starts_ji[first : first + self._plan.batch]
                self._add_windows(slab, row.k, starts)
                done += len(starts)
                report(done / total, f"Window {done} of {total}")
        yield from slab.finish_before(depth)

    def _add_windows(self, slab: RollingSlab, k: int, starts_ji: Sequence[tuple[int, int]]) -> None:
        """What the network says of a batch of windows; it is forgotten before the next is asked for."""
        pk, pj, pi = self._patch
        windows = [self._image[:, k : k + pk, j : j + pj, i : i + pi] for j, i in starts_ji]
        batch = torch.from_numpy(np.stack(windows)).to(self._plan.device, non_blocking=True)
        for (j, i), logits in zip(starts_ji, self._logits(batch), strict=True):
            slab.add(logits, self._weight, (k, j, i))

    def _logits(self, batch: Tensor) -> Tensor:
        dtype = self._plan.dtype
        with torch.autocast(batch.device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits: Tensor = self._network(batch)
        expected = (len(batch), len(self._labels), *self._patch)
        if logits.shape != expected:
            raise ModelError(f"The network gave {tuple(logits.shape)} where {expected} was due; repair the bundle.")
        return logits


def _missing(shape_kji: Sequence[int], patch_kji: Sequence[int]) -> list[tuple[int, int]]:
    return [(0, max(0, p - n)) for n, p in zip(shape_kji, patch_kji, strict=True)]


def _padded(array_ckji: NDArray[np.float32], tiles: TileSettings) -> NDArray[np.float32]:
    """The image, at its far ends made at least as large as one patch."""
    padding = tiles.padding or (0.0,) * len(array_ckji)
    if len(padding) != len(array_ckji):
        raise ModelError(f"The model pads {len(padding)} channels, its input has {len(array_ckji)}; repair the bundle.")
    missing = _missing(array_ckji.shape[1:], tiles.patch_kji)
    if not any(after for _, after in missing):
        return array_ckji
    return np.stack(
        [np.pad(channel, missing, constant_values=value) for channel, value in zip(array_ckji, padding, strict=True)]
    )


def _padded_body(body_kji: NDArray[np.bool_], tiles: TileSettings) -> NDArray[np.bool_]:
    return np.pad(body_kji, _missing(body_kji.shape, tiles.patch_kji))
