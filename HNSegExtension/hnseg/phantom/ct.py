"""What the CT scanner adds: couch, blur, correlated noise, streaks of dental metal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hnseg.phantom.anatomy import metal_places
from hnseg.phantom.paint import Painter, Palette, slab_points_lps
from hnseg.phantom.patient import Patient
from hnseg.phantom.pose import ToCanonical
from hnseg.phantom.shapes import Array, Points, Sdf, step
from hnseg.phantom.tissues import TISSUES


def ct_palette(patient: Patient) -> Palette:
    """CT numbers of this patient's tissues."""
    return Palette(
        value=patient.hu,
        texture={t.name: t.hu_texture for t in TISSUES.values()},
        grainy=frozenset(t.name for t in TISSUES.values() if t.grain),
        air=-1000.0,
    )


@dataclass(frozen=True, eq=False)
class CtScanner:
    """Turns painted slices into CT numbers."""

    patient: Patient
    painter: Painter

    def slices(self, start: int, stop: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """int16 HU and labels of those slices."""
        image, labels = self.painter.paint(start, stop)
        x, y, z = slab_points_lps(self.painter.grid, start, stop)
        self._harden(image, start, stop)
        _couch(image, x, y, self.patient)
        rng = np.random.default_rng([self.patient.seed, 90, start])
        self._streaks(image, x, y, z)
        self._starve(image, rng)
        image += self._noise(rng, image.shape)
        np.clip(image, -1024, 3071, out=image)
        return np.rint(image, out=image).astype(np.int16), labels

    def _harden(self, image: Array, start: int, stop: int) -> None:
        """Beam hardening: a dark band between the petrous bones, a bright rim inside the vault."""
        box = self.painter.occupied(start, stop)
        if box is not None:
            lattice = self.painter.lattice
            image[:, box[1], box[2]] += lattice.spread(lattice.at_nodes(self._hardening), box)

    @cached_property
    def _hardening(self) -> Sdf:
        band, rim = self.patient.rng(93).uniform((6, 3), (20, 9))
        cavity = self.painter.anatomy.cavity.sdf

        def shift(points: Points) -> Array:
            x, y, z = points
            between = np.exp(-np.square(x / 27) - np.square((y - 6) / 15) - np.square((z - 3) / 8))
            inner = np.exp(-np.abs(cavity(points)) / 7) * step(z, 10, 35)
            return np.asarray(rim * inner - band * between, dtype=np.float32)

        return shift

    def _noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Noise of a soft-tissue kernel: correlated over about a millimetre, of the drawn standard deviation."""
        noise = rng.standard_normal(shape, dtype=np.float32)
        sigma = 0.65 / np.asarray(self.painter.grid.spacing_mm[1::-1])
        noise = gaussian_filter(noise, (0, *sigma), truncate=2.5)
        noise *= np.float32(self.patient.scan.ct_noise_hu / max(float(noise[:, ::5, ::5].std()), 1e-6))
        return noise

    def _starve(self, image: Array, rng: np.random.Generator) -> None:
        """Photon starvation: streaks along x where the rays from side to side cross much tissue (shoulders)."""
        dx, dy, _ = self.painter.grid.spacing_mm
        path_mm = dx * np.count_nonzero(image > -300, axis=2)
        excess = np.clip((path_mm - 260) / 140, 0, 1.5).astype(np.float32)
        hit = np.flatnonzero(excess.any(axis=1))
        if not len(hit):
            return
        white = rng.standard_normal((len(hit), *image.shape[1:]), dtype=np.float32)
        streaks = gaussian_filter(white, (0, 0.8 / dy, 14 / dx), truncate=2.0)
        streaks *= np.float32(28 / max(float(streaks[:, ::5, ::5].std()), 1e-6)) * excess[hit][:, :, None]
        image[hit] += streaks * (image[hit] > -600)

    def _streaks(self, image: Array, x: Array, y: Array, z: Array) -> None:
        """Bright and dark rays from every filling, strongest in its slices."""
        places = metal_places(self.patient)
        if not len(places):
            return
        world = ToCanonical(self.patient).back(places[:, :3])
        for n, (mx, my, mz) in enumerate(world):
            rng = self.patient.rng(91, n)
            heights = z.ravel()
            near = np.flatnonzero(np.abs(heights - mz) < 9)
            if not len(near):
                continue
            angle = np.arctan2(y - my, x - mx)[0]
            radius = np.hypot(x - mx, y - my)[0] + 3
            rays = np.zeros_like(angle)
            for _ in range(14):
                rays += rng.normal() * np.cos(rng.integers(2, 36) * angle + rng.uniform(0, 6.28))
            rays = np.sign(rays) * np.abs(rays) ** 1.4 * np.float32(12 * places[n, 3] / np.sqrt(len(places)))
            rays *= np.exp(-radius / 55) + np.float32(6) / (radius + 6)
            for k in near:
                weight = np.exp(-0.5 * ((heights[k] - mz) / 3.0) ** 2)
                body = image[k] > -900
                image[k] += np.float32(weight) * rays * body


def _couch(image: Array, x: Array, y: Array, patient: Patient) -> None:
    """A carbon-fibre couch top under the patient: thin shell, foam inside; only where there is air."""
    rng = patient.rng(92)
    top = float(ToCanonical(patient).back(np.array([[0.0, 104.0, 30.0]]))[0, 1]) + rng.uniform(6, 14)
    half, thick, curve = rng.uniform(200, 265), rng.uniform(30, 60), rng.uniform(0, 25)
    dy = (y - top + curve * (x / half) ** 2) - thick / 2
    q = np.stack(np.broadcast_arrays(np.abs(x) - half + 20, np.abs(dy) - thick / 2 + 20))[:, 0]
    distance = np.hypot(*np.maximum(q, 0)) + np.minimum(q.max(axis=0), 0) - 20
    foam = np.clip(0.5 - distance, 0, 1)
    shell = np.clip(1.6 - np.abs(distance), 0, 1)
    table = (-1000 + np.maximum(shell * rng.uniform(700, 1100), foam * 55)).astype(np.float32)
    np.maximum(image, table[None], out=image)
