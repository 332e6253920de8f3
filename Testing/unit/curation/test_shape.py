"""Crops and spacings: where voxels go, that they come back, and that no organ is cut."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from hnseg.cli.main import main
from hnseg.curation.record import read_case
from hnseg.curation.shape import Boxed, ShapeSettings, onto, proof, reshaped, shaped_grid
from hnseg.errors import ConfigError, GeometryMismatch, UnsupportedImage
from hnseg.image.brain import find_brain
from hnseg.image.files import read_volume, write_volume
from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segmentation, read_segmentation
from hnseg.image.volume import Volume

C, S = np.cos(np.radians(8)), np.sin(np.radians(8))
OBLIQUE = Grid((5, 6, 7), (3.0, 2.0, 1.0), (-4.0, 11.0, 50.0), (C, -S, 0, S, C, 0, 0, 0, 1))
BODY = Grid((60, 56, 150), (6.0, 7.0, 8.0), (-177.0, -150.0, -900.0))
"""A standing person of 1.2 m."""
BRAIN_Z = (180.0, 290.0)


def person(grid=BODY, *, skull=True):
    """Trunk with ribs, spine and a closed pelvic ring around soft tissue, a neck, and a skull around a brain, in HU."""
    k, j, i = np.indices(grid.shape_kji)
    x, y, z = np.moveaxis(grid.to_lps(np.stack([i, j, k], axis=-1)), -1, 0)
    hu = np.full(grid.shape_kji, -1000, np.int16)
    trunk = (z < 60) & ((x / 150) ** 2 + (y / 110) ** 2 < 1)
    neck = (z >= 60) & (z < 170) & (x**2 + (y - 10) ** 2 < 60**2)
    head = np.sqrt(((x - 5) / 78) ** 2 + (y / 98) ** 2 + ((z - 235) / 85) ** 2)
    hu[trunk | neck | (head < 1.1)] = 40
    hu[(z < 160) & ((x / 14) ** 2 + ((y - 60) / 14) ** 2 < 1)] = 500  # the spine
    pelvis = np.sqrt((x / 130) ** 2 + (y / 92) ** 2)
    hu[(z < -720) & (z > -800) & (pelvis > 0.9) & (pelvis < 1) & (np.abs(x) > 6)] = 700
    hu[(z > -350) & (z < -20) & (pelvis > 0.88) & (pelvis < 1) & ((k % 4) == 0)] = 600  # ribs
    if skull:
        hu[(head >= 0.86) & (head < 1)] = 1200
    return Volume(hu, grid)


def organs(grid, **centres):
    """A block of 5 × 3 × 3 voxels about a point for each organ."""
    masks = {}
    for name, centre in centres.items():
        i, j, k = np.rint(grid.to_ijk(np.array(centre))).astype(int)
        array = np.zeros(grid.shape_kji, np.uint8)
        array[k - 1 : k + 2, j - 1 : j + 2, i - 2 : i + 3] = 1
        masks[name] = Volume(array, grid)
    return Boxed.of(Segmentation.from_masks(masks))


def counted(grid):
    return Volume(np.arange(grid.voxels, dtype=np.int32).reshape(grid.shape_kji), grid)


def test_a_crop_copies_voxels_and_its_inverse_brings_them_back():
    volume = counted(OBLIQUE)
    crop = OBLIQUE.cropped((1, 2, 3), (3, 4, 2))
    cut = onto(volume, crop, interpolation="linear", fill=-1)
    assert np.array_equal(cut.array_kji, volume.array_kji[3:5, 2:6, 1:4])
    back = onto(cut, OBLIQUE, interpolation="linear", fill=-1)
    assert np.array_equal(back.array_kji[3:5, 2:6, 1:4], cut.array_kji)
    assert np.count_nonzero(back.array_kji == -1) == OBLIQUE.voxels - 24
    assert back.grid == OBLIQUE


def test_padding_fills_what_the_image_does_not_reach():
    padded = onto(counted(OBLIQUE), OBLIQUE.cropped((-2, 0, 0), (5, 6, 7)), interpolation="nearest", fill=-9)
    assert (padded.array_kji[:, :, :2] == -9).all()
    assert np.array_equal(padded.array_kji[:, :, 2:], counted(OBLIQUE).array_kji[:, :, :3])


def test_a_lattice_that_runs_the_other_way_is_turned_not_resampled():
    flipped = Grid((5, 6, 7), (3.0, 2.0, 1.0), tuple(OBLIQUE.to_lps([4, 5, 0])), (-C, S, 0, -S, -C, 0, 0, 0, 1))
    moved = onto(counted(OBLIQUE), flipped, interpolation="nearest", fill=-1)
    assert np.array_equal(moved.array_kji, counted(OBLIQUE).array_kji[:, ::-1, ::-1])
    assert np.array_equal(onto(moved, OBLIQUE, interpolation="nearest", fill=-1).array_kji, counted(OBLIQUE).array_kji)


def test_another_spacing_is_resampled_in_physical_space():
    ramp = counted(OBLIQUE).grid
    k, j, i = np.indices(ramp.shape_kji)
    volume = Volume(ramp.to_lps(np.stack([i, j, k], axis=-1))[..., 0], ramp)
    finer = onto(volume, ramp.respaced((1.5, 2.0, 0.5)), interpolation="linear", fill=np.nan)
    k, j, i = np.indices(finer.grid.shape_kji)
    x = finer.grid.to_lps(np.stack([i, j, k], axis=-1))[..., 0]
    inside = np.isfinite(finer.array_kji)
    assert inside.mean() > 0.5
    x_low, x_high = volume.array_kji.min(), volume.array_kji.max()
    within = inside & (x > x_low) & (x < x_high)
    middle = within[1:-1, 1:-1, 1:-1]
    assert finer.array_kji[1:-1, 1:-1, 1:-1][middle] == pytest.approx(x[1:-1, 1:-1, 1:-1][middle], abs=0.8)


def test_the_brain_is_found_in_a_whole_body_and_no_pelvis_is_taken_for_it():
    brain = find_brain(person())
    assert brain.low_lps[2] == pytest.approx(BRAIN_Z[0], abs=25)
    assert brain.high_lps[2] == pytest.approx(BRAIN_Z[1], abs=25)
    assert abs((brain.low_lps[0] + brain.high_lps[0]) / 2 - 5) < 8


def test_the_brain_is_found_where_the_vertex_is_cut_off():
    whole = person()
    cut = whole.cropped((0, 0, 0), (60, 56, 146))  # ends at z = 264, 40 mm below the top of the skull
    assert find_brain(cut).low_lps[2] == pytest.approx(find_brain(whole).low_lps[2], abs=9)


def test_a_ct_without_a_skull_is_refused_with_what_was_found():
    with pytest.raises(UnsupportedImage, match="no skull"):
        find_brain(person(skull=False))


def test_the_head_crop_of_a_whole_body_goes_from_the_vertex_to_below_the_brain():
    ct = person()
    low, high = shaped_grid(ct, None, ShapeSettings("head")).bounds_lps()
    brain = find_brain(ct)
    assert low[2] == pytest.approx(brain.low_lps[2] - 110 - 15, abs=12)
    assert high[2] == pytest.approx(min(brain.high_lps[2] + 30 + 15, 296), abs=12)
    assert high[0] - low[0] < 360  # the shoulders' width is not needed


def test_a_crop_grows_for_an_organ_and_the_proof_says_that_nothing_was_lost():
    ct = person()
    low_organ = organs(BODY, Brainstem=(5, 0, 185), Glnd_Thyroid=(0, -30, -120), Parotid_L=(60, 0, 165))
    grid = shaped_grid(ct, low_organ, ShapeSettings("head"))
    kept = proof(low_organ, Boxed.of(reshaped(low_organ.segmentation, grid)))
    assert {row.structure: row.after_ml for row in kept} == pytest.approx(
        {"Brainstem": 45 * 0.336, "Glnd_Thyroid": 45 * 0.336, "Parotid_L": 45 * 0.336}
    )
    assert grid.bounds_lps()[0][2] < -120


def test_a_crop_that_cuts_an_organ_is_refused_by_name():
    low_organ = organs(BODY, Glnd_Thyroid=(0, -30, -120))
    grid = shaped_grid(person(), None, ShapeSettings("head"))
    with pytest.raises(GeometryMismatch, match=r"cuts|loses"):
        proof(low_organ, Boxed.of(reshaped(low_organ.segmentation, grid)))


def test_one_voxel_less_is_a_cut():
    inside = organs(BODY, Brainstem=(5, 0, 185))
    box = inside.box(inside.segmentation.segments[0])
    crop = BODY.cropped((0, 0, 0), (60, 56, box[0].stop - 1))
    with pytest.raises(GeometryMismatch, match="cuts Brainstem"):
        proof(inside, Boxed.of(reshaped(inside.segmentation, crop)))


def test_an_organ_that_a_coarse_spacing_loses_is_named():
    small = organs(BODY, Cochlea_L=(25, 0, 185))
    coarse = ShapeSettings("ct", spacing_mm=(100.0, 100.0, 100.0))
    grid = shaped_grid(person(), small, coarse)
    with pytest.raises(GeometryMismatch, match="loses Cochlea_L"):
        proof(small, Boxed.of(reshaped(small.segmentation, grid)))


def test_512_columns_lie_about_the_organs_with_all_slices():
    grid = Grid((700, 520, 9), (0.6, 0.6, 20.0), (-250.0, -150.0, 150.0))
    ct = person(grid)
    block = organs(grid, Brainstem=(60, 20, 250), Parotid_L=(90, -10, 230))
    cut = shaped_grid(ct, block, ShapeSettings("512"))
    assert cut.size_ijk == (512, 512, 9)
    assert cut.spacing_mm == grid.spacing_mm
    assert cut.centre_lps[:2] == pytest.approx([75, 5], abs=1.5)
    proof(block, Boxed.of(reshaped(block.segmentation, cut)))


def test_512_columns_are_padded_with_air_where_the_ct_has_fewer():
    ct = person(Grid((200, 180, 9), (2.0, 2.0, 20.0), (-190.0, -170.0, 150.0)))
    padded = onto(ct, shaped_grid(ct, None, ShapeSettings("512")), interpolation="linear", fill=-1000)
    assert padded.array_kji.shape == (9, 512, 512)
    assert np.count_nonzero(padded.array_kji > -1000) == np.count_nonzero(ct.array_kji > -1000)


def test_the_cts_own_shape_is_left_alone_and_a_spacing_covers_it():
    ct = person()
    assert shaped_grid(ct, None, ShapeSettings()) == BODY
    respaced = shaped_grid(ct, None, ShapeSettings(spacing_mm=(4.0, 4.0, 4.0)))
    assert respaced.spacing_mm == (4, 4, 4)
    assert respaced.bounds_lps()[1] == pytest.approx(BODY.bounds_lps()[1], abs=4)


@pytest.mark.parametrize("wrong", [{"spacing_mm": (1.0, 0.0, 1.0)}, {"margin_mm": -1.0}, {"head_below_brain_mm": 0.0}])
def test_settings_that_cannot_be_are_refused_when_made(wrong):
    with pytest.raises(ConfigError):
        ShapeSettings(**wrong)


def test_a_skull_full_of_holes_still_surrounds_the_brain():
    """A tenth of the bone is missing, as sutures, foramina and coarse voxels make it."""
    ct = person()
    gone = (ct.array_kji == 1200) & (np.random.default_rng(2).random(ct.array_kji.shape) < 0.1)
    found, whole = find_brain(ct.with_array(np.where(gone, 40, ct.array_kji))), find_brain(ct)
    assert found.low_lps[2] == pytest.approx(whole.low_lps[2], abs=17)
    assert found.ml > 0.7 * whole.ml


def test_a_neck_crop_of_a_ct_without_the_head_keeps_all_slices():
    ct = person(skull=False)
    assert shaped_grid(ct, None, ShapeSettings("head-neck")).size_ijk[2] == BODY.size_ijk[2]
    with pytest.raises(UnsupportedImage, match="no skull"):
        shaped_grid(ct, None, ShapeSettings("head"))


TURNED = Grid((70, 66, 150), (6.0, 7.0, 8.0), (235.0, -200.0, 292.0), (-C, -S, 0, -S, C, 0, 0, 0, -1))
"""The same person on an oblique grid whose i and k run to the right and to the feet."""
NECK_CUT_Z = BRAIN_Z[0] - 210 - 15
LOW_ORGANS = {"Brainstem": (5, 0, 185), "Parotid_L": (60, 0, 165), "Glnd_Thyroid": (0, -30, NECK_CUT_Z - 120)}
"""The last lies far beyond the usual cut."""


@pytest.mark.parametrize("grid", [BODY, TURNED], ids=["upright", "turned"])
def test_the_head_neck_crop_of_a_whole_body_goes_from_the_vertex_to_below_the_shoulders(grid):
    ct = person(grid)
    low, high = shaped_grid(ct, None, ShapeSettings("head-neck")).bounds_lps()
    brain = find_brain(ct)
    assert low[2] == pytest.approx(brain.low_lps[2] - 210 - 15, abs=12)
    assert high[2] == pytest.approx(min(brain.high_lps[2] + 30 + 15, 296), abs=12)
    assert low[2] > grid.bounds_lps()[0][2] + 500  # it is a cut
    assert low[2] < shaped_grid(ct, None, ShapeSettings("head")).bounds_lps()[0][2] - 80
    assert low[0] < -150  # the shoulders' whole width
    assert high[0] > 150


@pytest.mark.parametrize("grid", [BODY, TURNED], ids=["upright", "turned"])
def test_the_head_neck_crop_grows_for_an_organ_beyond_its_cut_and_no_voxel_is_lost(grid):
    ct, drawn = person(grid), organs(grid, **LOW_ORGANS)
    with pytest.raises(GeometryMismatch, match="Glnd_Thyroid"):
        proof(drawn, Boxed.of(reshaped(drawn.segmentation, shaped_grid(ct, None, ShapeSettings("head-neck")))))
    crop = shaped_grid(ct, drawn, ShapeSettings("head-neck"))
    there = reshaped(drawn.segmentation, crop)
    assert crop.voxels < grid.voxels
    assert crop.bounds_lps()[0][2] == pytest.approx(NECK_CUT_Z - 120 - 12 - 15, abs=12)  # 1.5 voxels and the margin
    assert [row.after_ml for row in proof(drawn, Boxed.of(there))] == pytest.approx([45 * 0.336] * 3)
    back = reshaped(there, grid)
    for name in LOW_ORGANS:
        assert np.array_equal(back.mask(name).array_kji, drawn.segmentation.mask(name).array_kji)


@pytest.mark.parametrize("shape", ["head-neck", "head"])
def test_the_inverse_of_a_crop_on_a_turned_oblique_grid_gives_back_every_voxel_exactly(shape):
    crop = shaped_grid(person(TURNED), None, ShapeSettings(shape))
    there = onto(counted(TURNED), crop, interpolation="linear", fill=-1)
    assert (there.array_kji >= 0).all()
    back = onto(there, TURNED, interpolation="linear", fill=-1)
    kept = back.array_kji >= 0
    assert back.grid == TURNED
    assert kept.sum() == crop.voxels
    assert np.array_equal(back.array_kji[kept], counted(TURNED).array_kji[kept])
    k, j, i = np.argwhere(there.array_kji == back.array_kji[kept][0])[0]
    assert crop.to_lps([i, j, k]) == pytest.approx(TURNED.to_lps(np.argwhere(kept)[0][::-1]))


@pytest.mark.parametrize("nudge_mm", [-1e-6, 1e-6])
def test_rounding_in_a_header_does_not_move_a_crop(nudge_mm):
    """The body's ends fall on whole voxels, where a floor alone would go either way."""
    near = Grid(TURNED.size_ijk, TURNED.spacing_mm, tuple(np.add(TURNED.origin_lps, nudge_mm)), TURNED.direction)
    settings, ct = ShapeSettings("head-neck"), person(TURNED)
    exact = shaped_grid(ct, organs(TURNED, **LOW_ORGANS), settings)
    assert shaped_grid(Volume(ct.array_kji, near), organs(TURNED, **LOW_ORGANS), settings).is_close(exact)


