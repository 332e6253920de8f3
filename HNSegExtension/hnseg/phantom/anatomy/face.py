"""Orbits, nose, sinuses and the inner ear."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hnseg.phantom.anatomy.builder import SIDES, Plan, half_space, mirror, shifted, speckle, tilt
from hnseg.phantom.shapes import smooth_path
from hnseg.phantom.structure import Structure, blob, block, pipe, solid, strap

_GLOBE_MM, _ANTERIOR_MM = 12.4, 5.6
"""The average eyeball's radius, and how deep its anterior segment is."""


def orbits(b: Plan) -> Iterator[Structure]:
    """Eyes, optic pathway, lacrimal glands, pituitary, and the orbits around them."""
    for side, s in SIDES:
        anterior, posterior = "Eye_A" + side, "Eye_P" + side
        at = np.array((32 * s, -72, 18)) + b.offset(posterior)
        cone = pipe(mirror([(32, -76, 18), (29, -62, 19), (22, -46, 22), (13, -33, 26)], s), (18.5, 17.5, 11, 4))
        cone = b.rough(cone, "orbit" + side, 0.6, 20)
        # The rim: set back on the side of the temple, forward at the nose.
        rim = half_space((-0.45 * s, -1.0, 0.12), (31 * s, -80, 18))
        wall = cone.grown(2.0).within(rim)
        yield solid("orbital wall", "thin_bone", wall)
        yield solid("orbit", "fat", cone.within(rim.grown(6)), under=(b.body, 3.0))
        apex = np.array((14 * s, -36, 26))
        for name, out in (
            ("lateral", (10.5 * s, 0, 0)),
            ("medial", (-10.5 * s, 0, 0)),
            ("superior", (0, 0, 10)),
            ("inferior", (0, 0, -10)),
        ):
            mid = shifted((at + apex) / 2 + 1.02 * np.array(out), 0, 4, 0)
            path = smooth_path([shifted(at + 0.95 * np.array(out), 0, -1, 0), mid, apex])
            yield solid(
                f"{name} rectus",
                "muscle",
                pipe(path, np.interp(np.linspace(0, 1, len(path)), (0, 0.5, 1), (1.2, 2.5, 1.2))),
            )
        lacrimal = "Glnd_Lacrimal_" + side
        gland = b.rough(blob((43 * s, -66, 28), (6.2, 15, 17), tilt(25, -s * 38, 0)), lacrimal, 0.45, 9)
        yield solid(lacrimal, "lacrimal", b.place(gland, lacrimal), organ=lacrimal)
        nerve = "OpticNrv_" + side
        course = mirror([(29, -60, 18), (24, -48, 20), (16, -36, 26), (8, -27, 33)], s)
        course[0] = shifted(at, -3 * s, 11.5, 0)
        course[1] += b.offset(nerve)
        f = b.factor(nerve)
        yield solid(nerve, ((-1.1, "csf"), (0.0, "nerve")), pipe(smooth_path(course), 2.1 * f), organ=nerve)
        radius = _GLOBE_MM * b.factor(posterior)
        globe = blob(at, (2 * radius, 2 * radius, 2 * radius * 0.98))
        cut_at = at[1] - radius + _anterior_depth(radius, b.factor(anterior))
        front, back = (
            globe.within(half_space((0, 1, 0), (0, cut_at, 0))),
            globe.within(half_space((0, -1, 0), (0, cut_at, 0))),
        )
        yield solid("globe", ((0.0, "sclera"), (1.0, "vitreous")), globe)
        yield solid("anterior chamber", "aqueous", blob(at - (0, radius - 2.2, 0), (11, 4, 11)))
        yield solid("lens", "lens", blob(at - (0, radius - 5.6, 0), (9.4, 4.2, 9.4)))
        yield solid(posterior, (), back, organ=posterior)
        yield solid(anterior, (), front, organ=anterior)
    chiasm = strap([(-7, -23, 34), (0, -22, 36), (7, -23, 34)], (3.6, 4.6, 3.6), (1.9, 2.2, 1.9))
    tracts = pipe([(5, -21, 36), (8.5, -16, 38)], 1.9) | pipe([(-5, -21, 36), (-8.5, -16, 38)], 1.9)
    yield solid("OpticChiasm", "chiasm", b.place(chiasm.joined(tracts, 2), "OpticChiasm"), organ="OpticChiasm")
    gland = b.rough(blob((0, -20, 26), (12.5, 9.5, 7.2)), "pituitary", 0.3, 8)
    yield solid("Pituitary", ((-0.8, "fascia"), (0.0, "pituitary")), b.place(gland, "Pituitary"), organ="Pituitary")


def _anterior_depth(radius: float, factor: float) -> float:
    """How deep the anterior segment is that has ``factor``² times the average volume; a cap goes with h² (3 r − h)."""
    average = _ANTERIOR_MM**2 * (3 * _GLOBE_MM - _ANTERIOR_MM)
    depth = _ANTERIOR_MM * factor
    for _ in range(5):
        depth = factor * np.sqrt(average / (3 * radius - depth))
    return float(depth)


