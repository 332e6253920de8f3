"""Mandible, teeth, mouth and the muscles that move them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hnseg.phantom.anatomy.builder import SIDES, Plan, mirror, muscle, tilt
from hnseg.phantom.patient import Patient
from hnseg.phantom.shapes import smooth_path
from hnseg.phantom.structure import Shape, Structure, blob, block, pipe, solid, strap


def jaw(b: Plan) -> Iterator[Structure]:
    """Mandible, teeth, mouth, and the muscles of mastication."""
    mandible = _mandible(b)
    for side, s in SIDES:
        masseter = strap(
            mirror([(57, -40, -8), (57, -32, -30), (55, -24, -56)], s), (6, 7.5, 5), (14, 15, 12), (0, 1, 0)
        )
        temporalis = strap(
            mirror([(70, -22, 46), (66, -30, 16), (56, -36, -14)], s), (3, 6.5, 6), (32, 22, 9), (0, 1, 0)
        )
        medial = strap(mirror([(20, -30, -14), (33, -25, -34), (42, -17, -52)], s), (6, 7, 5), (8, 9, 8), (0, 1, 0))
        lateral = pipe(mirror([(20, -34, -8), (34, -24, -6), (46, -13, -5)], s), (6, 7.5, 4))
        for name, shape in (
            ("masseter", masseter),
            ("temporalis", temporalis),
            ("medial pterygoid", medial),
            ("lateral pterygoid", lateral),
        ):
            yield muscle(b, name + side, shape)
        yield muscle(
            b,
            "buccinator" + side,
            strap(mirror([(41, -36, -46), (41, -58, -46), (30, -80, -48)], s), (2, 2, 2), (14, 14, 8)),
        )
        yield muscle(
            b,
            "digastric" + side,
            pipe(mirror([(8, -74, -92), (16, -50, -92), (30, -20, -82), (52, 12, -30)], s), (4, 4, 3.5, 4)),
        )
    yield from _mouth(b)
    shape = b.rough(mandible, "mandible", 0.5, 16)
    yield solid("Bone_Mandible", ((0.0, "cortex"), (2.1, "marrow")), shape, organ="Bone_Mandible")
    for _, s in SIDES:
        yield solid("mandibular canal", "fat", pipe(mirror([(48, -18, -38), (41, -38, -68), (29, -66, -78)], s), 1.3))
    yield from _teeth(b)


def _mandible(b: Plan) -> Shape:
    f = b.factor("Bone_Mandible")
    body: Shape | None = None
    for _, s in SIDES:
        curve = smooth_path(
            [(0, -83, -81), (14, -80.5, -81), (27, -68, -78), (36, -50, -72), (42.5, -33, -66), (47, -17, -59)], 3
        )
        corpus = strap(mirror(curve, s), 5.6 * f, np.linspace(15.5, 13, len(curve)) * f)
        ramus = strap(
            mirror([(47, -14, -58), (49, -21, -36), (49, -20, -18)], s),
            (4.2 * f, 3.8 * f, 3.2 * f),
            (13 * f, 15.5 * f, 14 * f),
            (0, 1, 0),
        )
        neck = strap(mirror([(49, -13, -22), (50, -8, -4)], s), (3.4 * f, 4.2 * f), (6.5 * f, 4.6 * f), (0, 1, 0))
        condyle = blob((50 * s, -8, -2), (18 * f, 9 * f, 9 * f), tilt(0, 0, s * 15))
        coronoid = strap(mirror([(49, -29, -26), (48, -35, -6)], s), (3 * f, 2.0), (7 * f, 3.0), (0, 1, 0))
        half = corpus.joined(ramus, 7).joined(neck, 4).joined(condyle, 3).joined(coronoid, 4)
        body = half if body is None else body.joined(half, 2)
    assert body is not None
    chin = blob((0, -86, -90), (26 * f, 12 * f, 15 * f))
    sockets = strap(_arch_path(-61.5), 4.3 * f, 6.5 * f)
    return body.joined(chin, 6).joined(sockets, 5).moved(b.offset("Bone_Mandible"))


def _mouth(b: Plan) -> Iterator[Structure]:
    lips = b.rough(blob((0, -91, -52), (60, 26, 40)), "lips", 0.8, 14)
    lips = b.place(lips, "Lips")
    yield solid("Lips", "lips", lips, organ="Lips", under=(b.body, 0.3))
    cavity = b.rough(block((0, -51, -52), (61, 62, 50), 22), "mouth", 0.8, 20)
    cavity = b.place(cavity, "Cavity_Oral")
    yield solid("floor of mouth", "mucosa", cavity, under=(b.body, 4.0))
    buccal = []
    f = b.factor("BuccalMucosa")
    for side, s in SIDES:
        sheet = strap(mirror([(37, -40, -50), (38, -58, -50), (32, -76, -51)], s), 3.7 * f, 18.5 * f)
        buccal.append(b.rough(sheet, "buccal" + side, 0.5, 12).moved(b.offset("BuccalMucosa")))
    cheeks = buccal[0] | buccal[1]
    yield solid("BuccalMucosa", "buccal", cheeks, organ="BuccalMucosa", under=(b.body, 3.0))
    tongue = b.rough(blob((0, -48, -56), (50, 58, 42)), "tongue", 1.0, 18).joined(blob((0, -34, -68), (38, 34, 40)), 12)
    yield solid(
        "tongue",
        ((-1.0, "air"), (0.0, "mucosa"), (1.6, "tongue")),
        tongue.within(block((0, -48, -60), (58, 66, 54), 10)),
    )
    yield solid("lingual septum", "fascia", block((0, -46, -60), (1.4, 40, 26), 0.6))
    for _, s in SIDES:
        yield solid(
            "genioglossus",
            "muscle",
            strap(mirror([(6, -74, -84), (7, -52, -66), (7, -40, -52)], s), (4, 5, 4), (4, 9, 8)),
        )
        yield solid("sublingual", "parotid", blob((17 * s, -60, -76), (9, 30, 12), tilt(0, 0, -s * 18)))
    yield muscle(
        b,
        "mylohyoid",
        strap([(-34, -46, -76), (-16, -52, -87), (0, -54, -90), (16, -52, -87), (34, -46, -76)], [22] * 5, [2] * 5),
    )
    yield solid("Cavity_Oral", (), cavity, organ="Cavity_Oral", under=(b.body, 4.0))
    yield solid("palate gap", "air", block((0, -52, -34), (30, 34, 3.0), 1.4))
    yield solid(
        "soft palate",
        "mucosa",
        strap([(0, -38, -30), (0, -24, -34), (0, -15, -50)], (15, 13, 5), (3.4, 4, 3.5), (0, 0, 1)),
    )


def _arch(s: float, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """The dental arch in the axial plane: t = 0 between the incisors, 1 at the last molar."""
    return np.stack([s * 28 * np.sin(np.pi / 2 * t**0.95), -80 + 40 * t**1.75], axis=-1)


def _arch_path(z: float) -> NDArray[np.float64]:
    """The whole dental arch from right to left at that height."""
    t = np.linspace(0, 1, 5)
    line = np.vstack([_arch(-1, t)[::-1], _arch(1, t)[1:]])
    return np.column_stack([line, np.full(len(line), z)])


def _teeth(b: Plan) -> Iterator[Structure]:
    missing = b.patient.rng(3).uniform(size=(2, 2, 7)) < 0.08
    for upper in (0, 1):
        if upper:
            yield solid("alveolar ridge", ((0.0, "thin_bone"), (1.4, "marrow")), strap(_arch_path(-33.0), 5.0, 6.5))
        for index, (_, s) in enumerate(SIDES):
            for n, (t, width) in enumerate(
                ((0.09, 6.4), (0.25, 6.2), (0.4, 7), (0.53, 6.8), (0.66, 7), (0.82, 10), (1.0, 10))
            ):
                if missing[upper, index, n]:
                    continue
                x, y = (float(v) for v in _arch(s, np.array(t)))
                sign = 1 if upper else -1
                crown = block(
                    (x, y, -41.5 if upper else -50),
                    (width, 6 + 3.4 * (t > 0.6), 8),
                    2.6,
                    tilt(0, 0, float(np.degrees(np.arctan2(s * t * 30, 26)))),
                )
                root = pipe(
                    [(x, y, -41.5 if upper else -50), (x * 0.95, y + 1.5, (-41.5 if upper else -50) + sign * 15)],
                    (2.7, 1.0),
                )
                yield solid("tooth", ((0.0, "tooth"), (2.6, "pulp")), crown.joined(root, 2))
    for x, y, z, size in metal_places(b.patient):
        yield solid("filling", "metal", blob((x, y, z), (2 * size, 2 * size, 1.4 * size)))


def metal_places(patient: Patient) -> NDArray[np.float64]:
    """Fillings (N, 4): canonical x, y, z and radius in mm."""
    rows = [(*_arch(np.sign(t), np.array(abs(t))), -43.5 if upper else -48.0, size) for t, upper, size in patient.metal]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)
