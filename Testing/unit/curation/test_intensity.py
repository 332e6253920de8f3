"""Scales: what they do to numbers worked out by hand, that they can be undone, and what they leave alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hnseg.curation.bias import BiasField, N4Settings, fit_bias
from hnseg.curation.intensity import (
    BONE,
    SOFT_TISSUE,
    Linear,
    Nyul,
    NyulStandard,
    Window,
    ZScore,
    landmarks_of,
    match_to_ct,
    percentile_range,
    stacked_windows,
    strictly_rising,
    tissue,
    within,
)
from hnseg.errors import ConfigError, UnsupportedImage
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.plain import from_plain, to_plain

MR = np.concatenate([np.zeros(300), np.arange(100.0, 201.0)])
"""Air, and tissue from 100 to 200 in even steps: mean 150, deviation √850, percentile p at 100 + p."""


def test_tissue_is_what_lies_above_a_tenth_of_the_99th_percentile():
    assert tissue(MR).min() == 100
    assert len(tissue(MR)) == 101


def test_the_z_score_has_mean_0_and_deviation_1_over_the_tissue_alone():
    scale = ZScore.fit(MR)
    assert scale.mean == 150
    assert scale.deviation == pytest.approx(np.sqrt(850))
    scaled = scale.apply(MR[300:])
    assert scaled.mean() == pytest.approx(0, abs=1e-6)
    assert scaled.std() == pytest.approx(1)


def test_percentiles_become_0_and_1_and_nothing_is_clipped():
    scale = percentile_range(MR, (10, 90))
    assert (scale.low, scale.high) == (110, 190)
    assert scale.apply(np.array([110.0, 150.0, 190.0, 200.0])) == pytest.approx([0, 0.5, 1, 1.125])


def test_the_mrs_range_is_brought_to_that_of_the_cts_tissue_without_its_air():
    ct = np.concatenate([np.full(500, -1000.0), np.arange(0.0, 1001.0, 10.0)])
    scale = match_to_ct(MR, ct, (0, 100))
    assert scale == Linear(100, 200, 0, 1000)
    assert scale.apply(np.array([150.0])) == pytest.approx([500])


def test_windows_are_stacked_as_channels_and_clip():
    ct = np.array([[[-1000, -160, 40, 240, 3000]]], np.int16)
    channels = stacked_windows(ct, (SOFT_TISSUE, BONE))
    assert channels.shape == (2, 1, 1, 5)
    assert channels[0, 0, 0] == pytest.approx([-1, -1, 0, 1, 1])
    assert channels[1, 0, 0, 2] == pytest.approx(2 * 540 / 2300 - 1)
    assert channels[1, 0, 0, -1] == 1


def test_a_window_gives_back_what_lay_inside_and_its_ends_for_the_rest():
    values = np.array([-1000.0, -160.0, 33.0, 240.0, 900.0])
    assert SOFT_TISSUE.invert(SOFT_TISSUE.apply(values)) == pytest.approx([-160, -160, 33, 240, 240], abs=1e-3)


def test_nyul_pins_the_landmarks_and_goes_on_beyond_them():
    scale = Nyul((0.0, 10.0, 30.0), (0.0, 50.0, 100.0))
    assert scale.apply(np.array([-1.0, 0.0, 5.0, 10.0, 20.0, 30.0, 34.0])) == pytest.approx(
        [-5, 0, 25, 50, 75, 100, 110]
    )


def test_nyul_brings_one_patient_seen_by_two_scanners_to_one_scale():
    rng = np.random.default_rng(3)
    patient = rng.gamma(3.0, 60.0, 40_000) + 150
    others = 2.5 * patient + 40
    standard = NyulStandard.fit([landmarks_of(patient), landmarks_of(others)])
    first, second = (standard.scale(landmarks_of(mr)).apply(mr) for mr in (patient, others))
    assert np.abs(first - second).max() < 0.05
    assert standard.landmarks[0] == 0
    assert standard.landmarks[-1] == pytest.approx(100)


ANY_SCALE = st.one_of(
    st.builds(lambda low, width: Linear(low, low + width, -3.0, 8.0), st.floats(-500, 500), st.floats(1, 3000)),
    st.builds(ZScore, st.floats(-100, 1000), st.floats(1, 400)),
    st.builds(
        lambda steps, seed: Nyul(
            strictly_rising(np.cumsum(steps)), strictly_rising(np.linspace(seed, seed + 100, len(steps)))
        ),
        st.lists(st.floats(1, 200), min_size=2, max_size=11),
        st.floats(-50, 50),
    ),
)


@settings(max_examples=100, deadline=None)
@given(ANY_SCALE, st.lists(st.floats(-2000, 4000), min_size=1, max_size=20))
def test_every_unclipped_scale_is_undone_by_its_inverse_and_keeps_the_order(scale, values):
    values = np.sort(np.array(values))
    scaled = scale.apply(values)
    assert scale.invert(scaled) == pytest.approx(values, rel=1e-3, abs=0.05)
    assert (np.diff(scaled) >= -1e-3).all()


@settings(max_examples=30, deadline=None)
@given(ANY_SCALE)
def test_parameters_survive_being_saved(scale):
    assert from_plain(type(scale), to_plain(scale), where="scale") == scale


def test_what_the_mr_does_not_reach_is_masked_and_changes_nothing():
    """The same tissue with and without voxels outside the field of view gives the same values."""
    valid = np.array([True] * len(MR) + [False] * 500)
    padded = np.concatenate([MR, np.full(500, -7.0)])
    scaled = within(ZScore.fit(padded[valid]), padded, valid)
    assert (scaled[~valid] == 0).all()
    assert np.array_equal(scaled[valid], ZScore.fit(MR).apply(MR))


def test_the_inverse_too_leaves_out_what_the_mr_does_not_reach():
    valid = np.array([True, False])
    assert within(ZScore(100, 10), np.array([1.0, 1.0]), valid, invert=True).tolist() == [110, 0]


def test_an_mr_without_contrast_is_refused():
    for flat in (np.zeros(50), np.full(50, 7.0), np.zeros(0)):
        with pytest.raises(UnsupportedImage, match="no contrast"):
            ZScore.fit(flat)


@pytest.mark.parametrize(
    "wrong",
    [lambda: Window(5, 5), lambda: Linear(2, 1), lambda: ZScore(0, 0), lambda: Nyul((1.0, 1.0), (0.0, 1.0)),
     lambda: Nyul((1.0,), (1.0,)), lambda: NyulStandard.fit([])],
)  # fmt: skip
def test_parameters_that_cannot_be_are_refused_when_made(wrong):
    with pytest.raises(ConfigError):
        wrong()


@pytest.fixture(scope="module")
def shaded():
    """A lopsided block of two tissues whose brightness halves from one side to the other, and the true gain."""
    grid = Grid((30, 26, 22), (4.0, 5.0, 6.0), (-60.0, 400.0, -900.0))
    k, j, i = np.indices(grid.shape_kji)
    body = (np.abs(i - 14) < 11) & (np.abs(j - 12) < 10) & (k > 2)
    tissues = np.where((i + j + k) % 3 == 0, 300.0, 420.0) * body
    gain = np.exp(0.35 * (i - 14.5) / 14.5)
    return Volume((tissues * gain).astype(np.float32), grid), Volume(tissues.astype(np.float32), grid), body


def test_n4_takes_the_coils_shading_out(shaded):
    mr, true, body = shaded
    corrected = fit_bias(mr).apply(mr).array_kji
    unevenness = [np.std(np.log(image[body] / true.array_kji[body])) for image in (mr.array_kji, corrected)]
    assert unevenness[1] < 0.35 * unevenness[0]


def test_the_bias_can_be_put_back(shaded):
    mr, _, _ = shaded
    field = fit_bias(mr, N4Settings(levels=1, iterations=5))
    assert field.invert(field.apply(mr)).array_kji == pytest.approx(mr.array_kji, rel=1e-5)


def test_the_field_reaches_to_the_rim_of_the_mr(shaded):
    mr, _, _ = shaded
    rim = BiasField(fit_bias(mr, N4Settings(levels=1, iterations=5)).log_field)
    ones = mr.with_array(np.ones_like(mr.array_kji))
    assert np.unique(rim.apply(ones).array_kji[0]).size > 1


def test_n4_refuses_settings_that_cannot_be():
    with pytest.raises(ConfigError):
        N4Settings(levels=0)
