"""A lopsided head of ellipsoids, seen by a CT and, from a frame of its own, by a tilted, shaded, cut-off MR."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.registration.poses import Pose, pose, rotation

# Centre, radii (mm, LPS), HU, T1; later ones lie over earlier ones.
PARTS = (
    ((0, 60, -215), (190, 90, 60), 30, 0.5),
    ((0, 20, -110), (60, 68, 100), 50, 0.40),
    ((0, -5, 30), (77, 97, 100), -60, 0.95),
    ((0, -5, 30), (72, 92, 95), 1000, 0.08),
    ((0, -5, 30), (65, 85, 88), 35, 0.60),
    ((0, 5, 40), (50, 65, 62), 30, 0.75),
    ((32, -72, 18), (12, 12, 12), 8, 0.13),
    ((-32, -72, 18), (12, 12, 12), 8, 0.13),
    ((0, -50, -50), (38, 42, 28), 50, 0.45),
    ((4, -85, -82), (30, 14, 12), 900, 0.30),
    ((45, -40, -60), (9, 34, 20), 1000, 0.15),
    ((-45, -40, -60), (9, 34, 20), 1000, 0.15),
    ((5, -40, -10), (17, 40, 14), -1000, 0.02),
    ((0, -20, -120), (10, 10, 70), -1000, 0.02),
    ((0, 32, -110), (13, 13, 90), 300, 0.55),
    ((58, 2, -22), (15, 18, 28), -40, 0.85),
    ((-58, 2, -22), (11, 15, 22), -40, 0.85),
    ((25, -10, 50), (14, 30, 18), 8, 0.12),
    ((-24, 24, 62), (12, 18, 24), 60, 0.30),
    ((20, 45, 20), (18, 14, 12), 8, 0.14),
    ((-10, -45, 65), (20, 12, 10), 70, 0.35),
)
CENTRES = np.array([centre for centre, *_ in PARTS[2:]], dtype=np.float64)
"""Of the parts above the shoulders: targets for the registration error."""

CT_GRID = Grid((104, 80, 96), (4.0, 4.0, 4.0), (-206.0, -158.0, -242.0))


@dataclass(frozen=True, eq=False)
class Head:
    """A CT, an MR, and the truth: CT points → MR points."""

    ct: Volume
    mr: Volume
    ct_to_mr: Pose


def points_of(grid: Grid) -> NDArray[np.float64]:
    k, j, i = np.indices(grid.shape_kji)
    return grid.to_lps(np.stack([i, j, k], axis=-1))


def painted(points: NDArray[np.float64], column: int, air: float) -> NDArray[np.float64]:
    """HU (``column`` 2) or T1 (3) at points of the head's own frame, which is the CT's."""
    values = np.full(points.shape[:-1], air)
    for part in PARTS:
        centre, radii = np.asarray(part[0]), np.asarray(part[1])
        values[np.sum(((points - centre) / radii) ** 2, axis=-1) < 1] = part[column]
    return values


def make_ct(seed: int = 1) -> Volume:
    noise = np.random.default_rng(seed).normal(0, 15, CT_GRID.shape_kji)
    return Volume(np.round(painted(points_of(CT_GRID), 2, -1000) + noise).astype(np.int16), CT_GRID)


def make_mr(ct_to_mr: Pose, seed: int = 2) -> Volume:
    """Head and upper neck only (z above −90), oblique to the head, 3 × 3 × 5 mm, shaded by a factor of three."""
    in_head = pose(rotation((3, -4, 5)), (-110, -118, -90)) @ np.diag([3.0, 3.0, 5.0, 1.0])
    shape_kji = (42, 78, 74)
    points = points_of(Grid.from_affine(shape_kji, in_head))
    shading = np.exp((0.4 * points[..., 0] - 0.2 * points[..., 1] + 0.3 * points[..., 2]) / 100)
    real, imaginary = np.random.default_rng(seed).normal(0, 0.03, (2, *shape_kji))
    signal = np.hypot(painted(points, 3, 0.02) * shading + real, imaginary)
    return Volume(np.round(700 * signal).astype(np.int16), Grid.from_affine(shape_kji, ct_to_mr @ in_head))


@pytest.fixture(scope="session")
def head() -> Head:
    """The MR lies 1.1 m away and is turned by 180° (feet first) and a little more: no common voxel."""
    truth = pose(rotation((-9, 14, 6)) @ np.diag([-1, 1, -1]), (640, -430, 790))
    return Head(make_ct(), make_mr(truth), truth)


@pytest.fixture(scope="session")
def error_mm() -> Callable[[Pose, Pose], float]:
    """Mean distance between the parts' centres under two poses."""

    def error(found: Pose, truth: Pose) -> float:
        there = CENTRES @ (found[:3, :3] - truth[:3, :3]).T + found[:3, 3] - truth[:3, 3]
        return float(np.linalg.norm(there, axis=1).mean())

    return error
