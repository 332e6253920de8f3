import numpy as np
import pytest

from hnseg.image.grid import Grid
from hnseg.registration.bending import ControlLattice
from hnseg.registration.poses import rotation

GRID = Grid((30, 40, 20), (3.0, 2.0, 5.0), (-400.0, 70.0, 900.0), tuple(rotation((10, -20, 15)).ravel()))
LATTICE = ControlLattice.over(GRID, 20.0)


def wave(points: np.ndarray, size: float) -> np.ndarray:
    return size * np.sin(points[:, [1, 2, 0]] / 40)


@pytest.fixture(scope="module")
def places() -> np.ndarray:
    rng = np.random.default_rng(0)
    return GRID.to_lps(rng.uniform(0, np.array(GRID.size_ijk) - 1, (200, 3)))


def test_weights_displacement_and_itks_transform_agree_all_over_the_grid(places) -> None:
    coefficients = np.random.default_rng(1).normal(0, 3, (LATTICE.points, 3))
    by_weights = LATTICE.weights(places) @ coefficients
    transform = LATTICE.to_transform(coefficients)
    by_itk = np.array([transform.TransformPoint(p) for p in places.tolist()]) - places
    assert LATTICE.displacement(coefficients, places) == pytest.approx(by_weights, abs=1e-4)
    assert by_itk == pytest.approx(by_weights, abs=1e-4)


def test_a_fitted_spline_passes_through_its_displacements_at_the_nodes() -> None:
    wanted = wave(LATTICE.nodes(), 4.0)
    assert LATTICE.displacement(LATTICE.fitted(wanted), LATTICE.nodes()) == pytest.approx(wanted, abs=1e-3)


def test_a_shift_costs_nothing_and_a_stretch_only_at_first_order() -> None:
    stiffness = LATTICE.stiffness(0.5)
    shift, stretch = np.ones((LATTICE.points, 3)), 0.1 * LATTICE.nodes()
    assert np.vdot(shift, stiffness @ shift) == pytest.approx(0, abs=1e-9)
    # Three slopes of 0.1, times 0.5; the ends have one difference less.
    assert np.vdot(stretch, stiffness @ stretch) == pytest.approx(0.5 * 3 * 0.01, rel=0.15)


def test_the_smallest_jacobian_is_that_of_a_stretch_and_negative_for_a_fold() -> None:
    squeeze = LATTICE.fitted(LATTICE.nodes() * [-0.2, 0.1, 0.0])
    inner = LATTICE.smallest_jacobian(squeeze)
    assert inner == pytest.approx(0.8 * 1.1, abs=0.05)
    assert LATTICE.smallest_jacobian(LATTICE.nodes() * [-1.5, 0.0, 0.0]) < 0
    assert LATTICE.smallest_jacobian(np.zeros((LATTICE.points, 3))) == 1
