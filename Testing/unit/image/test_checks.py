"""Is it a CT in HU, is it an MR, were they swapped? On made-up tissue and on real images."""

import numpy as np
import pytest

from hnseg.errors import UnsupportedImage, WrongModality
from hnseg.image.checks import check_ct, check_mr, check_pair, looks_like_ct
from hnseg.image.files import read_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume

GRID = Grid((40, 36, 60), (4.0, 4.0, 3.0), (-80.0, -72.0, -90.0))  # 160 × 144 × 180 mm


def head(air, fat, muscle, bone, airway=None, noise=10.0):
    """A cylinder of muscle in fat around a bone, with an airway, in air."""
    rng = np.random.default_rng(5)
    _, j, i = np.meshgrid(*(np.arange(n) for n in GRID.shape_kji), indexing="ij")
    radius = np.hypot(i - 19.5, (j - 17.5) * 1.1)
    image = np.select([radius < 3, radius < 11, radius < 14], [bone, muscle, fat], air).astype(float)
    image[np.hypot(i - 15, j - 12) < 2] = air if airway is None else airway
    return np.rint(image + rng.normal(0, noise, image.shape)).astype(np.int16)


def ct(**changes):
    return Volume(head(**{"air": -1000, "fat": -95, "muscle": 55, "bone": 900, **changes}), GRID)


def mr(**changes):
    return Volume(np.abs(head(**{"air": 8, "fat": 900, "muscle": 330, "bone": 60, **changes})), GRID)


def test_a_ct_and_an_mr_pass_without_warnings():
    assert check_ct(ct()) == ()
    assert check_mr(mr()) == ()
    assert check_pair(ct(), mr()) == ()
    assert check_pair(ct(), None) == ()


@pytest.mark.parametrize("factor", [1e-3, 100.0])
def test_spacing_in_other_units_than_mm_is_refused(factor):
    spacing = tuple(mm * factor for mm in GRID.spacing_mm)
    for check, volume in ((check_ct, ct()), (check_mr, mr())):
        with pytest.raises(UnsupportedImage, match=r"mm: its spacing must be wrong; correct it in the file\."):
            check(Volume(volume.array_kji, Grid(GRID.size_ijk, spacing, GRID.origin_lps)))


def test_swapped_images_are_told_to_be_swapped():
    with pytest.raises(WrongModality, match=r"^The CT looks like an MR, and the MR like a CT; swap --ct and --mr\.$"):
        check_pair(mr(), ct())


def test_one_image_for_both_roles_is_refused():
    with pytest.raises(WrongModality, match="The MR looks like a CT"):
        check_pair(ct(), ct())
    with pytest.raises(WrongModality, match="looks like an MR"):
        check_pair(mr(), mr())


@pytest.mark.parametrize("padding", [-1024, -2048, -3024])
def test_padding_outside_the_scan_does_not_matter(padding):
    volume = ct()
    array = volume.array_kji.copy()
    array[:, :6] = padding
    assert check_ct(volume.with_array(array)) == ()


def test_a_ct_with_the_outside_masked_away_still_has_its_airways():
    volume = ct(air=-3024, airway=-980, noise=1)
    assert check_ct(volume) == ()


NOT_HU = {
    "lacks its rescale intercept": lambda: ct().array_kji + 1024,
    "grey levels": lambda: np.clip((ct().array_kji + 1000) / 8, 0, 255).astype(np.uint8),
    "normalised": lambda: (ct().array_kji / 1000).astype(np.float32),
    "looks like an MR": lambda: mr().array_kji,
    "air is not near": lambda: np.clip(ct().array_kji, -200, 300),
}


@pytest.mark.parametrize("reason", NOT_HU)
def test_what_is_not_in_hu_is_refused_with_the_likely_reason(reason):
    with pytest.raises(WrongModality, match=reason) as error:
        check_ct(Volume(NOT_HU[reason](), GRID))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("The CT is not in HU")


