from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from hnseg.image.grid import Grid
from hnseg.image.resample import resample
from hnseg.image.volume import Volume
from hnseg.registration.bending import ControlLattice
from hnseg.registration.bent import Bent
from hnseg.registration.images import Prepared, prepare_ct, prepare_mr
from hnseg.registration.inside import inside_body
from hnseg.registration.poses import HALF_TURNS, degrees_between, inverse, moved, pose, rotation, to_transform
from hnseg.registration.quality import RULES, Quality, assess, judge, measure, score

SURE = Quality(
    data=1.0,
    overlap=0.9,
    extent_mm=140.0,
    information=0.3,
    gain=0.7,
    edges=0.7,
    steady=0.9,
    drift_mm=0.2,
    side_margin=0.2,
    turn_degrees=178.0,
)


def test_a_pose_with_nothing_against_it_is_good() -> None:
    assert judge(SURE)[0] == "good"
    assert score(SURE) == 1.0


@pytest.mark.parametrize("name", RULES)
def test_each_measure_alone_can_refuse_or_doubt(name: str) -> None:
    rule = RULES[name]
    refused = replace(SURE, **{name: rule.refused_at})
    between = replace(SURE, **{name: (rule.refused_at + rule.accepted_from) / 2})
    assert judge(refused)[0] == "failed"
    assert judge(between)[0] == "doubtful"
    assert score(between) == pytest.approx(0.5)


def test_the_reason_names_the_gravest_complaint_with_its_figure() -> None:
    verdict, reason = judge(replace(SURE, overlap=0.4, drift_mm=14.83))
    assert verdict == "failed"
    assert reason == "A second refinement moves the pose by 14.8 mm."


def test_a_half_turn_against_the_headers_is_no_complaint() -> None:
    assert judge(replace(SURE, turn_degrees=180.0))[0] == "good"


@pytest.fixture(scope="module")
def pair(head) -> tuple[Prepared, Prepared]:
    return prepare_ct(head.ct, 4.0), prepare_mr(head.mr, 2.5)


def test_the_true_pose_is_believed(head, pair) -> None:
    quality = measure(*pair, head.ct_to_mr)
    assert judge(quality) == ("good", judge(quality)[1])
    assert quality.overlap > 0.9
    assert quality.drift_mm < 1.0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_pose_15_mm_off_is_refused(head, pair, axis: int) -> None:
    quality = measure(*pair, head.ct_to_mr @ pose(np.eye(3), 15 * np.eye(3)[axis]))
    assert judge(quality)[0] == "failed"


@pytest.mark.parametrize("index", [1, 2, 3])
def test_a_half_turn_too_many_is_refused(head, pair, index: int) -> None:
    middle = moved(head.mr.grid.centre_lps, inverse(head.ct_to_mr))
    wrong = head.ct_to_mr @ pose(np.diag(HALF_TURNS[index][1]), centre=middle)
    assert judge(measure(*pair, wrong))[0] == "failed"


def test_a_pose_without_overlap_is_refused_and_every_figure_is_finite(head, pair) -> None:
    quality = measure(*pair, head.ct_to_mr @ pose(np.eye(3), (3000, 0, 0)))
    assert judge(quality)[0] == "failed"
    assert quality.overlap == 0
    assert all(np.isfinite(getattr(quality, name)) for name in quality.__dataclass_fields__)


def test_a_mirrored_mr_is_refused_at_its_own_best_pose(head, pair) -> None:
    ct, mr = pair
    in_mirror = Prepared(
        mr.values.with_array(mr.values.array_kji[:, :, ::-1]), mr.valid.with_array(mr.valid.array_kji), mr.air_below
    )
    # The head's plane x = 0 stays in place: reflect it in the CT, then in the MR's grid.
    across = mr.grid.axes[:, 0]
    middle = moved((0, 0, 0), head.ct_to_mr)
    start = pose(np.eye(3), -2 * across * float((middle - mr.grid.centre_lps) @ across)) @ head.ct_to_mr
    quality = measure(ct, in_mirror, start)
    assert quality.side_margin < 0
    assert judge(quality)[0] == "failed"


def test_assess_takes_any_transform_of_the_two_images(head) -> None:
    verdict, reason, quality = assess(head.ct, head.mr, to_transform(head.ct_to_mr))
    assert verdict == "good", reason
    assert quality.turn_degrees == pytest.approx(180, abs=20)
    assert quality.tilt_degrees < 20


def bent(head, coefficients_of) -> sitk.Transform:
    """The head's true pose after a B-spline whose control points, 40 mm apart, move as told for their places."""
    lattice = ControlLattice.over(head.ct.grid, 40.0)
    spline = lattice.to_transform(lattice.fitted(coefficients_of(lattice.nodes())))
    return sitk.CompositeTransform([to_transform(head.ct_to_mr), spline])


def jaw(places: np.ndarray, length_mm: float, reach_mm: float = 35.0) -> np.ndarray:
    near = np.exp(-0.5 * np.sum(((places - [0, -60, -75]) / reach_mm) ** 2, axis=-1))
    return near[:, None] * np.array([0.0, 0.6, 0.8]) * length_mm


