"""What the MR scanner adds: through-plane averaging, bias field, Rician noise, voids at metal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hnseg.image.grid import Grid
from hnseg.phantom.paint import Painter, Palette
from hnseg.phantom.patient import Patient
from hnseg.phantom.shapes import Array, Sdf, Waves, step
from hnseg.phantom.tissues import TISSUES

_FAT_SIGNAL = 850.0


def mr_palette(patient: Patient) -> Palette:
    """T1-weighted signal of this patient's tissues, fat = 1."""
    return Palette(
        value=patient.t1,
        texture={t.name: t.t1_texture for t in TISSUES.values()},
        grainy=frozenset(t.name for t in TISSUES.values() if t.grain),
        air=0.0,
    )


def subslices(grid: Grid) -> int:
    """Into how many slices of about 2 mm a slice is split before averaging."""
    return max(1, round(grid.spacing_mm[2] / 2.0))


def split_slices(grid: Grid, parts: int) -> Grid:
    """The same box with ``parts`` times as many slices."""
    i, j, k = grid.size_ijk
    di, dj, dk = grid.spacing_mm
    origin = grid.to_lps(np.array([0, 0, -0.5 + 0.5 / parts]))
    return Grid((i, j, k * parts), (di, dj, dk / parts), tuple(origin), grid.direction)


@dataclass(frozen=True, eq=False)
class MrScanner:
    """Turns painted sub-slices into MR slices. ``painter`` works on the split grid."""

    patient: Patient
    painter: Painter
    parts: int

    def slices(self, start: int, stop: int) -> NDArray[np.int16]:
        """int16 signal of those slices of the unsplit grid."""
        fine = self.painter.paint(start * self.parts, stop * self.parts, labels=False)[0]
        image = fine.reshape(stop - start, self.parts, *fine.shape[1:]).mean(axis=1)
        image *= self._bias(start, stop)
        scan = self.patient.scan
        rng = np.random.default_rng([self.patient.seed, 95, start])
        noise = np.float32(scan.mr_noise)
        image += noise * rng.standard_normal(image.shape, dtype=np.float32)
        signal = np.hypot(image, noise * rng.standard_normal(image.shape, dtype=np.float32))
        return np.asarray(np.rint(signal * np.float32(_FAT_SIGNAL)), dtype=np.int16)

    def _bias(self, start: int, stop: int) -> Array:
        """Smooth coil sensitivity, falling off towards the lower end of the coil."""
        box = (slice(start * self.parts, stop * self.parts), *(slice(0, n) for n in self.painter.grid.shape_kji[1:]))
        lattice = self.painter.lattice
        noise = lattice.spread(lattice.at_nodes(self._field), box)  # type: ignore[arg-type]
        field = np.exp(np.float32(self.patient.scan.mr_bias) * noise)
        return np.asarray(
            field.reshape(stop - start, self.parts, *field.shape[1:])[:, self.parts // 2], dtype=np.float32
        )

    @cached_property
    def _field(self) -> Sdf:
        waves = Waves.draw(self.patient.rng(96), 260.0, 5)
        return lambda points: waves(points) - np.float32(1.5) * step(points[2], -45.0, -115.0)
