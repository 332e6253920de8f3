"""The structure table: every tissue of the head and neck as a shape in the canonical frame, in painting order.

Canonical frame: LPS mm, origin midway between the ear canals, +x left, +y posterior, +z up. Places and sizes of the organs
are those of HaN-Seg; the rest is textbook anatomy. Later structures cover earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from hnseg.phantom.patient import Patient
from hnseg.phantom.shapes import Array, Points, Waves, smooth_path, step, union
from hnseg.phantom.structure import Shape, Structure, View, blob, block, broad, pipe, solid, strap

# Volume in mL of each organ's label in the average patient at factor 1 (measured; a test keeps it true).
NOMINAL_ML: dict[str, float] = dict(
    A_Carotid_L=5.89, A_Carotid_R=5.89, Arytenoid=0.55, Bone_Mandible=61.8, Brainstem=28.9, BuccalMucosa=17.9,
    Cavity_Oral=127, Cochlea_L=0.165, Cochlea_R=0.165, Cricopharyngeus=3.52, Esophagus_S=3.84, Eye_AL=1.14, Eye_AR=1.14,
    Eye_PL=6.66, Eye_PR=6.66, Glnd_Lacrimal_L=0.84, Glnd_Lacrimal_R=0.84, Glnd_Submand_L=9.5, Glnd_Submand_R=9.5,
    Glnd_Thyroid=16.2, Glottis=4.05, Larynx_SG=20.7, Lips=31, OpticChiasm=0.65, OpticNrv_L=0.62, OpticNrv_R=0.62,
    Parotid_L=32.3, Parotid_R=32.3, Pituitary=0.48, SpinalCord=11.8,
)  # fmt: skip

CORD = np.array([(0, 14, -28), (0, 20, -60), (0, 20, -100), (0, 28, -150), (0, 40, -185), (0, 48, -215), (0, 58, -260)])
CAROTID = np.array([(18, 10, -190), (24, 0, -130), (25, -2, -88), (28, -2, -10)])
_TUBES = ("A_Carotid_L", "A_Carotid_R", "OpticNrv_L", "OpticNrv_R", "SpinalCord")
SIDES = (("L", 1.0), ("R", -1.0))


def anatomy(patient: Patient) -> tuple[Structure, ...]:
    """All structures of the patient, in painting order."""
    builder = _Builder(patient)
    return tuple(structure for region in _REGIONS for structure in region(builder))


@dataclass(frozen=True)
class _Builder:
    patient: Patient

    def factor(self, organ: str) -> float:
        """Linear scale of the organ that gives its target volume (radius scale for tubes)."""
        nominal = NOMINAL_ML.get(organ)
        if nominal is None:
            return 1.0
        ratio = self.patient.target_ml[organ] / nominal / float(np.prod(self.patient.pose.scale))
        return float(np.clip(ratio ** (1 / 2 if organ in _TUBES else 1 / 3), 0.5, 1.7))

    def offset(self, organ: str) -> NDArray[np.float64]:
        return np.asarray(self.patient.offset_mm[organ])

    def waves(
        self, key: str, wavelength_mm: float, count: int = 8, stretch: tuple[float, float, float] = (1, 1, 1)
    ) -> Waves:
        """Noise that belongs to ``key``: the same for the same patient and key."""
        return Waves.draw(self.patient.rng(2, *key.encode()), wavelength_mm, count, stretch)

    def rough(self, shape: Shape, key: str, amplitude_mm: float, wavelength_mm: float) -> Shape:
        amount = amplitude_mm * (0.4 + 0.6 * self.patient.options.variation)
        return shape.rough(self.waves(key, wavelength_mm), amount)

    def place(self, shape: Shape, organ: str) -> Shape:
        """Scaled to the organ's volume and moved to the patient's place for it."""
        return shape.scaled(self.factor(organ)).moved(self.offset(organ))

    @cached_property
    def body(self) -> Shape:
        return _body(self)

    @cached_property
    def cavity(self) -> Shape:
        return _cranial_cavity(self)


def _half_space(normal: tuple[float, float, float], through: tuple[float, float, float]) -> Shape:
    """Everything on the far side of a plane from its outward ``normal``."""
    n = np.asarray(normal) / np.linalg.norm(normal)
    reach = float(n @ np.asarray(through))
    a, c, d = (np.float32(v) for v in n)
    everywhere = np.full(3, 999.0)
    return Shape(lambda p: a * p[0] + c * p[1] + d * p[2] - np.float32(reach), -everywhere, everywhere)


def _inside(b: _Builder, shape: Shape, depth_mm: float) -> Shape:
    """The part that lies at least ``depth_mm`` under the skin."""
    return shape.within(b.body.grown(-depth_mm))


def _tilt(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> NDArray[np.float64]:
    return np.asarray(Rotation.from_euler("xyz", (x, y, z), degrees=True).as_matrix())


def _mirror(path: object, sign: float) -> NDArray[np.float64]:
    return np.asarray(path, dtype=np.float64) * (sign, 1, 1)


# --- outline -----------------------------------------------------------------------------------------------------


def _body(b: _Builder) -> Shape:
    # The scalp follows the skull: same centre, same roughness.
    head = b.rough(blob((0, -5, 30), (163, 203, 209)), "cavity", 1.0, 75)
    face = block((0, -43, -32), (118, 110, 132), 44).joined(blob((0, -60, -70), (84, 70, 62)), 20)
    jaws = blob((0, -10, -24), (158, 84, 104))
    head = head.joined(face, 22).joined(jaws, 22)
    for _, s in SIDES:
        head = head.without(blob((34 * s, -108, 17), (46, 46, 30)), 14)
        head = head.joined(blob((32 * s, -72, 18), (32, 33, 30)), 8)
        head = head.joined(blob((32 * s, -86, -8), (36, 24, 24)), 14)
    nose = pipe([(0, -96, 26), (0, -106, 2), (0, -113, -15), (0, -101, -24)], (4.5, 6, 8, 8))
    wings = blob((8.5, -102, -20), (11, 18, 12)) | blob((-8.5, -102, -20), (11, 18, 12))
    head = head.joined(nose, 12).joined(wings, 6)
    neck_path = smooth_path([(0, 12, -20), (0, 17, -75), (0, 20, -120), (0, 26, -165), (0, 34, -205), (0, 36, -280)])
    neck = strap(neck_path, np.linspace(57, 66, len(neck_path)), np.linspace(62, 68, len(neck_path)), (0, 1, 0), 60)
    slope = [(-190, 40, -266), (-160, 42, -244), (-95, 46, -206), (-45, 40, -176), (45, 40, -176), (95, 46, -206),
             (160, 42, -244), (190, 40, -266)]  # fmt: skip
    shoulders = strap(smooth_path(slope), [52] * 22, [36] * 22, (0, 0, 1), 60)
    chest = block((0, 24, -320), (340, 190, 246), 75)
    body = head.joined(neck, 26).joined(shoulders, 40).joined(chest, 45)
    return b.rough(body, "body", 0.6, 80)


def _ears(b: _Builder) -> Shape:
    ears = None
    for side, s in SIDES:
        tilt = _tilt(0, 0, -s * 28)
        shell = blob((83 * s, 12, 2), (7, 34, 58), tilt).without(blob((89 * s, 11, 5), (9, 22, 42), tilt), 3)
        rim = pipe(
            _mirror(
                smooth_path([(78, -2, -6), (80, -3, 18), (86, 14, 30), (90, 28, 14), (84, 16, -14), (79, 4, -26)]), s
            ),
            2.6,
        )
        ear = b.rough(shell.joined(rim, 4), "ear" + side, 0.7, 22)
        ears = ear if ears is None else ears | ear
    assert ears is not None
    return ears


def outline(b: _Builder) -> Iterator[Structure]:
    patient, body = b.patient, b.body
    if patient.mask_shell:
        holes = b.waves("holes", 9.0, 10)
        front = lambda view: np.maximum(  # noqa: E731
            np.abs(view.smooth(body.sdf) - 1.9) - 0.8,
            np.maximum(view.points[1] - 38, 0.35 - np.abs(holes(view.points)) * 2.5),
        )
        yield Structure("mask", ((0.0, "plastic"),), front, body.low - 4, body.high + 4)
    yield solid("ears", ((0.0, "skin"), (1.5, "cartilage_soft")), _ears(b))
    yield broad("body", ((0.0, "skin"), (1.8, "fat")), body)
    yield _bulk_muscle(b)
    yield _fascia(b)


def _fat_depth(b: _Builder, points: Points) -> Array:
    """Thickness of the subcutaneous fat: thick at chin, cheeks and nape, thin on the scalp; patient-dependent."""
    x, y, z = points
    scalp = step(z, 15, 45)
    depth = b.patient.fat_mm * (
        1
        + 0.5 * step(y, 45, 75) * step(z, -60, -110)
        + 0.5 * step(np.abs(x), 110, 60) * step(z, -75, -90) * step(y, -10, -50)
    )
    depth = depth * (1 + 0.25 * b.waves("fat", 55.0)(points))
    return np.asarray(depth * (1 - scalp) + 3.0 * scalp + 1.5, dtype=np.float32)


def _bulk_muscle(b: _Builder) -> Structure:
    """The flesh that no structure names: neck, nape and shoulders below the fat; above, the face stays fat."""

    def depth(points: Points) -> Array:
        x, y, z = points
        face = np.minimum(20.0 - y + 3.0 * ragged(points), z + 62.0)
        visceral = np.minimum(22 - y, 40 - np.abs(x)) * step(z, -50, -80)
        return np.maximum(
            np.maximum(b.body.sdf(points) + _fat_depth(b, points), np.minimum(face, 12.0)),
            np.minimum(visceral, 8) * 0.8 - 3,
        )

    fine, ragged = b.waves("bulk", 16.0), b.waves("ragged", 24.0)

    def distance(view: View) -> Array:
        return view.smooth(depth) + np.float32(1.2) * view.smooth(fine)

    return Structure("flesh", ((0.0, "muscle"),), distance, b.body.low, b.body.high)


def _fascia(b: _Builder) -> Structure:
    """Fat planes between muscles: the zero levels of a noise stretched along the neck, of uneven thickness."""
    sheets = b.waves("sheets", 30.0, 9, (1.4, 0.8, 3.0))
    thickness = b.waves("sheet thickness", 26.0)
    inside = lambda p: np.maximum(b.body.sdf(p) + 7.0, p[2] + 35.0)  # noqa: E731

    def distance(view: View) -> Array:
        half = np.float32(0.1) + np.float32(0.75) * view.smooth(thickness)
        return np.maximum(np.abs(view.smooth(sheets)) * np.float32(4.5) - half, view.smooth(inside))

    return Structure(
        "fascia", ((0.0, "fat"),), distance, b.body.low, np.minimum(b.body.high, (999, 999, -30)), blur_mm=0.8
    )


# --- skull and brain ---------------------------------------------------------------------------------------------


def _cranial_floor(points: Points) -> Array:
    """Height z of the floor of the skull: anterior, middle and posterior fossa, sella and clivus."""
    x, y, _ = points
    side = np.abs(x)
    clivus = np.clip(20 - 3.0 * (y + 13), -36, 20)
    behind = step(y - (-14 + 0.62 * (side - 10)), -6, 8)
    posterior = -31 + 14 * np.square(side / 48)
    lateral = (1 - behind) * 3.0 + behind * posterior
    central = step(side, 21, 10)
    floor = central * clivus + (1 - central) * lateral
    front = step(y, -42, -52)
    dome = np.exp(-np.square((side - 31) / 17) - np.square((y + 70) / 24))
    orbit_roof = 25 + 13 * dome - 3 * step(side, 9, 4)
    return np.asarray(floor * (1 - front) + front * orbit_roof, dtype=np.float32)


def _cranial_cavity(b: _Builder) -> Shape:
    vault = blob((0, -5, 30), (141, 181, 187))
    raw = Shape(
        lambda p: union(-vault.sdf(p), -(_cranial_floor(p) - p[2]) * np.float32(0.75), 5.0) * np.float32(-1),
        vault.low,
        vault.high,
    )
    return b.rough(raw, "cavity", 1.0, 75)


def skull(b: _Builder) -> Iterator[Structure]:
    cavity = b.cavity
    thickness_noise = b.waves("vault", 40.0)

    def bone(points: Points) -> Array:
        """Distance to the outside of the skull: the cavity grown by the bone's thickness."""
        thickness = 6.3 * step(points[2], 10, 45) + 4.2 * step(points[2], 45, 10)
        return np.asarray(cavity.sdf(points) - thickness * (1 + 0.14 * thickness_noise(points)), dtype=np.float32)

    outer = Shape(bone, cavity.low - 9, cavity.high + 9)
    yield broad("skull", ((0.0, "cortex"), (1.9, "diploe")), outer)
    yield broad("inner table", ((-1.5, "cortex"), (0.0, "csf")), cavity)
    for side, s in SIDES:
        ridge = b.rough(
            pipe(_mirror([(12, -16, 6), (24, -6, 3), (46, 8, 0), (60, 16, -4)], s), (7, 10, 13, 13)),
            "petrous" + side,
            1.3,
            16,
        )
        mastoid = b.rough(blob((59 * s, 19, -15), (22, 30, 40), _tilt(18)), "mastoid" + side, 1.2, 14)
        yield solid("mastoid", ((0.0, "cortex"), (2.0, "vertebra")), mastoid)
        yield solid("petrous", ((0.0, "petrous"),), ridge)
        cells = b.waves("cells" + side, 6.0, 12)
        air = mastoid.grown(-2.5).joined(blob((50 * s, 10, 2), (20, 20, 18)), 6)
        yield Structure("mastoid cells", ((0.0, "air"),), _speckle(air, cells, 0.25, 1.0), air.low, air.high)
        yield solid("ear canal", "air", pipe(_mirror([(86, 2, 0), (66, 0, 2), (46, -1, 4)], s), (3.6, 3.2, 3.4)))
    yield from _brain(b)