@pytest.mark.parametrize("check", [check_ct, check_mr])
@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda a: np.zeros_like(a), "everywhere"),
        (lambda a: np.where(a > 0, np.nan, a.astype(np.float32)), "NaN or infinite"),
        (lambda a: np.where(a > 500, np.inf, a.astype(np.float64)), "NaN or infinite"),
        (lambda a: (a > 0).astype(np.uint8), "label maps"),
        (lambda a: np.arange(a.size, dtype=np.int16).reshape(a.shape) % 31, "label maps"),
        (lambda a: a > 0, "bool"),
    ],
)
def test_what_shows_nothing_is_refused(check, change, word):
    volume = ct() if check is check_ct else mr()
    with pytest.raises(UnsupportedImage, match=word) as error:
        check(volume.with_array(change(volume.array_kji)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("check", [check_ct, check_mr])
def test_three_slices_are_refused_whichever_axis_they_are_along(check, axis):
    volume = ct() if check is check_ct else mr()
    size = list(GRID.size_ijk)
    size[axis] = 3
    with pytest.raises(UnsupportedImage, match="only 3 slices"):
        check(volume.cropped((10, 10, 10), tuple(min(n, 15) for n in size)))


def test_a_single_voxel_of_nan_is_found():
    array = ct().array_kji.astype(np.float32)
    array[3, 4, 5] = np.nan
    with pytest.raises(UnsupportedImage, match="holds 1 NaN"):
        check_ct(Volume(array, GRID))


def test_a_short_field_of_view_is_a_warning():
    short = ct().cropped((0, 0, 0), (40, 36, 20))
    assert check_ct(short) == ("The CT covers only 60 mm from head to foot: organs outside it cannot be found.",)
    assert check_mr(mr().cropped((0, 0, 0), (40, 36, 15)))[0].startswith("The MR covers only 45 mm")


def test_the_length_is_measured_along_the_patient_not_along_the_storage():
    sagittal = Volume(
        ct().array_kji.transpose(2, 0, 1), Grid((36, 60, 40), (4, 3, 4), direction=(0, 0, 1, 1, 0, 0, 0, 1, 0))
    )
    assert check_ct(sagittal) == ()


def test_coarse_voxels_and_missing_bone_are_warnings():
    coarse = Volume(ct().array_kji, Grid(GRID.size_ijk, (4, 4, 6)))
    assert "up to 6.0 mm wide" in check_ct(coarse)[0]
    assert "shows no bone" in check_ct(ct(bone=100))[0]


def test_the_image_is_not_changed():
    volume = ct()
    before = volume.array_kji.copy()
    check_ct(volume)
    assert np.array_equal(volume.array_kji, before)


# Real images


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name",
    [
        "openkbp/pt_100_ct.nii.gz",
        "openkbp/pt_48_ct.nii.gz",
        "openkbp/pt_99_ct.nii.gz",
        "cthead_cadaver/cthead_assumed_geometry.nrrd",
        "mridir_ct_mr_phantom/mridir_ct_bin2.nrrd",
    ],
)
def test_real_cts_pass_as_ct_and_not_as_mr(shared_data, name):
    volume = read_volume(shared_data / name)
    assert all("voxels" in warning for warning in check_ct(volume))
    with pytest.raises(WrongModality):
        check_mr(volume)


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name",
    ["small_head_volumes/rire_training_001_mr_T1.mha", "small_head_volumes/mni_single_subj_T1_2mm.nii.gz"],
)
def test_real_mrs_pass_as_mr_and_not_as_ct(shared_data, name):
    volume = read_volume(shared_data / name)
    assert check_mr(volume) == ()
    assert not looks_like_ct(volume)
    with pytest.raises(WrongModality):
        check_ct(volume)


@pytest.mark.real_data
def test_a_ct_template_that_is_not_in_hu_is_refused(shared_data):
    with pytest.raises(WrongModality, match="not in HU"):
        check_ct(read_volume(shared_data / "small_head_volumes" / "mni_scct_ct_template_2mm.nii"))
