"""Brain: cortex and sulci, white matter, ventricles, cerebellum, brainstem."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from hnseg.phantom.anatomy.builder import SIDES, Plan, mirror, speckle, tilt
from hnseg.phantom.shapes import Array, smooth_path
from hnseg.phantom.structure import Shape, Structure, View, blob, block, pipe, solid, strap


def brain(b: Plan) -> Iterator[Structure]:
    """Cortex, white matter, ventricles, cerebellum, brainstem, cisterns."""
    cavity = b.cavity
    gyri, gyri2 = b.waves("gyri", 25.0, 10), b.waves("gyri2", 31.0, 10)

    def sulcus(view: View) -> Array:
        """Distance from the nearest sulcus (positive in it): sheets near the surface, deeper ones rarer."""
        depth = view.smooth(cavity.sdf)
        sheet = np.minimum(np.abs(view.smooth_here(gyri)), np.abs(view.smooth_here(gyri2)) + 0.12) * np.float32(4.2)
        return np.asarray(
            np.minimum(sheet + np.maximum(-depth - 14, 0) * 0.3, np.maximum(-depth - 1.6, -1)), dtype=np.float32
        )

    def grey(view: View) -> Array:
        return np.asarray(np.maximum(view.smooth(cavity.sdf) + np.float32(1.6), np.float32(0.6) - sulcus(view)))

    def white(view: View) -> Array:
        return np.asarray(np.maximum(view.smooth(cavity.sdf) + np.float32(4.8), np.float32(3.6) - sulcus(view)))

    yield Structure("cortex", ((0.0, "grey"),), grey, cavity.low, cavity.high)
    yield Structure("white matter", ((0.0, "white"),), white, cavity.low, cavity.high)
    falx = Shape(
        lambda p: np.maximum(np.abs(p[0]) - np.float32(0.9), np.float32(58) - p[2] - np.maximum(p[1] - 20, 0)),
        np.array([-2, -95, -20.0]),
        np.array([2, 90, 125.0]),
    )
    yield Structure(
        "fissure",
        ((0.0, "csf"),),
        lambda v: np.maximum(falx.sdf(v.points), v.smooth(cavity.sdf) + 1),
        falx.low,
        falx.high,
    )
    for side, s in SIDES:
        basal = b.rough(blob((20 * s, -12, 50), (16, 34, 26), tilt(0, 0, s * 18)), "basal" + side, 1.0, 20)
        yield solid("basal ganglia", "grey", basal)
        horn = pipe(
            mirror(smooth_path([(7, -38, 60), (8, -10, 68), (12, 18, 64), (24, 30, 48), (29, 8, 32)]), s),
            (4.5,) * 3 + (5.0,) * 3 + (5.5,) * 4 + (3.0,) * 3,
        )
        yield solid("ventricle", "csf", b.rough(horn, "horn" + side, 0.6, 25))
        folia = b.waves("folia" + side, 7.0, 12, (3, 1, 1))
        lobe = b.rough(blob((24 * s, 34, -2), (56, 50, 46)), "cerebellum" + side, 1.2, 20)
        yield Structure("cerebellum", ((0.0, "grey"),), _inside(lobe, cavity), lobe.low, lobe.high)
        yield Structure("arbor vitae", ((0.0, "white"),), speckle(lobe.grown(-4), folia, 0.1, 1.2), lobe.low, lobe.high)
        yield solid("deep cerebellum", "white", blob((20 * s, 30, 0), (28, 22, 18)))
    yield solid("third ventricle", "csf", block((0, -6, 46), (4, 24, 18), 2))
    stem = smooth_path([(0, 1, 25), (0, 5, 9), (0, 10, -8), (0, 13.5, -27)])
    n = len(stem)
    wide = np.interp(np.linspace(0, 1, n), (0, 0.25, 0.5, 0.75, 1), (13.5, 15.5, 14.5, 10.5, 8))
    deep = np.interp(np.linspace(0, 1, n), (0, 0.25, 0.5, 0.75, 1), (11, 14, 13, 9.5, 7))
    brainstem = b.place(b.rough(strap(stem, wide, deep, (0, 1, 0)), "brainstem", 0.4, 18), "Brainstem")
    yield solid("brainstem", ((-1.6, "csf"), (0.0, "brainstem")), brainstem, organ="Brainstem")
    yield solid("fourth ventricle", "csf", block((0, 23, -2), (9, 5, 16), 2.4))
    yield solid("suprasellar cistern", "csf", blob((0, -18, 34), (24, 22, 15)))
    yield solid("basilar artery", "artery", pipe([(0, -9, -18), (0, -10, 4), (0, -7, 26)], 1.7))


def _inside(lobe: Shape, cavity: Shape) -> Callable[[View], Array]:
    """A part of the brain, 2 mm within the skull's cavity."""
    return lambda view: np.maximum(lobe.sdf(view.points), view.smooth(cavity.sdf) + 2)
