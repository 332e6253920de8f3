import numpy as np
import pytest

from hnseg.errors import Cancelled, UnsupportedImage
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.registration import register_rigid
from hnseg.registration.images import prepare_ct, prepare_mr
from hnseg.registration.poses import HALF_TURNS, from_transform, pose, rotation
from hnseg.registration.refine import Level, refine
from hnseg.registration.search import TILTS, find_candidates, orientations


def test_a_far_oblique_half_covering_feet_first_mr_is_found_and_believed(head, error_mm) -> None:
    told: list[float] = []
    found = register_rigid(head.ct, head.mr, on_progress=lambda fraction, _text: told.append(fraction))
    assert error_mm(from_transform(found.transform), head.ct_to_mr) < 1.0
    assert found.verdict == "good", found.reason
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.0, 1.0)


@pytest.mark.parametrize("half_turn", range(4))
def test_the_search_finds_every_half_turn_and_a_tilt_between_its_own(head, error_mm, half_turn: int) -> None:
    turn = rotation((8, -17, 13)) @ np.diag(HALF_TURNS[half_turn][1])
    moving = pose(turn, (-300, 450, -90), head.mr.grid.centre_lps)
    mr = Volume(head.mr.array_kji, Grid.from_affine(head.mr.array_kji.shape, moving @ head.mr.grid.ijk_to_lps))
    ct, mr_prepared = prepare_ct(head.ct, 4.0), prepare_mr(mr, 4.0)
    candidates = find_candidates(ct, mr_prepared, step_mm=16.0)
    climbed = [refine(ct, mr_prepared, c.ct_to_mr, Level(spacing_mm=8.0, sigma_mm=6.0)) for c in candidates[:4]]
    best = max(climbed, key=lambda end: end[1])[0]
    assert error_mm(best, moving @ head.ct_to_mr) < 8


def test_no_tilt_within_20_degrees_is_far_from_one_that_is_tried() -> None:
    from scipy.spatial.transform import Rotation

    tried = Rotation.from_matrix([rotation(tilt) for tilt in TILTS])
    wanted = np.random.default_rng(0).uniform(-20, 20, (300, 3))
    gaps = [(Rotation.from_matrix(rotation(w)) * tried.inv()).magnitude().min() for w in wanted]
    assert np.rad2deg(max(gaps)) < 17
    assert np.rad2deg(np.mean(gaps)) < 12


def test_every_orientation_that_is_tried_is_a_rotation() -> None:
    for _, turn in orientations():
        assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)


def test_the_same_input_gives_the_same_candidates_bit_by_bit(head) -> None:
    ct, mr = prepare_ct(head.ct, 4.0), prepare_mr(head.mr, 4.0)
    once, again = (find_candidates(ct, mr, step_mm=18.0) for _ in range(2))
    assert all(np.array_equal(a.ct_to_mr, b.ct_to_mr) for a, b in zip(once, again, strict=True))
    ends = [refine(ct, mr, once[0].ct_to_mr, Level(spacing_mm=8.0, sigma_mm=6.0)) for _ in range(2)]
    assert np.array_equal(ends[0][0], ends[1][0])


def test_a_cancel_goes_through(head) -> None:
    def stop(fraction: float, text: str) -> None:
        raise Cancelled(text)

    with pytest.raises(Cancelled):
        register_rigid(head.ct, head.mr, on_progress=stop)


def test_an_empty_mr_is_refused(head) -> None:
    with pytest.raises(UnsupportedImage, match="one value"):
        register_rigid(head.ct, head.mr.with_array(np.zeros_like(head.mr.array_kji)))


def test_noise_in_place_of_an_mr_is_not_believed(head) -> None:
    noise = np.random.default_rng(0).integers(0, 500, head.mr.array_kji.shape).astype(np.int16)
    assert register_rigid(head.ct, head.mr.with_array(noise)).verdict == "failed"
