"""A head whose jaw was elsewhere during the MR, by a motion that is known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from hnseg.errors import Cancelled
from hnseg.image.files import read_transform, write_transform
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.registration import DeformableRegistration, Quality, Registration, deformable, register_deformable
from hnseg.registration.bending import ControlLattice
from hnseg.registration.deformable import BendingLevel
from hnseg.registration.images import prepare_ct
from hnseg.registration.poses import from_transform, inverse, moved, to_transform
from hnseg.registration.quality import RULES
from hnseg.registration.skull import skull

QUALITY = Quality(1.0, 0.9, 140.0, 0.3, 0.7, 0.7, 0.9, 0.2, 0.2, 1.0, 178.0)
JAW = np.array([(4.0, -85.0, -82.0), (0.0, -50.0, -50.0), (45.0, -40.0, -60.0), (-45.0, -40.0, -60.0)])
HEAD = np.array([(25.0, -10.0, 50.0), (-24.0, 24.0, 62.0), (20.0, 45.0, 20.0), (0.0, -5.0, 30.0)])


def jaw_motion(places: np.ndarray) -> np.ndarray:
    """What lies at a place of the MR's head lies this much further in the CT's."""
    near = np.exp(-0.5 * np.sum(((places - [0, -60, -75]) / [60, 40, 32]) ** 2, axis=-1))
    return near[..., None] * np.array([0.0, 3.0, 4.5])


def where_it_went(points: np.ndarray) -> np.ndarray:
    """CT's head → MR's head."""
    places = points.copy()
    for _ in range(30):
        places = points - jaw_motion(places)
    return places


@pytest.fixture(scope="module")
def bent_mr(head) -> Volume:
    """The rigid MR's voxels, fetched from where the jaw was."""
    grid = head.mr.grid
    places = moved(grid.to_lps(np.argwhere(np.ones(grid.shape_kji))[:, ::-1]), inverse(head.ct_to_mr))
    source = grid.to_ijk(moved(places + jaw_motion(places), head.ct_to_mr))
    from scipy.ndimage import map_coordinates

    array = map_coordinates(head.mr.array_kji.astype(np.float32), source.T[::-1], order=1, mode="nearest")
    return head.mr.with_array(array.reshape(grid.shape_kji).astype(np.int16))


@pytest.fixture(scope="module")
def rigid(head) -> Registration:
    return Registration(to_transform(head.ct_to_mr, (0, 0, 0)), "good", "It is good.", QUALITY, 1.0)


@pytest.fixture(scope="module")
def told() -> list[float]:
    return []


@pytest.fixture(scope="module")
def found(head, bent_mr, rigid, told) -> DeformableRegistration:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deformable, "STIFFNESS", 100.0)  # a head of ellipsoids has little to hold on to
        patch.setitem(RULES, "bend_gain", replace(RULES["bend_gain"], refused_at=-9.0, accepted_from=-1.0))
        patch.setattr(deformable, "LEAST_GAIN", -1.0)  # edges without partial volumes lose when they are interpolated
        return register_deformable(head.ct, bent_mr, rigid=rigid, on_progress=lambda f, _text: told.append(f))


def errors(transform: sitk.Transform, head: Any, points: np.ndarray) -> np.ndarray:
    reached = np.array([transform.TransformPoint(p) for p in points.tolist()])
    return np.linalg.norm(moved(reached, inverse(head.ct_to_mr)) - where_it_went(points), axis=1)


def test_the_jaw_is_found_and_the_skull_stays(head, rigid, found) -> None:
    before, after = errors(rigid.transform, head, JAW), errors(found.transform, head, JAW)
    assert before.mean() > 3
    assert after.mean() < 0.8 * before.mean()
    assert errors(found.transform, head, HEAD).max() < 0.6
    assert found.bending.used


def test_nothing_folds(found) -> None:
    assert found.bending.smallest_jacobian > 0
    spline = sitk.CompositeTransform(found.transform).GetNthTransform(1)
    displacement = sitk.TransformToDisplacementField(
        spline, sitk.sitkVectorFloat64, (100, 76, 92), (-202.0, -154.0, -238.0), (4.0, 4.0, 4.0)
    )
    jacobian = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(displacement))
    assert jacobian[1:-1, 1:-1, 1:-1].min() > 0


