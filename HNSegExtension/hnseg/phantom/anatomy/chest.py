"""Upper chest and shoulder girdle."""

from __future__ import annotations

from collections.abc import Iterator

from hnseg.phantom.anatomy.builder import SIDES, Plan, mirror, under_skin
from hnseg.phantom.shapes import smooth_path
from hnseg.phantom.structure import Structure, blob, block, pipe, solid, strap


def chest(b: Plan) -> Iterator[Structure]:
    """Lungs, clavicles, shoulders, ribs, sternum and the great vessels."""
    layers = ((0.0, "cortex"), (1.8, "marrow"))
    for side, s in SIDES:
        apex = b.rough(blob((58 * s, 28, -262), (84, 110, 110)), "lung" + side, 2.0, 40)
        yield solid("lung", ((-3.0, "fat"), (0.0, "lung")), apex)
        clavicle = smooth_path(mirror([(16, -34, -212), (55, -34, -206), (110, 2, -204), (160, 28, -206)], s))
        yield under_skin(b, "clavicle", layers, b.rough(pipe(clavicle, 6.0), "clavicle" + side, 0.5, 20), 5.0)
        yield under_skin(
            b, "humerus", layers, b.rough(blob((172 * s, 34, -246), (46, 46, 50)), "humerus" + side, 0.8, 20), 14.0
        )
        scapula = strap(mirror([(150, 62, -222), (110, 82, -236), (88, 90, -262)], s), (5, 4, 4), (7, 16, 20))
        yield under_skin(b, "scapula", layers, b.rough(scapula, "scapula" + side, 0.6, 16), 8.0)
        for k, (y0, z0) in enumerate(((30, -206), (36, -226), (42, -246))):
            rib = smooth_path(
                mirror(
                    [
                        (26, y0 + 24, z0 + 4),
                        (60 + 9 * k, y0 + 30, z0 - 4),
                        (84 + 9 * k, y0 - 10, z0 - 18),
                        (50 + 9 * k, y0 - 60, z0 - 32),
                    ],
                    s,
                )
            )
            yield solid("rib", layers, b.rough(pipe(rib, 4.2), f"rib{k}{side}", 0.3, 15))
        yield solid("subclavian", "artery", pipe(mirror([(14, 4, -222), (48, 4, -212), (100, 6, -224)], s), 4.4))
        yield solid(
            "subclavian vein", "vein", pipe(mirror([(16, -18, -224), (52, -16, -216), (104, -2, -230)], s), 5.5)
        )
    yield solid("manubrium", layers, block((0, -46, -238), (46, 12, 50), 5))
