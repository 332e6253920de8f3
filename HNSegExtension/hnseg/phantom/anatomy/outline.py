"""Skin, fat, fat planes and unnamed flesh; ears and the thermoplastic mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from hnseg.phantom.anatomy.builder import SIDES, Builder, Plan, mirror, tilt
from hnseg.phantom.shapes import Array, Points, Waves, smooth_path, step
from hnseg.phantom.structure import Remembered, Shape, Structure, View, blob, block, broad, pipe, solid, strap


def body_shape(b: Builder) -> Shape:
    """The skin: head, face, nose, neck, shoulders and chest, joined smoothly."""
    # The scalp follows the skull: same centre, same roughness.
    skull = blob((0, -22, 30), (150, 169, 204)).joined(blob((0, 12, 31), (163, 171, 208)), 22)
    head = b.rough(skull, "cavity", 1.0, 75)
    face = block((0, -43, -32), (118, 110, 132), 44).joined(blob((0, -60, -70), (84, 70, 62)), 20)
    jaws = blob((0, -10, -24), (158, 84, 104))
    head = head.joined(face, 22).joined(jaws, 22)
    for _, s in SIDES:
        head = head.without(blob((34 * s, -108, 17), (46, 46, 30)), 14)
        head = head.joined(blob((32 * s, -72, 18), (32, 33, 30)), 8)
        head = head.joined(blob((32 * s, -86, -8), (36, 24, 24)), 14)
    nose = pipe([(0, -96, 26), (0, -106, 2), (0, -113, -15), (0, -101, -24)], (4.5, 6, 8, 8), 60)
    wings = blob((8.5, -102, -20), (11, 18, 12)) | blob((-8.5, -102, -20), (11, 18, 12))
    head = head.joined(nose, 12).joined(wings, 6)
    neck_path = smooth_path([(0, 12, -20), (0, 17, -75), (0, 20, -120), (0, 26, -165), (0, 34, -205), (0, 36, -280)])
    neck = strap(neck_path, np.linspace(57, 66, len(neck_path)), np.linspace(62, 68, len(neck_path)), (0, 1, 0), 60)
    slope = [(-190, 40, -266), (-160, 42, -244), (-95, 46, -206), (-45, 40, -176), (45, 40, -176), (95, 46, -206),
             (160, 42, -244), (190, 40, -266)]  # fmt: skip
    shoulders = strap(smooth_path(slope), [52] * 22, [36] * 22, (0, 0, 1), 60)
    chest = block((0, 24, -320), (340, 190, 246), 75)
    body = head.joined(neck, 26).joined(shoulders, 40).joined(chest, 45)
    rough = b.rough(body, "body", 0.6, 80)
    return replace(rough, sdf=Remembered(rough.sdf))


def _ears(b: Plan) -> Shape:
    ears = None
    for side, s in SIDES:
        turn = tilt(0, 0, -s * 28)
        shell = blob((83 * s, 12, 2), (7, 34, 58), turn).without(blob((89 * s, 11, 5), (9, 22, 42), turn), 3)
        rim = pipe(
            mirror(
                smooth_path([(78, -2, -6), (80, -3, 18), (86, 14, 30), (90, 28, 14), (84, 16, -14), (79, 4, -26)]), s
            ),
            2.6,
        )
        ear = b.rough(shell.joined(rim, 4), "ear" + side, 0.7, 22)
        ears = ear if ears is None else ears | ear
    assert ears is not None
    return ears


def outline(b: Plan) -> Iterator[Structure]:
    """What lies between the skin and everything that has a name."""
    patient, body = b.patient, b.body
    if patient.mask_shell:
        yield _mask_shell(b)
    yield solid("ears", ((0.0, "skin"), (1.5, "cartilage_soft")), _ears(b))
    yield broad("body", ((0.0, "skin"), (1.8, "fat")), body)
    yield _bulk_muscle(b)
    yield _fascia(b)


def _mask_shell(b: Plan) -> Structure:
    """The thermoplastic mask over face and shoulders: a perforated shell just off the skin."""
    holes = b.waves("holes", 9.0, 10)

    def distance(view: View) -> Array:
        shell = np.maximum(np.abs(view.smooth(b.body.sdf) - 1.9) - 0.8, view.points[1] - 38)
        near = shell < 2
        x, y, z = (p[near] for p in view.points)
        shell[near] = np.maximum(shell[near], 0.35 - 2.5 * np.abs(holes((x, y, z))))
        return np.asarray(shell)

    return Structure("mask", ((0.0, "plastic"),), distance, b.body.low - 4, b.body.high + 4)


def _fat_depth(b: Plan, uneven: Waves, points: Points) -> Array:
    """Thickness of the subcutaneous fat: thick at chin, cheeks and nape, thin on the scalp; patient-dependent."""
    x, y, z = points
    scalp = step(z, 15, 45)
    depth = b.patient.fat_mm * (
        1
        + 0.5 * step(y, 45, 75) * step(z, -60, -110)
        + 0.5 * step(np.abs(x), 110, 60) * step(z, -75, -90) * step(y, -10, -50)
    )
    depth = depth * (1 + 0.25 * uneven(points))
    return np.asarray(depth * (1 - scalp) + 3.0 * scalp + 1.5, dtype=np.float32)


def _bulk_muscle(b: Plan) -> Structure:
    """The flesh that no structure names: neck, nape and shoulders below the fat; above, the face stays fat."""
    ragged = b.waves("ragged", 24.0)
    fine, uneven = b.waves("bulk", 16.0), b.waves("fat", 55.0)

    def depth(points: Points) -> Array:
        x, y, z = points
        face = np.minimum(20.0 - y + 3.0 * ragged(points), z + 62.0)
        visceral = np.minimum(22 - y, 40 - np.abs(x)) * step(z, -50, -80)
        below = b.body.sdf(points) + _fat_depth(b, uneven, points)
        deep = np.maximum(np.maximum(below, np.minimum(face, 12.0)), np.minimum(visceral, 8) * 0.8 - 3)
        return np.asarray(deep + np.float32(1.2) * fine(points), dtype=np.float32)

    return broad("flesh", "muscle", Shape(depth, b.body.low, b.body.high))


def _fascia(b: Plan) -> Structure:
    """Fat planes between muscles: the zero levels of a noise stretched along the neck, of uneven thickness."""
    sheets = b.waves("sheets", 30.0, 9, (1.4, 0.8, 3.0))
    thickness = b.waves("sheet thickness", 26.0)
    inside = lambda p: np.maximum(b.body.sdf(p) + 7.0, p[2] + 35.0)  # noqa: E731

    def distance(view: View) -> Array:
        half = np.float32(0.1) + np.float32(0.75) * view.smooth_here(thickness)
        return np.maximum(np.abs(view.smooth_here(sheets)) * np.float32(4.5) - half, view.smooth(inside))

    return Structure(
        "fascia", ((0.0, "fat"),), distance, b.body.low, np.minimum(b.body.high, (999, 999, -30)), blur_mm=0.8
    )
