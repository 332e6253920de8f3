"""Smooth, small organ surfaces, and a picture of them without any graphics hardware."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.image.volume import Volume
from hnseg.organs import ORGANS

Floats = NDArray[np.float32]

_COARSEST_MM, _FINEST_MM = 2.2, 0.7
_LIGHT = np.array([-0.35, -0.8, 0.5], np.float32) / np.float32(1.006)
"""Unit vector towards the lamp, in the camera's frame."""
_MOST_STEPS = 32
_MOST_TRIANGLES = 20_000
_BACKFACE = 0.2
"""A triangle is skipped when all its normals point away from the viewer by more than this."""
_FILL = 0.78
"""Share of a picture's side that the organs take."""
_BACKGROUND = (16, 20, 26)


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """A triangle mesh: ``points_lps`` (n, 3) mm, unit outward ``normals`` (n, 3), ``triangles`` (m, 3)."""

    name: str
    rgb: tuple[int, int, int]
    points_lps: Floats
    normals: Floats
    triangles: NDArray[np.int32]


def organ_meshes(labels: Volume) -> tuple[Mesh, ...]:
    """One mesh for each organ that is there, as fine as its size asks for."""
    boxes = ndimage.find_objects(labels.array_kji)
    meshes = []
    for organ in ORGANS:
        box = boxes[organ.label - 1] if organ.label <= len(boxes) else None
        if box is not None:
            start = tuple(part.start for part in box)[::-1]
            size = tuple(part.stop - part.start for part in box)[::-1]
            inside = Volume(labels.array_kji[box] == organ.label, labels.grid.cropped(start, size))
            spacing = np.clip(
                (inside.array_kji.sum() * labels.grid.voxel_ml * 1000) ** (1 / 3) / 12, _FINEST_MM, _COARSEST_MM
            )
            mesh = surface(inside, spacing_mm=float(spacing), name=organ.name, rgb=organ.rgb)
            meshes += [mesh] if mesh is not None else []
    return tuple(meshes)


def surface(mask: Volume, *, spacing_mm: float, name: str, rgb: tuple[int, int, int]) -> Mesh | None:
    """The surface of a mask, by marching cubes (Lorensen and Cline 1987) on its smoothed, resampled density.

    ``spacing_mm`` sets the size of the triangles; a rugged mask gets coarser ones. None where nothing is left to show.
    """
    mesh = _marched(mask, spacing_mm, name, rgb)
    while mesh is not None and len(mesh.triangles) > _MOST_TRIANGLES:
        spacing_mm *= 1.5
        mesh = _marched(mask, spacing_mm, name, rgb)
    return mesh


def _marched(mask: Volume, spacing_mm: float, name: str, rgb: tuple[int, int, int]) -> Mesh | None:
    from skimage.measure import marching_cubes

    spacing_kji = np.array(mask.grid.spacing_mm[::-1])
    pad = np.ceil(2 * spacing_mm / spacing_kji).astype(int) + 1
    density = np.pad(mask.array_kji.astype(np.float32), [(int(n), int(n)) for n in pad])
    density = ndimage.gaussian_filter(density, 0.6 * spacing_mm / spacing_kji)
    zoom = np.minimum(spacing_kji / spacing_mm, 4.0)
    small = ndimage.zoom(density, zoom, order=1, grid_mode=True, mode="grid-constant")
    if small.max() <= 0.5 or min(small.shape) < 2:
        return None
    points, triangles, normals, _ = marching_cubes(small, 0.5)
    ratio = np.array(density.shape) / np.array(small.shape)
    index_kji = (points + 0.5) * ratio - 0.5 - pad
    lps = mask.grid.to_lps(index_kji[:, ::-1])
    turned = (normals / (spacing_kji * ratio))[:, ::-1] @ mask.grid.axes.T
    length = np.linalg.norm(turned, axis=1, keepdims=True)
    outward = turned / np.maximum(length, 1e-9)
    return Mesh(name, rgb, lps.astype(np.float32), outward.astype(np.float32), triangles.astype(np.int32))