def test_the_measures_are_the_rigid_poses_with_the_bendings_beside_them(head, rigid, found, told) -> None:
    same = {"bend_mm": 0.0, "smallest_jacobian": 1.0, "bend_gain": 0.0}
    assert replace(found.metrics, **same) == rigid.metrics
    assert found.verdict == "good"
    assert 1 < found.metrics.bend_mm <= found.bending.largest_mm
    assert found.metrics.smallest_jacobian == pytest.approx(found.bending.smallest_jacobian, abs=0.1)
    assert from_transform(found.rigid) == pytest.approx(from_transform(rigid.transform))
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_bending_that_goes_too_far_is_left_out(head, bent_mr, rigid, monkeypatch) -> None:
    quick(monkeypatch, STIFFNESS=100.0, LEAST_GAIN=-1.0)
    near = replace(RULES["bend_mm"], refused_at=0.2, accepted_from=0.1)
    monkeypatch.setitem(RULES, "bend_mm", near)
    kept = register_deformable(head.ct, bent_mr, rigid=rigid)
    assert (kept.verdict, kept.bending.used, kept.metrics) == ("good", False, rigid.metrics)
    assert kept.bending.reason.startswith("The bending moves a place of the body by ")
    assert kept.transform is rigid.transform


@pytest.mark.parametrize("suffix", [".tfm", ".h5"])
def test_the_result_survives_a_file(found, tmp_path: Path, suffix: str) -> None:
    write_transform(found.transform, tmp_path / f"t{suffix}")
    again = read_transform(tmp_path / f"t{suffix}")
    for point in JAW.tolist():
        assert again.TransformPoint(point) == pytest.approx(found.transform.TransformPoint(point), abs=1e-4)


def quick(monkeypatch: pytest.MonkeyPatch, **more: float) -> None:
    level = BendingLevel(control_mm=32.0, spacing_mm=6.0, sigma_mm=3.0, samples=6_000, iterations=8)
    monkeypatch.setattr(deformable, "LEVELS", (level,))
    for name, value in more.items():
        monkeypatch.setattr(deformable, name, value)


def test_it_becomes_stiffer_until_the_jacobian_is_as_large_as_asked(head, bent_mr, rigid, monkeypatch) -> None:
    quick(monkeypatch, STIFFNESS=1.0)
    loose = register_deformable(head.ct, bent_mr, rigid=rigid).bending
    quick(monkeypatch, STIFFNESS=1.0, SMALLEST_JACOBIAN=0.98)
    stiff = register_deformable(head.ct, bent_mr, rigid=rigid).bending
    assert loose.smallest_jacobian < 0.98 <= stiff.smallest_jacobian


def test_where_bending_explains_too_little_the_pose_stays_rigid(head, bent_mr, rigid, monkeypatch) -> None:
    quick(monkeypatch, LEAST_GAIN=9.0)
    kept = register_deformable(head.ct, bent_mr, rigid=rigid)
    assert not kept.bending.used
    assert from_transform(kept.transform) == pytest.approx(head.ct_to_mr, abs=1e-9)


def test_a_failed_pose_is_no_start(head, bent_mr, rigid) -> None:
    failed = replace(rigid, verdict="failed")
    kept = register_deformable(head.ct, bent_mr, rigid=failed)
    assert (kept.verdict, kept.bending.used) == ("failed", False)
    assert kept.transform is rigid.transform


def test_a_cancel_within_the_bending_goes_through(head, bent_mr, rigid, monkeypatch) -> None:
    quick(monkeypatch)

    def stop(fraction: float, text: str) -> None:
        if text == "Bending jaw and neck":
            raise Cancelled(text)

    with pytest.raises(Cancelled):
        register_deformable(head.ct, bent_mr, rigid=rigid, on_progress=stop)


def test_the_skull_holds_the_brain_and_not_the_jaw(head) -> None:
    ct = prepare_ct(head.ct, 4.0)
    mask = skull(ct)

    def at(point: tuple[float, float, float]) -> bool:
        i, j, k = np.rint(ct.grid.to_ijk(point)).astype(int)
        return bool(mask[k, j, i])

    assert at((0, 5, 40))
    assert at((68, -5, 30)), "bone of the side"
    assert not any(at(point) for point in [(4, -85, -82), (45, -40, -60), (0, 32, -110), (0, 60, -215)])


def test_a_ct_without_a_brain_has_no_skull() -> None:
    fat = Volume(np.full((12, 12, 12), -100, dtype=np.int16), Grid((12, 12, 12), (5.0, 5.0, 5.0)))
    assert not skull(prepare_ct(fat, 5.0)).any()


@pytest.mark.parametrize(("length", "left"), [(0.35, 0.07), (0.7, 0.35), (2.1, 1.89), (7.0, 6.931)])
def test_short_displacements_are_damped_and_long_ones_stay(length: float, left: float) -> None:
    lattice = ControlLattice(np.array([-100.0, -80.0, -60.0]), 32.0, (6, 7, 8))
    coefficients = np.tile(length * np.array([2.0, -1.0, 2.0]) / 3, (lattice.points, 1))
    damped = deformable._damped(lattice, coefficients)
    inside = lattice.displacement(damped, [[10.0, 20.0, 30.0], [-20.0, 5.0, 10.0]])
    np.testing.assert_allclose(inside, left * np.array([[2.0, -1.0, 2.0]] * 2) / 3, atol=1e-3)
