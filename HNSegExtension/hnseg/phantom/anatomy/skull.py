"""Skull: the cranial cavity grown by the bone's thickness; petrous bone and mastoid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from hnseg.phantom.anatomy.builder import SIDES, Builder, Plan, mirror, speckle, tilt
from hnseg.phantom.shapes import Array, Points, step, union
from hnseg.phantom.structure import Remembered, Shape, Structure, blob, broad, pipe, solid


def _cranial_floor(points: Points) -> Array:
    """Height z of the floor of the skull: anterior, middle and posterior fossa, sella and clivus."""
    x, y, _ = points
    side = np.abs(x)
    clivus = np.clip(20 - 3.0 * (y + 13), -36, 20)
    behind = step(y - (-14 + 0.62 * (side - 10)), -6, 8)
    posterior = -31 + 14 * np.square(side / 48)
    middle = -4 + 5 * np.minimum(np.square((side - 38) / 20), 1) + 6 * np.minimum(np.square((y + 28) / 18), 1)
    lateral = (1 - behind) * middle + behind * posterior
    central = step(side, 21, 10)
    floor = central * clivus + (1 - central) * lateral
    front = step(y, -42, -52)
    dome = np.exp(-np.square((side - 31) / 17) - np.square((y + 70) / 24))
    orbit_roof = 25 + 13 * dome - 3 * step(side, 9, 4)
    return np.asarray(floor * (1 - front) + front * orbit_roof, dtype=np.float32)


def cranial_cavity(b: Builder) -> Shape:
    """The inside of the skull, brain and its fluid."""
    # Two ellipsoids: broad at the parietal bones, narrower at the forehead.
    vault = blob((0, -22, 30), (128, 147, 182)).joined(blob((0, 12, 31), (141, 149, 186)), 22)
    uneven = b.waves("floor", 17.0)

    def inside(points: Points) -> Array:
        floor = _cranial_floor(points) + np.float32(1.6) * uneven(points) - points[2]
        return -union(-vault.sdf(points), np.float32(-0.75) * floor, 5.0)

    raw = Shape(inside, vault.low, vault.high)
    rough = b.rough(raw, "cavity", 1.0, 75)
    return replace(rough, sdf=Remembered(rough.sdf))


def skull(b: Plan) -> Iterator[Structure]:
    """Vault and base, petrous bones, mastoids with their cells, ear canals."""
    cavity = b.cavity
    thickness_noise = b.waves("vault", 40.0)

    def bone(points: Points) -> Array:
        """Distance to the outside of the skull: the cavity grown by the bone's thickness."""
        vault = np.maximum(step(points[2], 8, 40), step(points[1], 25, 60))
        thickness = 2.8 + np.float32(3.5) * vault
        return np.asarray(cavity.sdf(points) - thickness * (1 + 0.14 * thickness_noise(points)), dtype=np.float32)

    outer = Shape(bone, cavity.low - 9, cavity.high + 9)
    yield broad("skull", ((0.0, "cortex"), (1.9, "diploe")), outer)
    yield broad("inner table", ((-1.5, "cortex"), (0.0, "csf")), cavity)
    for side, s in SIDES:
        ridge = b.rough(
            pipe(mirror([(12, -16, 6), (24, -6, 3), (46, 8, 0), (60, 16, -4)], s), (7, 10, 13, 13)),
            "petrous" + side,
            1.3,
            16,
        )
        mastoid = b.rough(blob((59 * s, 19, -15), (22, 30, 40), tilt(18)), "mastoid" + side, 1.2, 14)
        yield solid("mastoid", ((0.0, "cortex"), (2.0, "vertebra")), mastoid)
        yield solid("petrous", ((0.0, "petrous"),), ridge)
        cells = b.waves("cells" + side, 6.0, 12)
        air = mastoid.grown(-2.5).joined(blob((50 * s, 10, 2), (20, 20, 18)), 6)
        yield Structure("mastoid cells", ((0.0, "air"),), speckle(air, cells, 0.25, 1.0), air.low, air.high)
        yield solid("ear canal", "air", pipe(mirror([(86, 2, 0), (66, 0, 2), (46, -1, 4)], s), (3.6, 3.2, 3.4)))