def face(b: Plan) -> Iterator[Structure]:
    """Facial bones, nose and the sinuses."""
    maxilla = b.rough(block((0, -60, -12), (62, 46, 52), 14), "maxilla", 1.0, 18)
    brow = strap([(-48, -76, 33), (-28, -90, 37), (0, -94, 33), (28, -90, 37), (48, -76, 33)], 4.0, (4, 5, 6, 5, 4))
    yield solid("brow", ((0.0, "cortex"), (1.8, "diploe")), brow, under=(b.body, 4.5))
    yield solid("maxilla", ((0.0, "thin_bone"), (1.6, "fat")), maxilla)
    palate = strap([(-23, -60, -32), (-12, -60, -26), (0, -60, -24.5), (12, -60, -26), (23, -60, -32)], 25.0, 1.5)
    palate = b.rough(palate, "palate", 0.5, 15)
    yield solid("palate", "thin_bone", palate)
    for side, s in SIDES:
        arch = strap(
            mirror(smooth_path([(40, -76, -2), (54, -62, -2), (64, -38, -4), (67, -14, -1)]), s),
            [2.6] * 10,
            [6.5, 6, 6, 5.5, 5, 4.5, 4, 4, 4, 4],
        )
        yield solid("zygoma", ((0.0, "cortex"), (1.6, "diploe")), b.rough(arch, "zygoma" + side, 0.4, 12))
        pterygoid = block((15 * s, -33, -18), (3, 12, 26), 1.4)
        yield solid("pterygoid", "thin_bone", pterygoid)
        sinus = b.rough(block((25 * s, -58, -8), (25, 32, 31), 11), "sinus" + side, 1.2, 16)
        yield solid("maxillary sinus", ((-1.2, "thin_bone"), (-0.2, "mucosa"), (1.0, "air")), sinus)
    nasal = block((0, -60, -12), (27, 72, 26), 9).joined(block((0, -62, 8), (13, 70, 30), 5), 8)
    nasal = b.rough(nasal, "nasal", 0.7, 14)
    yield solid("nasal cavity", ((0.0, "mucosa"), (1.2, "air")), nasal, under=(b.body, -1.0))
    turbinates = b.waves("turbinates", 11.0, 10, (1, 6, 1))
    yield Structure(
        "turbinates", ((0.0, "mucosa"),), speckle(nasal.grown(-1), turbinates, 0.35, 1.8), nasal.low, nasal.high
    )
    yield solid(
        "septum",
        ((-0.8, "mucosa"), (0.0, "cartilage_soft")),
        b.rough(block((0, -66, 0), (2.2, 70, 46), 0.8), "septum", 0.6, 30),
        under=(b.body, 3.0),
    )
    ethmoid = block((0, -56, 18), (26, 36, 22), 5)
    cells = b.waves("ethmoid", 9.0, 12)
    yield solid("ethmoid", ((0.0, "thin_bone"), (0.8, "mucosa")), ethmoid)
    yield Structure(
        "ethmoid cells", ((0.0, "air"),), speckle(ethmoid.grown(-1.2), cells, -0.5, 1.3), ethmoid.low, ethmoid.high
    )
    sphenoid = b.rough(block((0, -28, 10), (28, 24, 18), 7), "sphenoid", 1.0, 12)
    yield solid("sphenoid", ((-3.0, "thin_bone"), (0.0, "mucosa"), (0.8, "air")), sphenoid)
    yield solid(
        "frontal sinus",
        ((-1.4, "cortex"), (0.0, "air")),
        b.rough(blob((0, -90, 46), (36, 10, 20)), "frontal sinus", 1.2, 12),
        under=(b.body, 8.0),
    )
    for _, s in SIDES:
        yield solid(
            "nasal bone",
            "thin_bone",
            strap(mirror([(3, -94, 27), (4.5, -103, 8)], s), (0.9, 0.9), (3.5, 4), (1.2 * s, 1, 0.5)),
        )


def ear(b: Plan) -> Iterator[Structure]:
    """The inner ear."""
    for side, s in SIDES:
        name = "Cochlea_" + side
        centre = np.array((23 * s, -6, 5)) + b.offset(name)
        shape = b.rough(blob(centre, (8.6, 6.0, 6.0), tilt(0, 20 * s, -40 * s)).scaled(b.factor(name)), name, 0.15, 6)
        yield solid(name, "cochlea", shape, organ=name)
        yield solid("vestibule", "cochlea", blob(shifted(centre, 6 * s, 5, 1), (5, 7, 5)))
        yield solid(
            "internal meatus", "csf", pipe([shifted(centre, -2 * s, 3, 1), shifted(centre, -12 * s, 7, 2)], (1.6, 3.0))
        )
