"""Preprocessing: the working grid follows the CT in physical space, and nothing outside the MR is normalised."""

import dataclasses

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from hnseg.errors import ConfigError, UnsupportedImage
from hnseg.image.body import body_mask
from hnseg.image.grid import Grid
from hnseg.image.orient import canonical
from hnseg.image.volume import Volume
from hnseg.preprocessing import PreprocessSettings, mr_channels, preprocess, preprocess_part, scale_window

SETTINGS = PreprocessSettings(spacing_mm=(4.0, 4.0, 4.0))
CENTRE = np.array([12.0, -30.0, 55.0])


def beside(x, y, z):
    """A point x, y, z mm from the ball's centre."""
    return CENTRE + np.array((x, y, z))


def ball_ct(grid, *, radius=50.0, hu=40):
    """A ball of tissue about CENTRE with a dense bead 30 mm to the patient's left, in air."""
    ijk = np.stack(np.meshgrid(*(np.arange(n) for n in grid.size_ijk), indexing="ij"), axis=-1)
    points = grid.to_lps(ijk)
    ct = np.full(grid.size_ijk, -1000, np.int16)
    ct[np.linalg.norm(points - CENTRE, axis=-1) < radius] = hu
    ct[np.linalg.norm(points - CENTRE - (30, 0, 0), axis=-1) < 8] = 1500
    return Volume(np.ascontiguousarray(ct.transpose(2, 1, 0)), grid)


def oblique(turn_degrees, *, mirror=1.0, spacing=(2.0, 3.0, 4.0), reach=75.0):
    """A grid about CENTRE, turned about an oblique axis; ``mirror`` −1 makes it left-handed."""
    axes = Rotation.from_rotvec(np.array(turn_degrees), degrees=True).as_matrix() @ np.diag([mirror, 1, 1])
    size = tuple(int(2 * reach / s) for s in spacing)
    origin = CENTRE - axes @ (np.array(spacing) * (np.array(size) - 1) / 2)
    return Grid(size, spacing, tuple(origin), tuple(axes.ravel()))


GRIDS = {
    "axial": oblique((0, 0, 0)),
    "oblique": oblique((10, 15, -8)),
    "feet first": oblique((0, 180, 0)),
    "sagittal storage": oblique((0, 0, 90)),
    "left-handed": oblique((5, 0, 3), mirror=-1.0),
}


@pytest.mark.parametrize("name", GRIDS)
def test_the_bead_on_the_left_stays_on_the_left(name):
    given = preprocess(ball_ct(GRIDS[name]), settings=SETTINGS)
    bead = np.argwhere(given.array_ckji[1] > 0.2)[:, ::-1]
    np.testing.assert_allclose(given.grid.to_lps(bead.mean(axis=0)), beside(30, 0, 0), atol=2.0)
    assert np.linalg.det(given.grid.axes) > 0
    assert np.abs(np.diag(given.grid.axes)).min() > 0.9


@pytest.mark.parametrize("name", GRIDS)
def test_the_working_grid_covers_the_body_and_little_more(name):
    given = preprocess(ball_ct(GRIDS[name]), settings=SETTINGS)
    extent = np.asarray(given.grid.size_ijk) * given.grid.spacing_mm
    assert (extent >= 99).all()
    assert (extent <= 100 + 2 * (SETTINGS.margin_mm + 4 + 4)).all()
    body_ml = given.body_kji.sum() * given.grid.voxel_ml
    assert body_ml == pytest.approx(4 / 3 * np.pi * 50**3 / 1000, rel=0.08)


def standing(*, skull):
    """A cylinder of tissue, 560 mm long, with a head of 80 mm on top, in a skull or not; voxels of 4 × 5 × 6 mm."""
    grid = Grid((50, 40, 110), (4.0, 5.0, 6.0), (-100.0, -100.0, -560.0))
    x, y, z = np.moveaxis(grid.to_lps(np.argwhere(np.ones(grid.shape_kji))[:, ::-1]), -1, 0)
    radius = np.sqrt(x**2 + y**2 + z**2)
    hu = np.where((np.hypot(x, y) < 70) & (z < 0), 40.0, -1000.0)
    hu[radius < 80] = 900.0 if skull else 40.0
    hu[radius < 68] = 40.0
    return Volume(hu.reshape(grid.shape_kji).astype(np.float32), grid)


def test_a_head_is_cropped_from_a_whole_body_as_far_below_its_brain_as_asked():
    settings = PreprocessSettings(spacing_mm=(4.0, 4.0, 4.0), below_brain_mm=100.0)
    heights = preprocess(standing(skull=True), settings=settings).grid.corners_lps()[:, 2]
    assert -68 - 100 - 20 < heights.min() < -68 - 100 + 6
    assert 80 < heights.max() < 80 + 20
    whole = preprocess(standing(skull=False), settings=settings).grid
    assert whole.corners_lps()[:, 2].min() < -550


def test_windows_map_their_limits_to_minus_one_and_one():
    scaled = scale_window(np.array([-1000, -160, 40, 240, 3000]), (-160.0, 240.0))
    np.testing.assert_allclose(scaled, [-1, -1, 0, 1, 1])


def test_without_an_mr_its_channels_are_zero():
    given = preprocess(ball_ct(GRIDS["axial"]), settings=SETTINGS)
    assert given.array_ckji.shape[0] == len(SETTINGS.channels) == 4
    assert not given.array_ckji[2:].any()