SPACED = Grid((31, 25, 19), (1.0, 2.0, 3.0), (-20.0, 11.0, 50.0), OBLIQUE.direction)


def egg(grid=SPACED):
    """A label map with two labels: halves of an ellipsoid away from the image's border."""
    k, j, i = np.indices(grid.shape_kji)
    at = np.stack([i, j, k], axis=-1) * grid.spacing_mm - np.array([15.0, 24.0, 27.0])
    inside = ((at / (11.0, 17.0, 18.0)) ** 2).sum(axis=-1) < 1
    return Volume((inside * (1 + (at[..., 0] > 1.5))).astype(np.uint8), grid)


def there_and_back(volume, spacing_mm, *, interpolation):
    grid = shaped_grid(volume, None, ShapeSettings("ct", spacing_mm=spacing_mm))
    moved = onto(volume, grid, interpolation=interpolation, fill=0)
    assert moved.grid.spacing_mm == spacing_mm
    return onto(moved, volume.grid, interpolation=interpolation, fill=0)


@pytest.mark.parametrize("spacing_mm", [(0.8, 0.8, 0.8), (0.9, 1.7, 2.5), (0.5, 1.0, 1.5)])
def test_labels_come_back_from_a_finer_spacing_voxel_for_voxel(spacing_mm):
    """A finer voxel's centre lies within half its width of the old one's, so that the old one is its nearest."""
    assert np.array_equal(there_and_back(egg(), spacing_mm, interpolation="nearest").array_kji, egg().array_kji)


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (1.5, 3.0, 4.5), (1.6, 1.6, 5.0)])
def test_labels_come_back_from_a_coarser_spacing_but_for_their_rims(spacing_mm):
    """A voxel gets the label of one that is at most half an old and half a new voxel away along each axis."""
    back, old = there_and_back(egg(), spacing_mm, interpolation="nearest").array_kji, egg().array_kji
    reach = [int((new / mm + 1) / 2) for new, mm in zip(spacing_mm, SPACED.spacing_mm, strict=True)][::-1]
    near = np.ones([2 * n + 1 for n in reach], bool)
    for label in (0, 1, 2):
        assert (back == label)[ndimage.binary_erosion(old == label, near, border_value=1)].all()
        assert not (back == label)[~ndimage.binary_dilation(old == label, near)].any()
        both = 2 * np.count_nonzero((back == label) & (old == label))
        assert both / (np.count_nonzero(back == label) + np.count_nonzero(old == label)) > 0.8


