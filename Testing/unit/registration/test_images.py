import numpy as np
import pytest

from hnseg.errors import UnsupportedImage
from hnseg.image.blocks import block_means
from hnseg.image.grid import Grid
from hnseg.image.padding import air_threshold, padding
from hnseg.image.volume import Volume
from hnseg.registration.images import prepare_ct, prepare_mr
from hnseg.registration.poses import rotation

OBLIQUE = Grid((7, 5, 3), (1.0, 2.0, 3.0), (100.0, -50.0, 25.0), tuple(rotation((10, 20, 30)).ravel()))


def test_block_means_average_whole_blocks_and_lie_at_their_middles() -> None:
    array = np.arange(105, dtype=np.int16).reshape(3, 5, 7)
    coarse = block_means(Volume(array, OBLIQUE), 4.0)
    # Blocks of 4 × 2 × 1 voxels (i, j, k): 7 → 1, 5 → 2, 3 → 3; the rest is cut.
    assert coarse.array_kji.shape == (3, 2, 1)
    assert coarse.array_kji[1, 1, 0] == array[1, 2:4, 0:4].mean()
    assert coarse.grid.spacing_mm == pytest.approx((4.0, 4.0, 3.0))
    assert coarse.grid.to_lps([0, 1, 1]) == pytest.approx(OBLIQUE.to_lps([1.5, 2.5, 1]))


def test_an_image_that_is_coarse_already_keeps_its_grid_and_values() -> None:
    array = np.arange(105, dtype=np.float32).reshape(3, 5, 7)
    same = block_means(Volume(array, OBLIQUE), 0.5)
    assert same.grid.is_close(OBLIQUE)
    assert np.array_equal(same.array_kji, array)


def test_ct_beyond_air_and_bone_is_clipped() -> None:
    array = np.full((4, 4, 4), -2048, dtype=np.int16)
    array[2:] = 30
    array[3, 3, 3] = 3071
    values = prepare_ct(Volume(array, Grid((4, 4, 4))), 1.0).values.array_kji
    assert (values.min(), values.max()) == (-1000, 2000)


def test_otsu_separates_two_heaps() -> None:
    rng = np.random.default_rng(0)
    assert 30 < air_threshold(np.concatenate([rng.normal(10, 3, 3000), rng.normal(100, 9, 1000)])) < 70


def noisy_mr() -> np.ndarray:
    """Air with noise, a bright body in the middle."""
    array = np.random.default_rng(0).integers(5, 20, (20, 24, 28)).astype(np.int16)
    array[6:14, 6:18, 6:22] += 400
    return array


def test_zeros_beside_noisy_air_are_padding() -> None:
    array = noisy_mr()
    array[:, :, 24:] = 0
    assert np.array_equal(padding(array), array == 0)
    assert not prepare_mr(Volume(array, Grid((28, 24, 20))), 1.0).valid.array_kji[:, :, 24:].any()


def test_zeros_inside_the_body_are_data() -> None:
    array = noisy_mr()
    array[:, :, 24:] = 0
    array[8:12, 8:12, 8:12] = 0
    assert not padding(array)[8:12, 8:12, 8:12].any()


def test_zeros_all_around_the_body_are_air() -> None:
    array = noisy_mr()
    array[array < 100] = 0
    assert not padding(array).any()


def test_noise_without_padding_is_data() -> None:
    assert not padding(noisy_mr()).any()


def test_shading_is_divided_out() -> None:
    grid = Grid((60, 50, 40), (4.0, 4.0, 4.0))
    array = np.full(grid.shape_kji, 5.0, dtype=np.float32)
    array[5:35, 5:45, 5:55] = 500
    shaded = array * np.exp(np.linspace(-0.6, 0.6, 60, dtype=np.float32))
    ends = [prepare_mr(Volume(a, grid), 4.0).values.array_kji[20, 25, [12, 47]] for a in (array, shaded)]
    assert shaded[20, 25, 47] / shaded[20, 25, 12] > 2
    assert ends[0][1] / ends[0][0] == pytest.approx(1, abs=0.02)
    assert ends[1][1] / ends[1][0] < 1.4


def test_an_mr_with_one_value_is_refused() -> None:
    with pytest.raises(UnsupportedImage, match="one value"):
        prepare_mr(Volume(np.full((9, 9, 9), 7, dtype=np.int16), Grid((9, 9, 9))), 1.0)


def test_preparing_changes_neither_image() -> None:
    array = noisy_mr()
    before = array.copy()
    prepare_mr(Volume(array, Grid((28, 24, 20))), 2.0)
    prepare_ct(Volume(array, Grid((28, 24, 20))), 1.0)
    assert np.array_equal(array, before)
