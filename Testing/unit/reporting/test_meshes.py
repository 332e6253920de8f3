import numpy as np
import pytest

from hnseg.image.volume import Volume
from hnseg.organs import BY_NAME
from hnseg.reporting.meshes import Mesh, organ_meshes, render, surface

LEFT, CORD = BY_NAME["Parotid_L"], BY_NAME["SpinalCord"]


def enclosed_ml(mesh: Mesh) -> float:
    """By the divergence theorem; its sign tells which way the triangles face."""
    a, b, c = (mesh.points_lps[mesh.triangles[:, n]].astype(float) for n in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6000


def test_each_organ_gives_a_surface_where_it_lies_with_normals_outward(labels: Volume) -> None:
    left, cord = organ_meshes(labels)
    assert (left.name, cord.name) == ("Parotid_L", "SpinalCord")
    assert left.rgb == LEFT.rgb
    for mesh, centre, radius in ((left, (35, -12, 110), 12.0), (cord, (0, 30, 85), 8.0)):
        arms = mesh.points_lps - np.array(centre)
        distance = np.linalg.norm(arms, axis=1)
        assert distance.mean() == pytest.approx(radius, abs=0.8)
        cosine = np.einsum("ij,ij->i", arms, mesh.normals) / distance
        assert np.quantile(cosine, 0.05) > 0.7
        np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1.0, atol=1e-4)
        assert abs(enclosed_ml(mesh)) == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.2)


def test_an_organ_of_a_single_voxel_may_vanish_but_is_no_error(labels: Volume) -> None:
    one = np.zeros_like(labels.array_kji)
    one[10, 20, 30] = LEFT.label
    assert len(organ_meshes(labels.with_array(one))) <= 1
    nothing = labels.with_array(np.zeros_like(labels.array_kji))
    assert organ_meshes(nothing) == ()
    assert surface(nothing.with_array(nothing.array_kji > 0), spacing_mm=2.0, name="", rgb=(1, 2, 3)) is None


def colours(picture: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Where a picture shows a mesh: its hue at any brightness."""
    rgb = np.array(mesh.rgb, float)
    pixels = picture.astype(float)
    cosine = pixels @ rgb / (np.linalg.norm(pixels, axis=-1) * np.linalg.norm(rgb) + 1e-9)
    return (cosine > 0.995) & (pixels.max(axis=-1) > 40)


def test_from_the_front_the_patients_left_is_on_the_right_and_from_the_back_on_the_left(labels: Volume) -> None:
    left, cord = organ_meshes(labels)
    for azimuth, sign in ((0.0, 1), (180.0, -1)):
        picture = render((left, cord), azimuth_deg=azimuth, elevation_deg=0.0, size=160)
        at_left, at_cord = (np.argwhere(colours(picture, mesh)).mean(axis=0) for mesh in (left, cord))
        assert sign * (at_left[1] - at_cord[1]) > 20
        assert at_left[0] < at_cord[0] - 10, "superior is up"


def test_from_the_patients_left_anterior_is_on_the_left(labels: Volume) -> None:
    left, cord = organ_meshes(labels)
    picture = render((left, cord), azimuth_deg=90.0, elevation_deg=0.0, size=160)
    at_left, at_cord = (np.argwhere(colours(picture, mesh)).mean(axis=0) for mesh in (left, cord))
    assert at_left[1] < at_cord[1] - 20


def test_what_is_nearer_hides_what_is_behind_and_surfaces_have_no_holes(labels: Volume) -> None:
    (left, _) = organ_meshes(labels)
    behind = Mesh("b", (255, 0, 0), left.points_lps + np.float32([0, 40, 0]), left.normals, left.triangles)
    picture = render((behind, left), azimuth_deg=0.0, elevation_deg=0.0, size=160)
    assert not ((picture[..., 0] > 60) & (picture[..., 1] < 20) & (picture[..., 2] < 20)).any()
    rows, columns = np.nonzero(colours(picture, left))
    inside = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2 < (0.45 * np.ptp(rows)) ** 2
    disc = picture[rows[inside], columns[inside]]
    span = picture[int(rows.mean()), columns.min() + 2 : columns.max() - 2]
    assert len(disc) > 500
    assert (span.max(axis=-1) > 40).all()


def test_nothing_gives_an_empty_picture_and_skin_a_veil(labels: Volume) -> None:
    empty = render((), azimuth_deg=0.0, size=64)
    assert (empty == empty[0, 0]).all()
    left, cord = organ_meshes(labels)
    around = Mesh(
        "skin",
        (200, 180, 160),
        cord.points_lps * np.float32(1.2) - cord.points_lps.mean(axis=0) * np.float32(0.2),
        cord.normals,
        cord.triangles,
    )
    veiled = render((left, cord), azimuth_deg=0.0, size=64, skin=around)
    bare = render((left, cord), azimuth_deg=0.0, size=64)
    assert (veiled.astype(int) - bare).max() > 5
    assert (veiled == bare).all(axis=-1).any()
