"""Spine, neck muscles, vessels, salivary glands."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hnseg.phantom.anatomy.builder import CORD, SIDES, Plan, cord_at, mirror, muscle, shifted, slab, tilt
from hnseg.phantom.shapes import Array, Points, smooth_path
from hnseg.phantom.structure import Shape, Structure, blob, block, pipe, solid, strap

_CAROTID = np.array([(18, 10, -190), (24, 0, -130), (25, -2, -88), (28, -2, -10)])

# name, path (left side), half width and half depth from its beginning to its end, mm
_NECK_MUSCLES: tuple[tuple[str, list[tuple[float, ...]], tuple[float, ...], tuple[float, ...]], ...] = (
    ("sternocleidomastoid", [(57, 16, -28), (52, 4, -80), (38, -14, -140), (20, -26, -190)],
     (5, 8, 11, 9), (8, 10, 8, 6)),
    ("trapezius", [(12, 72, -45), (26, 74, -100), (62, 62, -160), (125, 50, -196)], (8, 14, 24, 24), (3, 4, 7, 9)),
    ("splenius", [(30, 50, -30), (28, 60, -80), (22, 70, -150), (16, 84, -230)], (15, 15, 13, 10), (5, 6, 6, 6)),
    ("semispinalis", [(15, 50, -30), (14, 54, -90), (14, 62, -150), (15, 74, -230)],
     (10, 12, 12, 13), (10, 11, 11, 10)),
    ("suboccipital", [(20, 34, -28), (17, 40, -60)], (12, 10), (9, 8)),
    ("levator", [(34, 24, -55), (42, 38, -110), (52, 52, -190)], (6, 7, 7), (11, 12, 11)),
    ("longissimus", [(34, 38, -60), (33, 44, -120), (34, 56, -230)], (7, 9, 12), (7, 8, 9)),
    ("scalenes", [(25, 10, -70), (32, 12, -130), (48, 14, -200)], (6, 9, 9), (8, 10, 10)),
    ("sternohyoid", [(8, -36, -96), (13, -39, -130), (13, -37, -170), (10, -34, -200)],
     (7, 8, 8, 8), (1.8, 2.2, 2.2, 2.2)),
)  # fmt: skip


def spine(b: Plan) -> Iterator[Structure]:
    """Vertebrae, discs, cord and canal, and the muscles of the neck."""
    yield muscle(
        b,
        "longus",
        strap(
            [shifted(cord_at(z), 0, -26, 0) for z in (-30, -80, -130, -190, -230)],
            (11, 12, 13, 13, 13),
            (3.2,) * 5,
            (0, 1, 0),
        ),
    )
    for side, s in SIDES:
        for name, path, wide, deep in _NECK_MUSCLES:
            nodes = smooth_path(mirror(path, s), 2)
            t = np.linspace(0, 1, len(nodes))
            knots = np.linspace(0, 1, len(wide))
            yield muscle(b, name + side, strap(nodes, np.interp(t, knots, wide), np.interp(t, knots, deep), (0, 1, 0)))
    discs = pipe([shifted(cord_at(z), 0, -15.5, 0) for z in (-44, -60, -100, -150, -185, -215, -250)], 7.6)
    yield solid("discs", "disc", discs)
    for n in range(12):
        yield from _vertebra(b, n)
    yield solid(
        "dens",
        ((0.0, "cortex"), (1.2, "vertebra")),
        pipe([shifted(cord_at(-48), 0, -15, 0), shifted(cord_at(-26), 0, -14, 0)], (6, 4.5)),
    )
    canal = smooth_path(CORD)
    yield solid("spinal canal", ((-1.3, "fat"), (0.0, "csf")), pipe(canal, 7.0))
    f = b.factor("SpinalCord")
    cord = canal + b.offset("SpinalCord") * (1, 1, 0) * 0.8
    inside = cord[cord[:, 2] >= -186]
    yield solid("cord", "cord", strap(cord, 5.4 * f, 4.2 * f, (0, 1, 0)))
    yield solid(
        "SpinalCord", (), strap(cord, 5.4 * f, 4.2 * f, (0, 1, 0)).within(slab(inside[-1][2], -26)), organ="SpinalCord"
    )


def _vertebra(b: Plan, n: int) -> Iterator[Structure]:
    z = -34 - 18.0 * n
    cord = cord_at(z)
    slope = tilt(8 if n < 4 else -12)
    layers = ((0.0, "cortex"), (1.3, "vertebra"))
    wide = 20 + 0.8 * n
    if n > 0:
        yield solid(
            "vertebral body",
            layers,
            b.rough(block(shifted(cord, 0, -15.5, 0), (wide, 15, 13.6), 4, slope), f"v{n}", 0.5, 11),
        )
    ring = 12.5 if n == 0 else 9.6
    arch = Shape(partial(_arch, cord=cord, radius=ring), cord - (18, 18, 7), cord + np.full(3, 18.0))
    yield solid("arch", layers, b.rough(arch, f"arch{n}", 0.4, 10))
    reach = 34 if n in (1, 6, 7) else 26 + n
    if n:
        yield solid(
            "spinous process",
            layers,
            b.rough(
                strap([shifted(cord, 0, 10, -2), shifted(cord, 0, reach, -9)], (2.2, 2.8), (5, 4)), f"spine{n}", 0.3, 9
            ),
        )
    for s in (-1, 1):
        out = 20 if n == 0 else 16
        mass = blob(shifted(cord, s * out, -5, 0), (13, 13, 15), tilt(0, 0, s * 20))
        process = pipe(
            [shifted(cord, s * 12, -9, 0), shifted(cord, s * (30 if n == 0 else 25 + n), -8, -3)], (4.6, 3.4)
        )
        yield solid("lateral mass", layers, b.rough(mass.joined(process, 5), f"mass{n}{s}", 0.5, 9))
        if n < 6:
            yield solid(
                "transverse foramen",
                ((-1.2, "fat"), (0.0, "artery")),
                pipe([shifted(cord, s * 20, -11, -9.2), shifted(cord, s * 20, -11, 9.2)], 1.9),
            )


def _arch(points: Points, cord: NDArray[np.float64], radius: float) -> Array:
    """The bony ring around the canal, sloping down to the back."""
    x, y, z = points
    height = z - np.float32(cord[2])
    across = np.sqrt(np.square(x / np.float32(1.25)) + np.square(y - np.float32(cord[1]) + np.float32(0.35) * height))
    return np.asarray(np.maximum(np.abs(across - np.float32(radius)) - 1.9, np.abs(height) - 5.5), dtype=np.float32)


def vessels(b: Plan) -> Iterator[Structure]:
    """Carotids, jugulars, their larger branches, and lymph nodes."""
    for side, s in SIDES:
        name = "A_Carotid_" + side
        f = b.factor(name)
        nodes = mirror(_CAROTID, s) + b.offset(name)
        bends = b.patient.rng(4, int(s + 1)).normal(0, 1.2 * b.patient.options.variation, nodes.shape)
        path = smooth_path(nodes + bends * (1, 1, 0), 4)
        radii = np.interp(path[:, 2], (-120, -95, -86, -70, -10), (3.25, 3.6, 4.0, 2.9, 2.6)) * f
        lower = np.array((14 * s, 14, -230)) + b.offset(name)
        jugular = (
            path
            + np.interp(path[:, 2], (-180, -100, -20), (10, 11, 8))[:, None] * (s, 0, 0)
            + np.interp(path[:, 2], (-180, -100, -20), (0, 5, 9))[:, None] * (0, 1, 0)
        )
        vein = float(np.clip(b.patient.rng(5, int(s + 1)).normal(1, 0.22 * b.patient.options.variation), 0.5, 1.5))
        yield solid("sheath", "fat", pipe(path, radii + 2.6).joined(pipe(jugular, 6.5 * vein), 6))
        yield solid(
            "jugular", "vein", b.rough(strap(jugular, 6.2 * vein, 5.2 * vein, (0, 1, 0)), "jugular" + side, 0.5, 20)
        )
        external = smooth_path(mirror([(27, -4, -86), (34, -9, -66), (43, -6, -40), (50, 0, -18)], s) + b.offset(name))
        yield solid("external carotid", "artery", pipe(external, np.linspace(2.3, 1.5, len(external))))
        yield solid("facial vein", "vein", pipe(mirror([(36, -12, -80), (42, -36, -76), (48, -50, -58)], s), 1.7))
        yield solid(
            "external jugular",
            "vein",
            pipe(mirror([(60, 2, -40), (59, 10, -90), (48, 12, -160), (34, 0, -200)], s), 2.2),
        )
        yield solid("common carotid, chest", "artery", pipe(np.vstack([path[0], lower]), 3.3 * f))
        siphon = smooth_path(
            np.vstack([path[-1], mirror([(22, -12, 6), (13, -18, 14), (12, -26, 22), (11, -22, 32)], s)])
        )
        yield solid("siphon", "artery", pipe(siphon, 2.2))
        yield solid(name, ((-0.9, "fascia"), (0.0, "artery")), pipe(path, radii), organ=name)
        if b.patient.calcified > 0.6:
            yield solid(
                "plaque",
                "cortex",
                blob(shifted(path[np.argmin(np.abs(path[:, 2] + 90))], s * 2.6 * f, 1.5, 0), (2.2, 3, 5)),
            )
        for k, (x, y, z) in enumerate(b.patient.rng(6, int(s + 1)).uniform((34, -14, -150), (50, 22, -50), (7, 3))):
            yield solid(
                "node",
                ((-0.6, "fat"), (0.0, "node")),
                b.rough(blob((s * x, y, z), (5, 6, 10)), f"node{k}{side}", 0.4, 8),
            )


def glands(b: Plan) -> Iterator[Structure]:
    """Parotid and submandibular glands."""
    for side, s in SIDES:
        name = "Parotid_" + side
        superficial = blob((60 * s, 0, -22), (24, 36, 56), tilt(0, s * 6, s * -18))
        deep = blob((50 * s, 6, -26), (24, 22, 40))
        shape = b.rough(superficial.joined(deep, 6), name, 1.2, 16)
        shape = b.place(shape, name)
        yield solid(name, ((-1.0, "fat"), (0.0, "parotid")), shape, organ=name, blur_mm=0.4, under=(b.body, 3.0))
        yield solid("retromandibular vein", "vein", pipe(mirror([(54, 2, 0), (54, 4, -24), (52, 4, -52)], s), 2.0))
        name = "Glnd_Submand_" + side
        shape = b.rough(blob((31 * s, -32, -70), (21, 30, 29), tilt(20, 0, -s * 30)), name, 0.8, 12)
        yield solid(name, ((-1.2, "fat"), (0.0, "submandibular")), b.place(shape, name), organ=name)
