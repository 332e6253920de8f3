import numpy as np
import pytest

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.registration.images import Prepared, prepare_ct, prepare_mr
from hnseg.registration.information import Information, to_bins
from hnseg.registration.poses import Pose, inverse, pose, rotation
from hnseg.registration.refine import Level, _left_jacobian, _step, refine

BINS = 16


def prepared(array: np.ndarray, grid: Grid, air_below: float = 0.5) -> Prepared:
    volume = Volume(array.astype(np.float32), grid)
    return Prepared(volume, volume.with_array(np.ones(array.shape, dtype=bool)), air_below)


def halves(grid: Grid) -> np.ndarray:
    """0 on the low half of i, 10 on the high half."""
    array = np.zeros(grid.shape_kji)
    array[:, :, grid.size_ijk[0] // 2 :] = 10
    return array


def test_two_equal_halves_tell_one_bit_about_each_other_whatever_their_greys() -> None:
    grid = Grid((20, 9, 9))
    image = halves(grid)
    straight = Information.of(prepared(image, grid), prepared(image, grid), bins=BINS, samples=10_000)
    inverted = Information.of(prepared(image, grid), prepared(10 - image, grid), bins=BINS, samples=10_000)
    # Samples on the last plane of each axis have no far neighbour in the CT and are left out.
    seen = 19 * 8 * 8 / (20 * 9 * 9)
    p = 10 / 19
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    assert straight.at(np.eye(4)) == pytest.approx(entropy * seen, rel=0.02)
    assert inverted.at(np.eye(4)) == pytest.approx(straight.at(np.eye(4)), rel=1e-6)


def test_crossed_halves_tell_nothing() -> None:
    grid = Grid((21, 21, 21))
    image = halves(grid)
    crossed = Information.of(prepared(image, grid), prepared(image.transpose(0, 2, 1), grid), bins=BINS, samples=10_000)
    assert crossed.at(np.eye(4)) == pytest.approx(0, abs=0.01)


def test_a_pose_outside_the_ct_tells_nothing() -> None:
    grid = Grid((20, 9, 9))
    image = halves(grid)
    information = Information.of(prepared(image, grid), prepared(image, grid), bins=BINS, samples=10_000)
    assert information.at(pose(np.eye(3), (500, 0, 0))) == 0


def test_samples_that_meet_padding_count_as_knowing_nothing() -> None:
    grid = Grid((20, 20, 20))
    image = prepared(halves(grid), grid)
    valid = image.valid.array_kji.copy()
    valid[:, 10:] = False
    padded = Prepared(image.values, image.valid.with_array(valid), image.air_below)
    whole, part = (Information.of(i, image, bins=BINS, samples=10_000).at(np.eye(4)) for i in (image, padded))
    # 10 of the 19 rows that have a far neighbour are data, and each tells as much as the others.
    assert part == pytest.approx(whole * 10 / 19, rel=0.01)


def test_leaving_the_ct_costs_information() -> None:
    grid = Grid((20, 20, 20))
    image = halves(grid)
    information = Information.of(prepared(image, grid), prepared(image, grid), bins=BINS, samples=10_000)
    inside, leaving = (information.at(pose(np.eye(3), (0, y, 0))) for y in (0, 10))
    assert leaving == pytest.approx(inside * 9 / 19, rel=0.02)


def test_bins_put_air_at_the_bottom_and_grow_with_the_value() -> None:
    values = np.array([-1000, -990, -900, 20, 30, 40, 50, 60, 1200], dtype=np.float32).reshape(1, 1, 9)
    bins = to_bins(prepared(values, Grid((9, 1, 1)), air_below=-500), BINS).ravel()
    assert np.all(np.diff(bins) >= 0)
    assert bins[0] == pytest.approx(0, abs=0.1)
    assert bins[3] == pytest.approx(1)
    assert bins[-1] == pytest.approx(BINS - 1)
    # By value alone the soft tissues would share 0.5 of the 14 bins of the body.
    assert bins[7] - bins[3] > 4


@pytest.fixture(scope="module")
def pair(head) -> tuple[Prepared, Prepared]:
    return prepare_ct(head.ct, 4.0), prepare_mr(head.mr, 4.0)


def off(truth: Pose) -> Pose:
    """15 mm and 8° away."""
    return truth @ pose(rotation((5, -5, 4)), (9, -8, 9))


def test_the_gradient_is_that_of_the_value(head, pair) -> None:
    information = Information.of(*pair, bins=20, samples=20_000, sigma_mm=4.0)
    centre = information.samples.points.mean(axis=0).astype(float)
    start, at = inverse(off(head.ct_to_mr)), np.array([30.0, -20.0, 25.0, 3.0, -4.0, 2.0])

    def value(unknowns: np.ndarray) -> float:
        return information.at(start @ _step(unknowns, centre))

    numeric = [(value(at + 0.05 * e) - value(at - 0.05 * e)) / 0.1 for e in np.eye(6)]
    slope = information.with_gradient(start, _step(at, centre), centre)[1]
    exact = np.concatenate([_left_jacobian(at[:3] / 80).T @ slope[:3] / 80, slope[3:]])
    # Samples that enter or leave the CT are not in the gradient.
    assert exact == pytest.approx(numeric, abs=0.12 * np.abs(numeric).max())


def test_refinement_climbs_from_15_mm_to_the_truth(head, pair, error_mm) -> None:
    found = off(head.ct_to_mr)
    assert error_mm(found, head.ct_to_mr) > 15
    for level in (Level(spacing_mm=8.0, sigma_mm=6.0), Level(spacing_mm=4.0, sigma_mm=2.0)):
        found, _ = refine(*pair, found, level)
    assert error_mm(found, head.ct_to_mr) < 1.0