def _speckle(shape: Shape, waves: Waves, level: float, size_mm: float):  # type: ignore[no-untyped-def]
    """Cells: where the noise exceeds ``level``, inside the shape."""
    return lambda view: np.maximum(
        shape.sdf(view.points), (np.float32(level) - waves(view.points)) * np.float32(size_mm)
    )


def _brain(b: _Builder) -> Iterator[Structure]:
    cavity = b.cavity
    gyri, gyri2 = b.waves("gyri", 17.0, 14), b.waves("gyri2", 21.0, 14)

    def sulcus(view: View) -> Array:
        """Distance from the nearest sulcus (positive in it): sheets near the surface, deeper ones rarer."""
        depth = view.smooth(cavity.sdf)
        sheet = np.minimum(np.abs(view.smooth(gyri)), np.abs(view.smooth(gyri2)) + 0.12) * np.float32(3.2)
        return np.asarray(
            np.minimum(sheet + np.maximum(-depth - 16, 0) * 0.35, np.maximum(-depth - 1.6, -1)), dtype=np.float32
        )

    def grey(view: View) -> Array:
        return np.maximum(view.smooth(cavity.sdf) + np.float32(1.6), np.float32(0.75) - sulcus(view))

    def white(view: View) -> Array:
        return np.maximum(view.smooth(cavity.sdf) + np.float32(4.8), np.float32(4.0) - sulcus(view))

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
        basal = b.rough(blob((20 * s, -12, 50), (16, 34, 26), _tilt(0, 0, s * 18)), "basal" + side, 1.0, 20)
        yield solid("basal ganglia", "grey", basal)
        horn = pipe(
            _mirror(smooth_path([(7, -38, 60), (8, -10, 68), (12, 18, 64), (24, 30, 48), (29, 8, 32)]), s),
            (4.5,) * 3 + (5.0,) * 3 + (5.5,) * 4 + (3.0,) * 3,
        )
        yield solid("ventricle", "csf", b.rough(horn, "horn" + side, 0.6, 25))
        folia = b.waves("folia" + side, 7.0, 12, (3, 1, 1))
        lobe = b.rough(blob((24 * s, 34, -2), (56, 50, 46)), "cerebellum" + side, 1.2, 20)
        yield Structure(
            "cerebellum",
            ((0.0, "grey"),),
            lambda v, lobe=lobe: np.maximum(lobe.sdf(v.points), v.smooth(cavity.sdf) + 2),
            lobe.low,
            lobe.high,
        )  # type: ignore[misc]
        yield Structure(
            "arbor vitae", ((0.0, "white"),), _speckle(lobe.grown(-4), folia, 0.1, 1.2), lobe.low, lobe.high
        )
        yield solid("deep cerebellum", "white", blob((20 * s, 30, 0), (28, 22, 18)))
    yield solid("third ventricle", "csf", block((0, -6, 46), (4, 24, 18), 2))
    stem = smooth_path([(0, 0, 31), (0, 4, 16), (0, 9, -2), (0, 12, -24)])
    n = len(stem)
    wide = np.interp(np.linspace(0, 1, n), (0, 0.25, 0.5, 0.75, 1), (13.5, 15.5, 14.5, 10, 7))
    deep = np.interp(np.linspace(0, 1, n), (0, 0.25, 0.5, 0.75, 1), (11, 14, 13, 9, 6.5))
    brainstem = b.place(b.rough(strap(stem, wide, deep, (0, 1, 0)), "brainstem", 0.4, 18), "Brainstem")
    yield solid("brainstem", ((-3.0, "csf"), (0.0, "brainstem")), brainstem, organ="Brainstem")
    yield solid("fourth ventricle", "csf", block((0, 23, -2), (9, 5, 16), 2.4))
    yield solid("suprasellar cistern", "csf", blob((0, -18, 34), (24, 22, 15)))
    yield solid("basilar artery", "artery", pipe([(0, -9, -18), (0, -10, 4), (0, -7, 26)], 1.7))


