"""Padding told from air, voxel by voxel."""

import numpy as np
import pytest

from hnseg.image.blocks import block_means, spread
from hnseg.image.grid import Grid
from hnseg.image.padding import measured
from hnseg.image.volume import Volume

TURN = np.radians(12.0)
DIRECTION = (1, 0, 0, 0, np.cos(TURN), -np.sin(TURN), 0, np.sin(TURN), np.cos(TURN))


def noisy_mr(spacing_mm=(1.0, 1.0, 1.0), *, zeros=0.0):
    """A bright body in air whose noise is 0 as often as ``zeros`` says; 47 × 42 × 31 voxels."""
    rng = np.random.default_rng(0)
    array = rng.integers(5, 20, (31, 42, 47)).astype(np.int16)
    array[rng.random(array.shape) < zeros] = 0
    array[7:24, 10:30, 12:36] = 400
    return Volume(array, Grid((47, 42, 31), spacing_mm, (-20.0, 11.0, 300.0), DIRECTION))


def test_a_block_is_spread_over_its_voxels_and_the_last_one_over_the_remainder():
    array = np.arange(3 * 5 * 7, dtype=np.float32).reshape(3, 5, 7)
    volume = Volume(array, Grid((7, 5, 3), (1.0, 2.0, 3.0)))
    means = block_means(volume, 4.0).array_kji
    again = spread(means, volume.grid, 4.0)
    assert again.shape == array.shape
    assert (again[1, 2:4, :4] == means[1, 1, 0]).all()
    assert again[2, 4, 6] == means[2, 1, 0]


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.5, 0.7, 3.0), (2.5, 2.0, 0.6)])
@pytest.mark.parametrize("where", [np.s_[24:], np.s_[:, :, :7], np.s_[:, 33:]])
def test_padding_is_found_to_the_voxel_whatever_the_blocks(spacing_mm, where):
    mr = noisy_mr(spacing_mm)
    mr.array_kji[where] = -7
    assert np.array_equal(measured(mr), mr.array_kji != -7)


def test_all_of_an_mr_without_padding_was_measured():
    assert measured(noisy_mr()).all()
    assert measured(Volume(np.full((3, 5, 7), 9, np.int16), Grid((7, 5, 3)))).all()


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0)])
@pytest.mark.parametrize("zeros", [0.35, 0.6, 1.0])
def test_air_that_often_or_always_reads_the_lowest_value_was_measured(spacing_mm, zeros):
    assert measured(noisy_mr(spacing_mm, zeros=zeros)).all()


def test_zeros_inside_the_body_were_measured():
    mr = noisy_mr()
    mr.array_kji[24:] = 0
    mr.array_kji[12:18, 14:20, 16:24] = 0
    assert np.array_equal(measured(mr)[:24], np.ones((24, 42, 47), bool))
