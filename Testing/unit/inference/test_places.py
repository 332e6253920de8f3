"""Where organs that were not found should lie."""

from __future__ import annotations

import numpy as np

from hnseg.inference.places import usual_places

TYPICAL = {
    "Eye_AL": (30.0, -70.0, 40.0),
    "Eye_AR": (-30.0, -70.0, 40.0),
    "OpticChiasm": (0.0, -25.0, 45.0),
    "Brainstem": (0.0, 20.0, 10.0),
    "Lips": (0.0, -80.0, -40.0),
    "Glottis": (0.0, -30.0, -120.0),
    "Glnd_Thyroid": (0.0, -25.0, -150.0),
    "SpinalCord": (0.0, 30.0, -90.0),
    "Larynx_SG": (0.0, -35.0, -100.0),
    "Cricopharyngeus": (0.0, -15.0, -130.0),
    "Esophagus_S": (0.0, 0.0, -160.0),
}


def found(shift: tuple[float, float, float], *names: str) -> dict[str, np.ndarray]:
    return {name: np.add(TYPICAL[name], shift) for name in names}


def test_a_missing_organ_is_where_the_others_moved_to() -> None:
    places = usual_places(found((12.0, -7.0, 900.0), "Eye_AL", "Brainstem", "Lips"), TYPICAL)
    assert set(places) == set(TYPICAL)
    np.testing.assert_allclose(places["OpticChiasm"], (12.0, -32.0, 945.0))


def test_the_nearest_organs_count_so_that_a_bent_neck_does_not_move_the_eyes() -> None:
    head = found((0.0, 0.0, 0.0), "Eye_AL", "Eye_AR", "OpticChiasm", "Brainstem", "Lips")
    neck = found((0.0, 25.0, 0.0), "Glottis", "Glnd_Thyroid", "SpinalCord", "Cricopharyngeus", "Esophagus_S")
    places = usual_places({**head, **neck}, TYPICAL)
    np.testing.assert_allclose(places["Eye_AR"], TYPICAL["Eye_AR"])
    np.testing.assert_allclose(places["Larynx_SG"], np.add(TYPICAL["Larynx_SG"], (0, 25, 0)))


def test_one_stray_organ_moves_nothing() -> None:
    seen = found((5.0, 5.0, 5.0), "Eye_AL", "Brainstem", "Lips") | found((0.0, 0.0, 400.0), "OpticChiasm")
    np.testing.assert_allclose(usual_places(seen, TYPICAL)["Eye_AR"], np.add(TYPICAL["Eye_AR"], 5), atol=5)


def test_without_any_landmark_nothing_is_expected_anywhere() -> None:
    assert usual_places({}, TYPICAL) == {}
    assert usual_places({"Cochlea_L": np.zeros(3)}, TYPICAL) == {}