# --- orbits, face, ear -------------------------------------------------------------------------------------------


def orbits(b: _Builder) -> Iterator[Structure]:
    for side, s in SIDES:
        anterior, posterior = "Eye_A" + side, "Eye_P" + side
        at = np.array((32 * s, -72, 18)) + b.offset(posterior)
        cone = pipe(_mirror([(32, -76, 18), (29, -62, 19), (22, -46, 22), (13, -33, 26)], s), (18.5, 17.5, 11, 4))
        cone = b.rough(cone, "orbit" + side, 0.6, 20)
        # The rim: set back on the side of the temple, forward at the nose.
        rim = _half_space((-0.45 * s, -1.0, 0.12), (31 * s, -80, 18))
        wall = cone.grown(2.0).within(rim)
        yield solid("orbital wall", "thin_bone", wall)
        yield solid("orbit", "fat", _inside(b, cone, 3.0).within(rim.grown(6)))
        apex = np.array((14 * s, -36, 26))
        for name, out in (
            ("lateral", (10.5 * s, 0, 0)),
            ("medial", (-10.5 * s, 0, 0)),
            ("superior", (0, 0, 10)),
            ("inferior", (0, 0, -10)),
        ):
            mid = (at + apex) / 2 + np.array(out) * 1.02 + (0, 4, 0)
            path = smooth_path([at + np.array(out) * 0.95 + (0, -1, 0), mid, apex])
            yield solid(
                f"{name} rectus",
                "muscle",
                pipe(path, np.interp(np.linspace(0, 1, len(path)), (0, 0.5, 1), (1.2, 2.5, 1.2))),
            )
        lacrimal = "Glnd_Lacrimal_" + side
        gland = b.rough(blob((43 * s, -66, 28), (6.2, 15, 17), _tilt(25, -s * 38, 0)), lacrimal, 0.45, 9)
        yield solid(lacrimal, "lacrimal", b.place(gland, lacrimal), organ=lacrimal)
        nerve = "OpticNrv_" + side
        path = _mirror([(29, -60, 18), (24, -48, 20), (16, -36, 26), (8, -27, 33)], s)
        path[0] = at + (-3 * s, 11.5, 0)
        path[1] += b.offset(nerve)
        f = b.factor(nerve)
        yield solid(nerve, ((-1.1, "csf"), (0.0, "nerve")), pipe(smooth_path(path), 2.1 * f), organ=nerve)
        radius = 12.4 * b.factor(posterior)
        globe = blob(at, (2 * radius, 2 * radius, 2 * radius * 0.98))
        cut_at = at[1] - radius + 5.6 * b.factor(anterior) * (b.factor(posterior) ** 0.0)
        front = Shape(lambda p, g=globe, c=cut_at: np.maximum(g.sdf(p), p[1] - np.float32(c)), globe.low, globe.high)  # type: ignore[misc]
        back = Shape(lambda p, g=globe, c=cut_at: np.maximum(g.sdf(p), np.float32(c) - p[1]), globe.low, globe.high)  # type: ignore[misc]
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


