"""Pharynx, larynx, airway, oesophagus, thyroid."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hnseg.phantom.anatomy.builder import SIDES, Plan, mirror, slab, tilt
from hnseg.phantom.shapes import Array, Points, smooth_path
from hnseg.phantom.structure import Shape, Structure, blob, block, pipe, solid, strap


def larynx(b: Plan) -> Iterator[Structure]:
    """From the nasopharynx to the trachea: walls, cartilages, fat and air."""
    yield from _pharynx(b)
    yield solid(
        "hyoid",
        ((0.0, "cortex"), (1.3, "marrow")),
        strap(
            smooth_path([(-22, -16, -82), (-15, -32, -87), (0, -40, -89), (15, -32, -87), (22, -16, -82)], 2), 2.6, 3.4
        ),
    )
    supra = b.rough(
        blob((0, -20, -106), (32, 30, 38)).joined(block((0, -20, -106), (25, 24, 32), 8), 4), "supraglottis", 0.6, 14
    )
    supra = b.place(supra, "Larynx_SG").within(slab(-121.5 + b.offset("Glottis")[2], -60))
    yield solid("Larynx_SG", ((0.0, "larynx_fat"), (2.5, "larynx")), supra, organ="Larynx_SG")
    glottis = b.rough(blob((0, -20, -127), (20, 31, 13)), "glottis", 0.4, 10)
    yield solid("Glottis", "larynx", b.place(glottis, "Glottis"), organ="Glottis")
    yield from _cartilages(b)
    yield from _airway(b)


def _pharynx(b: Plan) -> Iterator[Structure]:
    wall = strap(smooth_path([(0, -18, -8), (0, -13, -40), (0, -9, -80), (0, -4, -120)]), 16, 4.5, (0, 1, 0))
    yield solid("pharynx", ((-1.4, "fat"), (0.0, "muscle")), b.rough(wall, "pharynx", 0.7, 16))
    inlet = b.rough(
        strap([(0, -4, -132), (0, -2, -140), (0, 0, -148)], (11.5, 12, 10), (5, 5.4, 5.6), (0, 1, 0)),
        "cricopharyngeus",
        0.4,
        10,
    )
    yield solid(
        "Cricopharyngeus",
        ((-0.9, "fat"), (0.0, "cricopharyngeus")),
        b.place(inlet, "Cricopharyngeus"),
        organ="Cricopharyngeus",
    )
    gullet = smooth_path([(0, 1, -149), (1, 4, -158), (2, 7, -168)])
    name = "Esophagus_S"
    f = b.factor(name)
    shape = b.rough(strap(gullet, 8.0 * f, 5.6 * f, (0, 1, 0)), name, 0.35, 10).moved(b.offset(name))
    yield solid(
        "lower oesophagus",
        ((-0.8, "fat"), (0.0, "oesophagus")),
        strap(np.vstack([gullet[-1], (4, 14, -195), (6, 22, -240)]), 8 * f, 5.6 * f, (0, 1, 0)),
    )
    yield solid(name, ((-0.8, "fat"), (0.0, "oesophagus")), shape, organ=name)


def _cartilages(b: Plan) -> Iterator[Structure]:
    hard = "calcified" if b.patient.calcified > 0.35 else "cartilage"
    for _, s in SIDES:
        lamina = strap(mirror([(1, -41, -116), (12, -30, -116), (21, -10, -115)], s), 1.7, (9, 13, 14))
        yield solid("thyroid cartilage", ((0.0, "cartilage"), (0.6, hard)), b.rough(lamina, f"lamina{s}", 0.3, 9))
    cricoid = Shape(_cricoid, np.array([-15.0, -35, -146]), np.array([15.0, -5, -126]))
    yield solid("cricoid", ((0.0, "cartilage"), (0.8, hard)), cricoid)
    f = b.factor("Arytenoid")
    size = (6.6 * f, 7.4 * f, 11 * f)
    pair = blob((6, -8, -122), size, tilt(0, 15, 0)) | blob((-6, -8, -122), size, tilt(0, -15, 0))
    yield solid("Arytenoid", ((0.0, "cartilage"), (1.2, hard)), pair.moved(b.offset("Arytenoid")), organ="Arytenoid")


def _cricoid(points: Points) -> Array:
    """A signet ring: low in front, high behind."""
    x, y, z = points
    ring = np.abs(np.sqrt(np.square(x) + np.square(y + 20)) - np.float32(11.5)) - np.float32(2.2)
    height = 3.5 + np.float32(0.35) * np.clip(y + 20, 0, 12)
    return np.asarray(np.maximum(ring, np.abs(z + 136) - height), dtype=np.float32)


def _airway(b: Plan) -> Iterator[Structure]:
    nasopharynx = b.rough(block((0, -26, -8), (26, 18, 30), 6), "nasopharynx", 0.7, 12)
    yield solid("nasopharynx", ((-1.5, "mucosa"), (0.0, "air")), nasopharynx)
    oro = b.rough(
        strap(smooth_path([(0, -20, -22), (0, -15, -46), (0, -14, -70), (0, -15, -92)]), 9.5, 4.2, (0, 1, 0)),
        "oropharynx",
        0.9,
        14,
    )
    yield solid("oropharynx", "air", oro)
    yield solid(
        "epiglottis",
        "mucosa",
        strap([(0, -20, -78), (0, -24, -92), (0, -30, -106)], (9, 8, 4), (1.5, 1.6, 1.6), (0, 1, 0)),
    )
    yield solid("vestibule", "air", pipe([(0, -18, -92), (0, -19, -106), (0, -21, -120)], (5.5, 5, 3.5)))
    for s in (-1, 1):
        yield solid(
            "pyriform sinus",
            "air",
            b.rough(strap([(s * 14, -10, -98), (s * 12, -8, -116)], (3.6, 1.8), (3.2, 2)), f"pyriform{s}", 0.4, 9),
        )
    yield solid("rima glottidis", "air", strap([(0, -19, -119), (0, -19, -134)], (1.8, 3.5), (9, 8.5), (0, 1, 0)))
    trachea = smooth_path([(0, -20, -133), (0, -21, -150), (1, -16, -190), (2, -6, -250)])
    yield solid(
        "trachea",
        ((-2.3, "fat"), (-2.0, "cartilage_soft"), (0.0, "air")),
        b.rough(pipe(trachea, 8.0), "trachea", 0.4, 18),
    )


def thyroid(b: Plan) -> Iterator[Structure]:
    """Two lobes and the isthmus."""
    name = "Glnd_Thyroid"
    f = b.factor(name)
    lobes: Shape | None = None
    for side, s in SIDES:
        share = 1 + 0.08 * s * b.patient.options.variation * float(np.clip(b.patient.rng(7).normal(), -2, 2))
        path = smooth_path(mirror([(17, -13, -130), (20, -15, -148), (18.5, -17, -168)], s))
        lobe = strap(
            path,
            np.interp(np.linspace(0, 1, len(path)), (0, 0.5, 1), (4.5, 7.2, 6)) * f * share,
            np.interp(np.linspace(0, 1, len(path)), (0, 0.5, 1), (6, 9.5, 7.5)) * f * share,
            (0, 1, 0),
        )
        lobe = b.rough(lobe, name + side, 0.8, 12).moved((4.0 * (f - 1) * s, 0, 0))
        lobes = lobe if lobes is None else lobes | lobe
    assert lobes is not None
    isthmus = strap(
        [(-18, -20, -155), (-11, -30, -157), (0, -33.5, -157), (11, -30, -157), (18, -20, -155)], 2.6 * f, 6.5 * f
    )
    gland = lobes.joined(isthmus, 4).moved(b.offset(name))
    airway = pipe([(0, -20, -120), (0, -21, -150), (1, -16, -190)], 9.3)
    yield solid(name, ((-0.8, "fat"), (0.0, "thyroid")), gland.without(airway), organ=name)