def test_a_network_that_takes_no_mr_is_shown_none():
    ct = ball_ct(GRIDS["axial"])
    settings = dataclasses.replace(SETTINGS, takes_mr=False)
    given = preprocess(ct, ct, settings=settings)
    assert given.array_ckji.shape[0] == len(settings.channels) == 4
    assert not given.array_ckji[2:].any()
    assert given.mr_scale is None
    whole = preprocess(ct, ct, settings=SETTINGS)
    assert not preprocess_part(ct, ct, grid=whole.grid, settings=settings, whole=whole).array_ckji[2:].any()


def test_the_mr_is_found_through_the_transform_and_is_zero_beyond_its_field_of_view():
    ct = ball_ct(GRIDS["axial"])
    offset = np.array([300.0, -500.0, 900.0])
    half = Grid((40, 40, 20), (4.0, 4.0, 4.0), tuple(CENTRE + offset - (78, 78, 0)))
    points = half.to_lps(np.stack(np.meshgrid(*(np.arange(n) for n in half.size_ijk), indexing="ij"), axis=-1))
    signal = 100 + 50 * (np.linalg.norm(points - CENTRE - offset - (30, 0, 0), axis=-1) < 20)
    mr = Volume(np.ascontiguousarray(signal.transpose(2, 1, 0)).astype(np.int16), half)
    ct_to_mr = sitk.TranslationTransform(3, offset.tolist())
    given = preprocess(ct, mr, ct_to_mr, settings=SETTINGS)
    z_score, valid = given.array_ckji[2:]
    heights = given.grid.to_lps(np.stack([np.zeros(len(valid)), np.zeros(len(valid)), np.arange(len(valid))], axis=-1))
    assert not valid[heights[:, 2] < CENTRE[2] - 4].any()
    assert valid[(heights[:, 2] > CENTRE[2] + 4)].all()
    assert not z_score[valid == 0].any()
    bright = np.argwhere(z_score > 1.0)[:, ::-1]
    assert np.abs(given.grid.to_lps(bright.mean(axis=0))[:2] - beside(30, 0, 0)[:2]).max() < 3.0


def test_an_mr_elsewhere_leaves_both_channels_empty():
    ct = ball_ct(GRIDS["axial"])
    far = Volume(np.ones((5, 5, 5), np.int16), Grid((5, 5, 5), (1.0, 1.0, 1.0), (5000.0, 0.0, 0.0)))
    z_score, valid, _ = mr_channels(far, canonical(ct).grid, None, clip=3.0)
    assert not z_score.any()
    assert not valid.any()


def test_padding_within_the_mr_is_no_mr_and_changes_nothing_else():
    rng = np.random.default_rng(4)
    array = rng.integers(5, 25, (31, 42, 47)).astype(np.int16)
    array[7:24, 10:30, 12:36] = rng.integers(300, 500, (17, 20, 24))
    array[24:] = 0
    whole = Volume(array, Grid((47, 42, 31), (1.0, 1.5, 2.0)))
    cut = whole.cropped((0, 0, 0), (47, 42, 24))
    for grid in (whole.grid, whole.grid.respaced((2.0, 3.0, 4.0))):
        z_score, valid, scale = mr_channels(whole, grid, None, clip=3.0)
        z_score_cut, valid_cut, scale_cut = mr_channels(cut, grid, None, clip=3.0)
        assert 0.7 < valid.mean() < 0.8
        assert np.array_equal(valid, valid_cut)
        assert scale == scale_cut
        assert np.array_equal(z_score, z_score_cut)


def test_a_constant_mr_is_refused():
    ct = ball_ct(GRIDS["axial"])
    flat = ct.with_array(np.full(ct.array_kji.shape, 7, np.int16))
    with pytest.raises(UnsupportedImage, match="no signal"):
        preprocess(ct, flat, settings=SETTINGS)


def test_the_input_is_never_changed():
    ct = ball_ct(GRIDS["oblique"])
    before = ct.array_kji.copy()
    preprocess(ct, ct, settings=SETTINGS)
    np.testing.assert_array_equal(ct.array_kji, before)


def test_couch_and_mask_are_not_body():
    grid = GRIDS["axial"]
    ct = ball_ct(grid)
    array = ct.array_kji.copy()
    plate = round(grid.to_ijk(beside(0, 66, 0))[1])
    array[:, plate, :] = 100
    body = body_mask(ct.with_array(array))
    beyond = np.argwhere(body.array_kji)[:, ::-1]
    assert np.linalg.norm(body.grid.to_lps(beyond) - CENTRE, axis=-1).max() < 56


def test_air_inside_the_body_counts_as_body():
    ct = ball_ct(GRIDS["axial"])
    array = ct.array_kji.copy()
    k, j, i = np.rint(ct.grid.to_ijk(CENTRE)).astype(int)[::-1]
    array[k - 2 : k + 3, j - 4 : j + 5, i - 5 : i + 6] = -1000
    body = body_mask(ct.with_array(array))
    k, j, i = np.rint(body.grid.to_ijk(CENTRE)).astype(int)[::-1]
    assert body.array_kji[k, j, i]


def test_an_empty_ct_has_no_body():
    grid = Grid((8, 9, 10), (3.0, 3.0, 3.0))
    with pytest.raises(UnsupportedImage, match="shows no body"):
        body_mask(Volume(np.full(grid.shape_kji, -1000, np.int16), grid))


@pytest.mark.parametrize(
    "wrong", [{"spacing_mm": (1.0, 0.0, 1.0)}, {"ct_windows_hu": ((240.0, -160.0),)}, {"below_brain_mm": -1.0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"correct it|crops nothing"):
        PreprocessSettings(**wrong)