def face(b: _Builder) -> Iterator[Structure]:
    maxilla = b.rough(block((0, -60, -12), (62, 46, 52), 14), "maxilla", 1.0, 18)
    brow = strap([(-48, -76, 33), (-28, -90, 37), (0, -94, 33), (28, -90, 37), (48, -76, 33)], 4.0, (4, 5, 6, 5, 4))
    yield solid("brow", ((0.0, "cortex"), (1.8, "diploe")), _inside(b, brow, 4.5))
    yield solid("maxilla", ((0.0, "thin_bone"), (1.6, "fat")), maxilla)
    palate = b.rough(block((0, -60, -27), (48, 52, 5), 2.4), "palate", 0.5, 15)
    yield solid("palate", "thin_bone", palate)
    for side, s in SIDES:
        arch = strap(
            _mirror(smooth_path([(40, -76, -2), (54, -62, -2), (64, -38, -4), (67, -14, -1)]), s),
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
    yield solid("nasal cavity", ((0.0, "mucosa"), (1.2, "air")), nasal.within(b.body.grown(1)))
    turbinates = b.waves("turbinates", 11.0, 10, (1, 6, 1))
    yield Structure(
        "turbinates", ((0.0, "mucosa"),), _speckle(nasal.grown(-1), turbinates, 0.35, 1.8), nasal.low, nasal.high
    )
    yield solid(
        "septum",
        ((-0.8, "mucosa"), (0.0, "cartilage_soft")),
        b.rough(block((0, -66, 0), (2.2, 70, 46), 0.8), "septum", 0.6, 30).within(b.body.grown(-3)),
    )
    ethmoid = block((0, -56, 18), (26, 36, 22), 5)
    cells = b.waves("ethmoid", 9.0, 12)
    yield solid("ethmoid", ((0.0, "thin_bone"), (0.8, "mucosa")), ethmoid)
    yield Structure(
        "ethmoid cells", ((0.0, "air"),), _speckle(ethmoid.grown(-1.2), cells, -0.5, 1.3), ethmoid.low, ethmoid.high
    )
    sphenoid = b.rough(block((0, -28, 10), (28, 24, 18), 7), "sphenoid", 1.0, 12)
    yield solid("sphenoid", ((-3.0, "thin_bone"), (0.0, "mucosa"), (0.8, "air")), sphenoid)
    yield solid(
        "frontal sinus",
        ((-1.4, "cortex"), (0.0, "air")),
        b.rough(blob((0, -90, 46), (36, 10, 20)), "frontal sinus", 1.2, 12).within(b.body.grown(-8)),
    )
    yield solid("nasal bone", "thin_bone", strap([(0, -93, 28), (0, -105, 6)], (6, 7), (1.2, 1.2), (0, 1, 0)))


def ear(b: _Builder) -> Iterator[Structure]:
    for side, s in SIDES:
        name = "Cochlea_" + side
        centre = np.array((23 * s, -6, 5)) + b.offset(name)
        shape = b.rough(blob(centre, (8.6, 6.0, 6.0), _tilt(0, 20 * s, -40 * s)).scaled(b.factor(name)), name, 0.25, 6)
        yield solid(name, "cochlea", shape, organ=name)
        yield solid("vestibule", "cochlea", blob(centre + (6 * s, 5, 1), (5, 7, 5)))
        yield solid("internal meatus", "csf", pipe([centre + (-2 * s, 3, 1), centre + (-12 * s, 7, 2)], (1.6, 3.0)))


# --- jaw and mouth -----------------------------------------------------------------------------------------------


def _arch(s: float, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """The dental arch in the axial plane: t = 0 between the incisors, 1 at the last molar."""
    return np.stack([s * 28 * np.sin(np.pi / 2 * t**0.95), -80 + 40 * t**1.75], axis=-1)


def jaw(b: _Builder) -> Iterator[Structure]:
    mandible = _mandible(b)
    for side, s in SIDES:
        masseter = strap(
            _mirror([(57, -40, -8), (57, -32, -30), (55, -24, -56)], s), (6, 7.5, 5), (14, 15, 12), (0, 1, 0)
        )
        temporalis = strap(
            _mirror([(70, -22, 46), (66, -30, 16), (56, -36, -14)], s), (3, 6.5, 6), (32, 22, 9), (0, 1, 0)
        )
        medial = strap(_mirror([(20, -30, -14), (33, -25, -34), (42, -17, -52)], s), (6, 7, 5), (8, 9, 8), (0, 1, 0))
        lateral = pipe(_mirror([(20, -34, -8), (34, -24, -6), (46, -13, -5)], s), (6, 7.5, 4))
        for name, muscle in (
            ("masseter", masseter),
            ("temporalis", temporalis),
            ("medial pterygoid", medial),
            ("lateral pterygoid", lateral),
        ):
            yield _muscle(b, name + side, muscle)
        yield _muscle(
            b,
            "buccinator" + side,
            strap(_mirror([(41, -36, -46), (41, -58, -46), (30, -80, -48)], s), (2, 2, 2), (14, 14, 8)),
        )
        yield _muscle(
            b,
            "digastric" + side,
            pipe(_mirror([(8, -74, -92), (16, -50, -92), (30, -20, -82), (52, 12, -30)], s), (4, 4, 3.5, 4)),
        )
    yield from _mouth(b)
    shape = b.rough(mandible, "mandible", 0.5, 16)
    yield solid("Bone_Mandible", ((0.0, "cortex"), (2.1, "marrow")), shape, organ="Bone_Mandible")
    for side, s in SIDES:
        yield solid("mandibular canal", "fat", pipe(_mirror([(48, -18, -38), (42, -38, -68), (28, -68, -78)], s), 1.3))
    yield from _teeth(b)


def _mandible(b: _Builder) -> Shape:
    f = b.factor("Bone_Mandible")
    body: Shape | None = None
    for side, s in SIDES:
        curve = smooth_path([(0, -82, -80), (17, -77, -80), (32, -58, -75), (41, -38, -68), (46, -20, -60)], 3)
        corpus = strap(_mirror(curve, s), 5.6 * f, np.linspace(15.5, 13, len(curve)) * f)
        ramus = strap(
            _mirror([(47, -14, -58), (49, -21, -36), (49, -20, -18)], s),
            (4.2 * f, 3.8 * f, 3.2 * f),
            (13 * f, 15.5 * f, 14 * f),
            (0, 1, 0),
        )
        neck = strap(_mirror([(49, -13, -22), (50, -8, -4)], s), (3.4 * f, 4.2 * f), (6.5 * f, 4.6 * f), (0, 1, 0))
        condyle = blob((50 * s, -8, -2), (18 * f, 9 * f, 9 * f), _tilt(0, 0, s * 15))
        coronoid = strap(_mirror([(49, -29, -26), (48, -35, -6)], s), (3 * f, 2.0), (7 * f, 3.0), (0, 1, 0))
        half = corpus.joined(ramus, 7).joined(neck, 4).joined(condyle, 3).joined(coronoid, 4)
        body = half if body is None else body.joined(half, 2)
    assert body is not None
    chin = blob((0, -86, -90), (26 * f, 12 * f, 15 * f))
    return body.joined(chin, 6).moved(b.offset("Bone_Mandible"))


def _mouth(b: _Builder) -> Iterator[Structure]:
    lips = b.rough(blob((0, -91, -52), (60, 26, 40)), "lips", 0.8, 14)
    lips = b.place(lips, "Lips").within(b.body.grown(-0.3))
    yield solid("Lips", "lips", lips, organ="Lips")
    cavity = b.rough(block((0, -51, -52), (61, 62, 50), 22), "cavity", 0.8, 20)
    cavity = b.place(cavity, "Cavity_Oral").within(b.body.grown(-4))
    yield solid("floor of mouth", "mucosa", cavity)
    buccal = []
    f = b.factor("BuccalMucosa")
    for side, s in SIDES:
        sheet = strap(_mirror([(37, -40, -50), (38, -58, -50), (32, -76, -51)], s), 3.7 * f, 18.5 * f**0.5)
        buccal.append(b.rough(sheet, "buccal" + side, 0.5, 12).moved(b.offset("BuccalMucosa")))
    cheeks = (buccal[0] | buccal[1]).within(b.body.grown(-3))
    yield solid("BuccalMucosa", "buccal", cheeks, organ="BuccalMucosa")
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
            strap(_mirror([(6, -74, -84), (7, -52, -66), (7, -40, -52)], s), (4, 5, 4), (4, 9, 8)),
        )
        yield solid("sublingual", "parotid", blob((17 * s, -60, -76), (9, 30, 12), _tilt(0, 0, -s * 18)))
    yield _muscle(
        b,
        "mylohyoid",
        strap([(-34, -46, -76), (-16, -52, -87), (0, -54, -90), (16, -52, -87), (34, -46, -76)], [22] * 5, [2] * 5),
    )
    yield solid("Cavity_Oral", (), cavity, organ="Cavity_Oral")
    yield solid("palate gap", "air", block((0, -52, -34), (30, 34, 3.0), 1.4))
    yield solid(
        "soft palate",
        "mucosa",
        strap([(0, -38, -30), (0, -24, -34), (0, -15, -50)], (15, 13, 5), (3.4, 4, 3.5), (0, 0, 1)),
    )


def _teeth(b: _Builder) -> Iterator[Structure]:
    missing = b.patient.rng(3).uniform(size=(2, 2, 7)) < 0.08
    for upper in (0, 1):
        ridge = [
            np.array([*xy, -33.0 if upper else -61.0])
            for s in (-1, 1)
            for xy in _arch(s, np.linspace(0, 1, 5))[:: -int(s) or 1]
        ]
        if upper:
            path = np.array(sorted(ridge, key=lambda q: np.arctan2(q[0], -(q[1] + 40))))
            path = path[np.append(True, np.linalg.norm(np.diff(path, axis=0), axis=1) > 0.5)]
            yield solid("alveolar ridge", ((0.0, "thin_bone"), (1.4, "marrow")), strap(path, 5.0, 6.5))
        for index, (_, s) in enumerate(SIDES):
            for n, (t, width) in enumerate(
                ((0.09, 6.4), (0.25, 6.2), (0.4, 7), (0.53, 6.8), (0.66, 7), (0.82, 10), (1.0, 10))
            ):
                if missing[upper, index, n]:
                    continue
                x, y = _arch(s, np.array(t))
                sign = 1 if upper else -1
                crown = block(
                    (x, y, -41.5 if upper else -50),
                    (width, 6 + 3.4 * (t > 0.6), 8),
                    2.6,
                    _tilt(0, 0, np.degrees(np.arctan2(s * t * 30, 26))),
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


# --- neck --------------------------------------------------------------------------------------------------------


def _muscle(b: _Builder, name: str, shape: Shape) -> Structure:
    """A muscle in its thin coat of fat."""
    shape = b.rough(shape, name, 1.0, 18).grown((b.patient.muscle - 1) * 6).coarse(2.6)
    return _under_skin(b, name, ((-0.9, "fascia"), (0.0, "muscle")), shape, 4.5)


def _under_skin(
    b: _Builder, name: str, layers: tuple[tuple[float, str], ...], shape: Shape, depth_mm: float
) -> Structure:
    """A structure that keeps at least ``depth_mm`` away from the skin, and out of the skull."""
    return Structure(
        name,
        layers,
        lambda view: np.maximum(
            np.maximum(shape.sdf(view.points), view.smooth(b.body.sdf) + np.float32(depth_mm)),
            np.float32(5.0) - view.smooth(b.cavity.sdf),
        ),
        shape.low,
        shape.high,
    )


def _cord_at(z: float) -> NDArray[np.float64]:
    order = np.argsort(CORD[:, 2])
    return np.array([0.0, np.interp(z, CORD[order, 2], CORD[order, 1]), z])


def spine(b: _Builder) -> Iterator[Structure]:
    yield _muscle(
        b,
        "longus",
        strap(
            [_cord_at(z) + (0, -26, 0) for z in (-30, -80, -130, -190, -230)],
            (11, 12, 13, 13, 13),
            (3.2,) * 5,
            (0, 1, 0),
        ),
    )
    for side, s in SIDES:
        for name, path, wide, deep in _NECK_MUSCLES:
            nodes = smooth_path(_mirror(path, s), 2)
            t = np.linspace(0, 1, len(nodes))
            knots = np.linspace(0, 1, len(wide))
            yield _muscle(b, name + side, strap(nodes, np.interp(t, knots, wide), np.interp(t, knots, deep), (0, 1, 0)))
    discs = pipe([_cord_at(z) + (0, -15.5, 0) for z in (-44, -60, -100, -150, -185, -215, -250)], 7.6)
    yield solid("discs", "disc", discs)
    for n in range(12):
        yield from _vertebra(b, n)
    yield solid(
        "dens",
        ((0.0, "cortex"), (1.2, "vertebra")),
        pipe([_cord_at(-48) + (0, -15, 0), _cord_at(-26) + (0, -14, 0)], (6, 4.5)),
    )
    path = smooth_path(CORD)
    yield solid("spinal canal", ((-1.3, "fat"), (0.0, "csf")), pipe(path, 7.0))
    f = b.factor("SpinalCord")
    cord = path + b.offset("SpinalCord") * (1, 1, 0) * 0.8
    inside = cord[cord[:, 2] >= -186]
    yield solid("cord", "cord", strap(cord, 5.4 * f, 4.2 * f, (0, 1, 0)))
    yield solid(
        "SpinalCord", (), strap(cord, 5.4 * f, 4.2 * f, (0, 1, 0)).within(_slab(inside[-1][2], -26)), organ="SpinalCord"
    )


def _slab(low: float, high: float) -> Shape:
    return Shape(
        lambda p: np.maximum(np.float32(low) - p[2], p[2] - np.float32(high)),
        np.array([-400.0, -400, low]),
        np.array([400.0, 400, high]),
    )


_NECK_MUSCLES = (
    ("sternocleidomastoid", [(57, 16, -28), (52, 4, -80), (38, -14, -140), (20, -26, -190)], (5, 8, 11, 9), (8, 10, 8, 6)),
    ("trapezius", [(12, 72, -45), (26, 74, -100), (62, 62, -160), (125, 50, -196)], (8, 14, 24, 24), (3, 4, 7, 9)),
    ("splenius", [(30, 50, -30), (28, 62, -80), (22, 72, -150), (16, 84, -230)], (14, 13, 12, 10), (5, 6, 6, 6)),
    ("semispinalis", [(17, 50, -30), (17, 56, -90), (17, 62, -150), (16, 74, -230)], (11, 12, 12, 13), (11, 11, 10, 10)),
    ("suboccipital", [(20, 34, -28), (17, 40, -60)], (12, 10), (9, 8)),
    ("levator", [(32, 24, -55), (42, 38, -110), (52, 52, -190)], (6, 7, 7), (9, 10, 10)),
    ("scalenes", [(25, 10, -70), (32, 12, -130), (48, 14, -200)], (6, 9, 9), (8, 10, 10)),
    ("sternohyoid", [(8, -36, -96), (13, -39, -130), (13, -37, -170), (10, -34, -200)], (7, 8, 8, 8), (1.8, 2.2, 2.2, 2.2)),
)  # fmt: skip


def _vertebra(b: _Builder, n: int) -> Iterator[Structure]:
    z = -34 - 18.0 * n
    cord = _cord_at(z)
    tilt = _tilt(8 if n < 4 else -12)
    layers = ((0.0, "cortex"), (1.3, "vertebra"))
    wide = 20 + 0.8 * n
    if n > 0:
        yield solid(
            "vertebral body", layers, b.rough(block(cord + (0, -15.5, 0), (wide, 15, 13.6), 4, tilt), f"v{n}", 0.5, 11)
        )
    ring = 12.5 if n == 0 else 9.6
    arch = Shape(
        lambda p: np.maximum(np.abs(np.sqrt((p[0] / 1.25) ** 2 + (p[1] - np.float32(cord[1]) + 0.35 * (p[2] - np.float32(z))) ** 2) - ring) - 1.9, np.abs(p[2] - np.float32(z)) - 5.5),
        cord - (18, 18, 7), cord + (18, 18, 7))  # fmt: skip
    yield solid("arch", layers, b.rough(arch, f"arch{n}", 0.4, 10))
    reach = 34 if n in (1, 6, 7) else 26 + n
    if n:
        yield solid(
            "spinous process",
            layers,
            b.rough(strap([cord + (0, 10, -2), cord + (0, reach, -9)], (2.2, 2.8), (5, 4)), f"spine{n}", 0.3, 9),
        )
    for s in (-1, 1):
        out = 20 if n == 0 else 16
        mass = blob(cord + (s * out, -5, 0), (13, 13, 15), _tilt(0, 0, s * 20))
        process = pipe([cord + (s * 12, -9, 0), cord + (s * (30 if n == 0 else 25 + n), -8, -3)], (3.6, 3))
        yield solid("lateral mass", layers, b.rough(mass.joined(process, 4), f"mass{n}{s}", 0.5, 9))
        if n < 6:
            yield solid(
                "transverse foramen",
                ((-1.2, "fat"), (0.0, "artery")),
                pipe([cord + (s * 20, -11, -9.2), cord + (s * 20, -11, 9.2)], 1.9),
            )


def vessels(b: _Builder) -> Iterator[Structure]:
    for side, s in SIDES:
        name = "A_Carotid_" + side
        f = b.factor(name)
        path = _mirror(CAROTID, s) + b.offset(name)
        bends = b.patient.rng(4, int(s + 1)).normal(0, 1.2 * b.patient.options.variation, path.shape)
        path = smooth_path(path + bends * (1, 1, 0), 4)
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
        external = smooth_path(_mirror([(27, -4, -86), (34, -9, -66), (43, -6, -40), (50, 0, -18)], s) + b.offset(name))
        yield solid("external carotid", "artery", pipe(external, np.linspace(2.3, 1.5, len(external))))
        yield solid("facial vein", "vein", pipe(_mirror([(36, -12, -80), (42, -36, -76), (48, -50, -58)], s), 1.7))
        yield solid(
            "external jugular",
            "vein",
            pipe(_mirror([(60, 2, -40), (59, 10, -90), (48, 12, -160), (34, 0, -200)], s), 2.2),
        )
        yield solid("common carotid, chest", "artery", pipe(np.vstack([path[0], lower]), 3.3 * f))
        siphon = smooth_path(
            np.vstack([path[-1], _mirror([(22, -12, 6), (13, -18, 14), (12, -26, 22), (11, -22, 32)], s)])
        )
        yield solid("siphon", "artery", pipe(siphon, 2.2))
        yield solid(name, ((-0.9, "fascia"), (0.0, "artery")), pipe(path, radii), organ=name)
        if b.patient.calcified > 0.6:
            yield solid(
                "plaque", "cortex", blob(path[np.argmin(np.abs(path[:, 2] + 90))] + (s * 2.6 * f, 1.5, 0), (2.2, 3, 5))
            )
        for k, (x, y, z) in enumerate(b.patient.rng(6, int(s + 1)).uniform((34, -14, -150), (50, 22, -50), (7, 3))):
            yield solid(
                "node",
                ((-0.6, "fat"), (0.0, "node")),
                b.rough(blob((s * x, y, z), (5, 6, 10)), f"node{k}{side}", 0.4, 8),
            )


def glands(b: _Builder) -> Iterator[Structure]:
    for side, s in SIDES:
        name = "Parotid_" + side
        superficial = blob((60 * s, 0, -22), (24, 36, 56), _tilt(0, s * 6, s * -18))
        deep = blob((50 * s, 6, -26), (24, 22, 40))
        shape = b.rough(superficial.joined(deep, 6), name, 1.2, 16)
        shape = b.place(shape, name).within(b.body.grown(-3))
        yield solid(name, ((-1.0, "fat"), (0.0, "parotid")), shape, organ=name, blur_mm=0.4)
        yield solid("retromandibular vein", "vein", pipe(_mirror([(54, 2, 0), (54, 4, -24), (52, 4, -52)], s), 2.0))
        name = "Glnd_Submand_" + side
        shape = b.rough(blob((31 * s, -32, -70), (21, 30, 29), _tilt(20, 0, -s * 30)), name, 0.8, 12)
        yield solid(name, ((-1.2, "fat"), (0.0, "submandibular")), b.place(shape, name), organ=name)


def larynx(b: _Builder) -> Iterator[Structure]:
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
    supra = b.place(supra, "Larynx_SG").within(_slab(-121.5 + b.offset("Glottis")[2], -60))
    yield solid("Larynx_SG", ((0.0, "larynx_fat"), (2.5, "larynx")), supra, organ="Larynx_SG")
    glottis = b.rough(blob((0, -20, -127), (20, 31, 13)), "glottis", 0.4, 10)
    yield solid("Glottis", "larynx", b.place(glottis, "Glottis"), organ="Glottis")
    yield from _cartilages(b)
    yield from _airway(b)


def _pharynx(b: _Builder) -> Iterator[Structure]:
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


def _cartilages(b: _Builder) -> Iterator[Structure]:
    hard = "calcified" if b.patient.calcified > 0.35 else "cartilage"
    for _, s in SIDES:
        lamina = strap(_mirror([(1, -41, -116), (12, -30, -116), (21, -10, -115)], s), 1.7, (9, 13, 14))
        yield solid("thyroid cartilage", ((0.0, "cartilage"), (0.6, hard)), b.rough(lamina, f"lamina{s}", 0.3, 9))
    yield solid("cricoid", ((0.0, "cartilage"), (0.8, hard)), Shape(
        lambda p: np.maximum(np.abs(np.sqrt(p[0] ** 2 + (p[1] + 20) ** 2) - 11.5) - 2.2, np.abs(p[2] + 136) - (3.5 + 0.35 * np.clip(p[1] + 20, 0, 12))),
        np.array([-15.0, -35, -146]), np.array([15.0, -5, -126])))  # fmt: skip
    f = b.factor("Arytenoid")
    pair = blob((6 * f**0 * 1.0, -8, -122), (6.6 * f, 7.4 * f, 11 * f), _tilt(0, 15, 0)) | blob(
        (-6, -8, -122), (6.6 * f, 7.4 * f, 11 * f), _tilt(0, -15, 0)
    )
    yield solid("Arytenoid", ((0.0, "cartilage"), (1.2, hard)), pair.moved(b.offset("Arytenoid")), organ="Arytenoid")


def _airway(b: _Builder) -> Iterator[Structure]:
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


def thyroid(b: _Builder) -> Iterator[Structure]:
    name = "Glnd_Thyroid"
    f = b.factor(name)
    lobes: Shape | None = None
    for side, s in SIDES:
        share = 1 + 0.08 * s * b.patient.options.variation * float(np.clip(b.patient.rng(7).normal(), -2, 2))
        path = smooth_path(_mirror([(17, -13, -130), (20, -15, -148), (18.5, -17, -168)], s))
        lobe = strap(
            path,
            np.interp(np.linspace(0, 1, len(path)), (0, 0.5, 1), (4.5, 7.2, 6)) * f * share,
            np.interp(np.linspace(0, 1, len(path)), (0, 0.5, 1), (6, 9.5, 7.5)) * f * share,
            (0, 1, 0),
        )
        lobe = b.rough(lobe, name + side, 0.8, 12).moved((4.0 * (f - 1) * s, 0, 0))
        lobes = lobe if lobes is None else lobes | lobe
    assert lobes is not None
    isthmus = strap([(-15, -28, -157), (0, -33.5, -156), (15, -28, -157)], 2.6 * f, 6.5 * f)
    gland = lobes.joined(isthmus, 4).moved(b.offset(name))
    airway = pipe([(0, -20, -120), (0, -21, -150), (1, -16, -190)], 9.3)
    yield solid(name, ((-0.8, "fat"), (0.0, "thyroid")), gland.without(airway), organ=name)


def chest(b: _Builder) -> Iterator[Structure]:
    layers = ((0.0, "cortex"), (1.8, "marrow"))
    for side, s in SIDES:
        apex = b.rough(blob((58 * s, 28, -262), (84, 110, 110)), "lung" + side, 2.0, 40)
        yield solid("lung", ((-3.0, "fat"), (0.0, "lung")), apex)
        clavicle = smooth_path(_mirror([(16, -34, -212), (55, -34, -206), (110, 2, -204), (160, 28, -206)], s))
        yield _under_skin(b, "clavicle", layers, b.rough(pipe(clavicle, 6.0), "clavicle" + side, 0.5, 20), 5.0)
        yield _under_skin(
            b, "humerus", layers, b.rough(blob((172 * s, 34, -246), (46, 46, 50)), "humerus" + side, 0.8, 20), 14.0
        )
        scapula = strap(_mirror([(150, 62, -222), (110, 82, -236), (88, 90, -262)], s), (5, 4, 4), (7, 16, 20))
        yield _under_skin(b, "scapula", layers, b.rough(scapula, "scapula" + side, 0.6, 16), 8.0)
        for k, (y0, z0) in enumerate(((30, -206), (36, -226), (42, -246))):
            rib = smooth_path(
                _mirror(
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
        yield solid("subclavian", "artery", pipe(_mirror([(14, 4, -222), (48, 4, -212), (100, 6, -224)], s), 4.4))
        yield solid(
            "subclavian vein", "vein", pipe(_mirror([(16, -18, -224), (52, -16, -216), (104, -2, -230)], s), 5.5)
        )
    yield solid("manubrium", layers, block((0, -46, -238), (46, 12, 50), 5))


_REGIONS = (outline, chest, skull, face, orbits, ear, spine, jaw, vessels, glands, larynx, thyroid)