def render(
    meshes: Sequence[Mesh],
    *,
    azimuth_deg: float,
    elevation_deg: float = 10.0,
    size: int = 640,
    skin: Mesh | None = None,
) -> NDArray[np.uint8]:
    """A shaded picture (size, size, 3): azimuth 0 looks at the face, 90 at the patient's left side.

    Orthographic, hidden parts by depth. ``skin`` is laid over it as a faint veil.
    """
    turn = _camera(azimuth_deg, elevation_deg)
    shown = meshes or ([skin] if skin is not None else [])
    if not shown:
        return np.full((size, size, 3), _BACKGROUND, np.uint8)
    everything = np.concatenate([mesh.points_lps @ turn.T for mesh in shown])
    low, high = everything.min(axis=0), everything.max(axis=0)
    scale = _FILL * size / max(float((high - low)[[0, 2]].max()), 1e-6)
    middle = (low + high) / 2
    canvas = _Canvas(size, scale, middle, turn)
    canvas.draw(meshes)
    if skin is None:
        return canvas.picture()
    veil = _Canvas(size // 2, scale / 2, middle, turn)
    veil.draw([skin])
    return _veiled(canvas.picture(), veil)


def _camera(azimuth_deg: float, elevation_deg: float) -> NDArray[np.float64]:
    """Rows: picture right, away from the viewer, picture up. At azimuth 0 the viewer stands in front (−y)."""
    a, e = np.radians([azimuth_deg, elevation_deg])
    around = np.array([[np.cos(a), np.sin(a), 0], [-np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(e), -np.sin(e)], [0, np.sin(e), np.cos(e)]])
    return np.asarray(tilt @ around)


class _Canvas:
    """A depth buffer that takes triangles as clouds of points, close enough together to leave no hole."""

    def __init__(self, size: int, scale: float, middle: NDArray[np.floating], turn: NDArray[np.float64]) -> None:
        self.size, self._scale, self._middle, self._turn = size, scale, middle, turn
        self.depth = np.full(size * size, np.inf, np.float32)
        self.shade = np.zeros(size * size, np.float32)
        self._rgb = np.zeros((size * size, 3), np.float32)

    def draw(self, meshes: Iterable[Mesh]) -> None:
        for mesh in meshes:
            points = (mesh.points_lps @ self._turn.T - self._middle).astype(np.float32)
            normals = (mesh.normals @ self._turn.T).astype(np.float32)
            self._splat(points[mesh.triangles], normals[mesh.triangles], np.asarray(mesh.rgb, np.float32))

    def picture(self) -> NDArray[np.uint8]:
        light = 0.30 + 0.70 * self.shade[:, None]
        drawn = np.isfinite(self.depth)[:, None]
        flat = np.where(drawn, self._rgb * light, np.asarray(_BACKGROUND, np.float32))
        return np.clip(flat, 0, 255).astype(np.uint8).reshape(self.size, self.size, 3)

    def _splat(self, corners: Floats, normals: Floats, rgb: Floats) -> None:
        """Triangles of like size together, each with about two points to a pixel along its edges."""
        reach = np.abs(corners[:, [1, 2, 0]] - corners)[..., [0, 2]].max(axis=(1, 2)) * self._scale
        steps = 2 ** np.ceil(np.log2(np.clip(1.2 * reach, 2, _MOST_STEPS))).astype(int)
        facing = normals[..., 1].min(axis=1) < _BACKFACE
        for n in np.unique(steps[facing]):
            weights, chosen = _barycentric(int(n)), facing & (steps == n)
            self._plot(_spread(weights, corners[chosen]), _spread(weights, normals[chosen]), rgb)

    def _plot(self, points: Floats, normal: Floats, rgb: Floats) -> None:
        column = (points[:, 0] * self._scale + self.size / 2).astype(int)
        row = (self.size / 2 - points[:, 2] * self._scale).astype(int)
        seen = (column >= 0) & (column < self.size) & (row >= 0) & (row < self.size)
        pixel, depth, normal = (row * self.size + column)[seen], points[seen, 1], normal[seen]
        nearer = np.flatnonzero(depth < self.depth[pixel])
        nearer = nearer[np.argsort(-depth[nearer], kind="stable")]  # of several on a pixel, the last assigned stays
        pixel, normal = pixel[nearer], normal[nearer]
        length = np.maximum(np.linalg.norm(normal, axis=1), 1e-6)
        self.depth[pixel] = depth[nearer]
        self.shade[pixel] = np.clip(normal @ _LIGHT / length, 0, 1)
        self._rgb[pixel] = rgb


def _spread(weights: Floats, corners: Floats) -> Floats:
    """What the corners (t, 3, 3) hold, at points (s, 3) of every triangle: (s · t, 3)."""
    return (weights @ corners.transpose(1, 0, 2).reshape(3, -1)).reshape(-1, 3)


def _barycentric(n: int) -> Floats:
    """Weights of evenly spread points in a triangle, (s, 3)."""
    i, j = (index.ravel() for index in np.indices((n + 1, n + 1)))
    inside = i + j <= n
    first, second = i[inside] / n, j[inside] / n
    return np.stack([first, second, 1 - first - second], axis=1).astype(np.float32)


def _veiled(picture: NDArray[np.uint8], veil: _Canvas) -> NDArray[np.uint8]:
    """Lighten where skin is, most at its rim, where it is seen edge-on; the veil is smooth, half the size will do."""
    shape = (veil.size, veil.size, 1)
    opacity = np.where(np.isfinite(veil.depth), 0.10 + 0.22 * (1 - veil.shade), 0.0).reshape(shape)
    opacity = ndimage.zoom(opacity, (picture.shape[0] / veil.size, picture.shape[1] / veil.size, 1), order=1)
    tint = np.array([196.0, 178.0, 160.0])
    return (picture + (tint - picture) * opacity).astype(np.uint8)
