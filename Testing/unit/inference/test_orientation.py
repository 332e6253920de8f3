"""Organs in the order of a patient say nothing; in another order they give the header away."""

from __future__ import annotations

import numpy as np
import pytest

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.inference.orientation import orientation_warnings
from hnseg.organs import BY_NAME

# Along x, y, z: asymmetric, 40 mm and more from end to end.
TYPICAL = {
    "Brainstem": (0.0, 10.0, 0.0),
    "Parotid_L": (58.0, 5.0, -20.0),
    "Parotid_R": (-58.0, 0.0, -25.0),
    "Lips": (5.0, -90.0, -50.0),
    "Glottis": (0.0, -20.0, -130.0),
    "SpinalCord": (0.0, 25.0, -100.0),
    "Eye_PL": (32.0, -70.0, 20.0),
}
TILT = np.radians(9.0)
GRID = Grid(
    (46, 40, 50),
    (4.0, 5.0, 6.0),
    (-90.0, -120.0, 850.0),
    (1, 0, 0, 0, np.cos(TILT), -np.sin(TILT), 0, np.sin(TILT), np.cos(TILT)),
)


def scan(matrix: np.ndarray, names: tuple[str, ...] = tuple(TYPICAL)) -> Volume:
    """Each organ as a block about its typical place, turned by ``matrix``, in the middle of an oblique grid."""
    labels = np.zeros(GRID.shape_kji, np.uint8)
    places = np.array([TYPICAL[name] for name in names]) - np.mean(list(TYPICAL.values()), axis=0)
    for name, place in zip(names, places @ matrix.T + GRID.centre_lps, strict=True):
        i, j, k = np.rint(GRID.to_ijk(place)).astype(int)
        labels[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2] = BY_NAME[name].label
    return Volume(labels, GRID)


def flexion(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


@pytest.mark.parametrize("degrees", [-35.0, 0.0, 35.0])
def test_a_patient_may_bend_the_neck(degrees: float) -> None:
    assert orientation_warnings(scan(flexion(degrees)), TYPICAL) == ()


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.diag([1, 1, -1]), "from foot to head"),
        (np.diag([1, -1, 1]), "from front to back"),
        (np.diag([-1, 1, -1]), "from right to left and from foot to head"),
        (flexion(90.0), "from front to back and from foot to head"),
    ],
)
def test_a_patient_in_no_patients_order_is_told_axis_by_axis(matrix: np.ndarray, words: str) -> None:
    (warning,) = orientation_warnings(scan(matrix), TYPICAL)
    assert f"do not lie {words} as in a patient" in warning


def test_few_organs_and_unknown_ones_say_nothing() -> None:
    upside_down = np.diag([1, 1, -1])
    assert orientation_warnings(scan(upside_down, tuple(TYPICAL)[:5]), TYPICAL) == ()
    assert orientation_warnings(scan(upside_down), {}) == ()


def test_organs_in_one_plane_say_nothing_across_it() -> None:
    flat = {name: (x, y, 0.1 * z) for name, (x, y, z) in TYPICAL.items()}
    assert orientation_warnings(scan(np.diag([1, 1, -1])), flat) == ()
