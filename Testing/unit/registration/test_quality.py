from dataclasses import replace

import numpy as np
import pytest

from hnseg.image.volume import Volume
from hnseg.registration.images import Prepared, prepare_ct, prepare_mr
from hnseg.registration.inside import inside_body
from hnseg.registration.poses import HALF_TURNS, inverse, moved, pose, to_transform
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
    from hnseg.image.grid import Grid

    air = Volume(np.full((9, 9, 9), -1000.0, dtype=np.float32), Grid((9, 9, 9), (4.0, 4.0, 4.0)))
    assert not inside_body(prepare_ct(air, 4.0)).array_kji.any()