def moved_by(volume: Volume, shift: np.ndarray) -> Volume:
    grid = replace(volume.grid, origin_lps=tuple(np.asarray(volume.grid.origin_lps) + shift))
    return Volume(volume.array_kji, grid)


def test_a_bending_that_the_mr_shows_is_believed_and_one_that_it_does_not_is_refused(head) -> None:
    """First the jaw lies in CT and MR alike, then the CT's lies where the transform takes it from."""
    transform = bent(head, lambda places: jaw(places, 4.0))
    verdict, reason, quality = assess(head.ct, head.mr, transform)
    assert verdict == "failed"
    assert reason.startswith("Where the transform bends, CT and MR fit worse for it (-")
    assert quality.bend_mm == pytest.approx(4, abs=1.5)
    assert 0.5 < quality.smallest_jacobian < 1
    assert quality.tilt_degrees < 20 < 160 < quality.turn_degrees
    spline = sitk.CompositeTransform([to_transform(inverse(head.ct_to_mr)), transform])
    bent_ct = resample(head.ct, head.ct.grid, transform=spline)
    verdict, reason, quality = assess(bent_ct, head.mr, transform)
    assert verdict == "good", reason
    assert quality.bend_gain > 0.02


@pytest.mark.parametrize("centre", [(0.0, 5.0, 40.0), (0.0, -30.0, -80.0)], ids=["the brain", "the throat"])
def test_a_transform_that_scales_the_head_is_refused(head, centre) -> None:
    affine = sitk.AffineTransform(3)
    affine.SetMatrix((1.12 * head.ct_to_mr[:3, :3]).ravel().tolist())
    affine.SetCenter(centre)
    affine.SetTranslation((moved(np.array(centre), head.ct_to_mr) - centre).tolist())
    assert assess(head.ct, head.mr, affine)[0] == "failed"


def test_a_transform_that_folds_is_refused(head) -> None:
    def pulled(places: np.ndarray) -> np.ndarray:
        """Towards the plane z = −60 and through it."""
        return np.array([0.0, 0.0, -1.0]) * np.clip(places[:, 2:] + 60, -30, 30)

    verdict, _, quality = assess(head.ct, head.mr, bent(head, lambda places: 1.3 * pulled(places)))
    assert verdict == "failed"
    assert quality.smallest_jacobian < 0
    far = np.array([400.0, -300.0, 1200.0])  # where a B-spline ends long before the world's origin
    there = sitk.TranslationTransform(3, (-far).tolist())
    folding = sitk.CompositeTransform([bent(head, lambda places: 1.3 * pulled(places)), there])
    assert assess(moved_by(head.ct, far), head.mr, folding)[2].smallest_jacobian < 0


@pytest.mark.parametrize("axes", [np.diag([1, 1, -1]), np.diag([-1, 1, 1])])
def test_a_mirroring_transform_is_refused_as_a_fold(head, axes) -> None:
    affine = sitk.AffineTransform(3)
    affine.SetMatrix((head.ct_to_mr[:3, :3] @ axes).ravel().tolist())
    affine.SetTranslation(head.ct_to_mr[:3, 3].tolist())
    verdict, _, quality = assess(head.ct, head.mr, affine)
    assert verdict == "failed"
    assert quality.smallest_jacobian == pytest.approx(-1)


def test_what_goes_beyond_the_pose_is_measured_on_oblique_voxels(head) -> None:
    turn = pose(rotation((20, -30, 15)), (40, 5, -9))
    stretch = sitk.AffineTransform(3)
    stretch.SetMatrix((turn[:3, :3] @ np.diag([1.0, 1.0, 1.25])).ravel().tolist())
    grid = Grid.from_affine((20, 22, 24), pose(rotation((10, 25, -5)), (-50, -40, -60)) @ np.diag([4, 4.5, 5, 1.0]))
    ct = prepare_ct(Volume(np.full(grid.shape_kji, 40, np.int16), grid), 4.0)
    found = Bent.of(stretch, ct, prepare_mr(head.mr, 4.0))
    assert found.smallest_jacobian == pytest.approx(1.25)
    assert degrees_between(found.pose, turn) < 2
    z = grid.to_lps(np.argwhere(np.ones(grid.shape_kji))[:, ::-1])[:, 2]
    assert found.largest_mm == pytest.approx(0.25 * np.abs(z - z.mean()).max(), rel=0.1)


def test_the_inside_of_the_body_is_a_centimetre_under_the_skin(head) -> None:
    ct = prepare_ct(head.ct, 4.0)
    inside = inside_body(ct)

    def at(point: tuple[float, float, float]) -> bool:
        i, j, k = np.rint(inside.grid.to_ijk(point)).astype(int)
        return bool(inside.array_kji[k, j, i])

    # The head's front-back middle at z = 30 is 77 mm from the left skin.
    assert at((60, -5, 30))
    assert not at((72, -5, 30))
    assert at((0, -20, -120)), "an airway is inside"
    assert not at((150, -100, 30)), "air is outside"


def test_a_ct_of_air_has_no_inside() -> None:
    air = Volume(np.full((9, 9, 9), -1000.0, dtype=np.float32), Grid((9, 9, 9), (4.0, 4.0, 4.0)))
    assert not inside_body(prepare_ct(air, 4.0)).array_kji.any()
