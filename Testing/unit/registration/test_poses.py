import numpy as np
import pytest
import SimpleITK as sitk

from hnseg.errors import GeometryMismatch
from hnseg.registration.poses import (
    HALF_TURNS,
    degrees_between,
    from_transform,
    inverse,
    mm_between,
    moved,
    nearest_pose,
    pose,
    rotation,
    tilt_degrees,
    to_transform,
)

SOME = pose(rotation((20, -35, 170)), (500, -300, 12), centre=(10, 20, 30))


def test_a_pose_turns_about_its_centre_and_then_shifts() -> None:
    quarter = pose(rotation((0, 0, 90)), (0, 0, 5), centre=(10, 0, 0))
    assert moved([11, 0, 0], quarter) == pytest.approx([10, 1, 5])


def test_rotations_are_applied_about_x_first() -> None:
    # y goes to z about x, then z to x about y.
    assert rotation((90, 90, 0)) @ [0, 1, 0] == pytest.approx([1, 0, 0])


def test_a_pose_and_its_inverse_cancel() -> None:
    assert inverse(SOME) @ SOME == pytest.approx(np.eye(4), abs=1e-10)


@pytest.mark.parametrize(("name", "diagonal"), HALF_TURNS)
def test_half_turns_keep_the_hand(name: str, diagonal: tuple[int, int, int]) -> None:
    assert np.prod(diagonal) == 1, name


@pytest.mark.parametrize("matrix", [SOME, pose(np.diag([-1.0, 1.0, -1.0]), (1100, 0, 0)), np.eye(4)])
def test_a_transform_maps_as_its_pose_does_and_gives_it_back(matrix: np.ndarray) -> None:
    transform = to_transform(matrix, centre=(5, -7, 90))
    point = (12.0, -34.0, 56.0)
    assert transform.TransformPoint(point) == pytest.approx(moved(point, matrix), abs=1e-9)
    assert from_transform(transform) == pytest.approx(matrix, abs=1e-9)


def test_a_translation_and_a_composite_of_rigid_ones_are_rigid() -> None:
    shift = sitk.TranslationTransform(3, (1.0, 2.0, 3.0))
    both = sitk.CompositeTransform([shift, to_transform(SOME)])
    assert from_transform(both) == pytest.approx(pose(np.eye(3), (1, 2, 3)) @ SOME, abs=1e-9)


def test_scaling_mirroring_and_bending_are_refused() -> None:
    bent = sitk.DisplacementFieldTransform(
        sitk.GetImageFromArray(np.random.default_rng(0).normal(0, 9, (60, 60, 60, 3)), isVector=True)
    )
    bent_about = sitk.CompositeTransform([sitk.TranslationTransform(3, (-30.0, 240.0, -120.0)), bent])
    for transform in (
        sitk.ScaleTransform(3, (1.0, 1.0, 1.1)),
        sitk.ScaleTransform(3, (-1.0, 1.0, 1.0)),
        bent,
        bent_about,
    ):
        with pytest.raises(GeometryMismatch, match="rigid"):
            from_transform(transform)


def test_distances_between_poses() -> None:
    turned = pose(rotation((0, 0, 90)), (0, 0, 3))
    assert degrees_between(np.eye(4), turned) == pytest.approx(90)
    # (4, 0, 0) → (0, 4, 3): √(16 + 16 + 9); (0, 0, 0) → (0, 0, 3).
    assert mm_between(np.eye(4), turned, [[4, 0, 0], [0, 0, 0]]) == pytest.approx(np.sqrt((41 + 9) / 2))


@pytest.mark.parametrize("signs", [signs for _, signs in HALF_TURNS])
def test_a_tilt_is_told_apart_from_the_half_turn_beside_it(signs: tuple[int, int, int]) -> None:
    tilted = pose(rotation((0, 25, 0)) @ np.diag(signs), (1, 2, 3))
    assert tilt_degrees(tilted) == pytest.approx(25)


def test_the_nearest_pose_is_the_one_that_moved_the_points() -> None:
    points = np.random.default_rng(3).normal(0, 40, (50, 3))
    truth = pose(rotation((20, -100, 7)), (400, -3, 12), (5, 6, 7))
    assert nearest_pose(points, moved(points, truth)) == pytest.approx(truth)