@pytest.mark.parametrize("spacing_mm", [(0.8, 0.8, 0.8), (1.5, 3.0, 4.5)])
def test_values_that_run_straight_come_back_from_another_spacing(spacing_mm):
    k, j, i = np.indices(SPACED.shape_kji)
    ramp = Volume(SPACED.to_lps(np.stack([i, j, k], axis=-1)) @ np.array([1.0, -2.0, 3.0]), SPACED)
    back = there_and_back(ramp, spacing_mm, interpolation="linear")
    inner = (slice(3, -3),) * 3
    assert back.array_kji[inner] == pytest.approx(ramp.array_kji[inner], abs=1e-3)


@pytest.mark.parametrize("spacing_mm", [None, (5.0, 5.0, 5.0)], ids=["crop", "crop and spacing"])
def test_a_curated_case_has_the_crop_and_spacing_asked_for_and_its_proof_in_the_record(tmp_path, spacing_mm):
    ct, drawn = person(TURNED), organs(TURNED, **LOW_ORGANS)
    source = tmp_path / "in" / "case_01"
    source.mkdir(parents=True)
    write_volume(ct, source / "case_01_IMG_CT.nrrd")
    for name in LOW_ORGANS:
        mask = drawn.segmentation.mask(name)
        write_volume(mask.with_array(mask.array_kji.astype(np.uint8)), source / f"case_01_OAR_{name}.seg.nrrd")
    options = ["--registration", "none", "--shape", "head-neck", "--test-share", "0"]
    options += ["--spacing", ",".join(map(str, spacing_mm))] if spacing_mm else []
    assert main(["curate", str(tmp_path / "in"), str(tmp_path / "out"), *options]) == 0

    case = tmp_path / "out" / "cases" / "case_01"
    record = read_case(case)
    expected = shaped_grid(ct, drawn, ShapeSettings("head-neck", spacing_mm))
    assert record.ct_grid.is_close(TURNED)
    assert record.grid.is_close(expected)
    assert record.grid.spacing_mm == pytest.approx(spacing_mm or TURNED.spacing_mm)
    cut, labels = read_volume(case / "ct.nrrd"), read_volume(case / "labels.nrrd")
    for grid in (cut.grid, labels.grid, read_segmentation(case / "segmentation.seg.nrrd").grid):
        assert grid.is_close(expected)

    whole = onto(labels, record.ct_grid, interpolation="nearest", fill=0)
    assert np.array_equal(whole.array_kji, drawn.segmentation.to_labels().array_kji)
    if spacing_mm is None:
        assert np.array_equal(cut.array_kji, onto(ct, expected, interpolation="linear", fill=-1000).array_kji)

    kept = {row["structure"]: row for row in json.loads((case / "case.json").read_text())["kept"]}
    assert set(kept) == set(LOW_ORGANS)
    for row in kept.values():
        assert row["before_ml"] == pytest.approx(45 * 0.336)
        assert row["after_ml"] == pytest.approx(45 * 0.336, rel=0.25 if spacing_mm else 1e-6)


@pytest.mark.real_data
@pytest.mark.parametrize("patient", [100, 114, 17, 35, 72])
def test_the_brain_of_real_patients_ends_where_their_brainstem_does(patient):
    folder = Path(__file__).parents[4] / "shared" / "data" / "openkbp"
    if not folder.is_dir():
        pytest.skip(f"SKIPPED: the real CTs are not at {folder}")
    brainstem = read_volume(folder / f"pt_{patient}_oar.nii.gz")
    heights = brainstem.grid.to_lps(np.argwhere(brainstem.array_kji == 1)[:, ::-1])[:, 2]
    found = find_brain(read_volume(folder / f"pt_{patient}_ct.nii.gz"))
    assert found.low_lps[2] == pytest.approx(heights.min(), abs=20)
    assert found.high_lps[2] > heights.max()
