"""Images that the shipped model does not know are refused, or flagged in a sentence. Its real weights look at them."""

from pathlib import Path

import numpy as np
import pytest

from hnseg.errors import WrongModality
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.inference.review import result_warnings
from hnseg.inference.segment import SegmentOptions, segment
from hnseg.models.bundle import Bundle, open_bundle
from hnseg.phantom import PhantomOptions, draw_patient, render

SHIPPED = Path(__file__).parents[2] / "Resources" / "Models" / "hnseg-base"
OUT_OF_PLACE = "organs are missing or doubtful: the field of view, the quality or the kind of this image"


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return open_bundle(SHIPPED)


@pytest.fixture(scope="module")
def phantom() -> tuple[Volume, Volume]:
    """CT and MR of a head and neck, coarse, asymmetric as phantoms are."""
    patient = draw_patient(np.random.default_rng(77), PhantomOptions(far_origin=False))
    case = render(patient, ct_grid=Grid((92, 100, 112), (2.5, 2.5, 2.6), (-114.0, -135.0, -195.0)), size="small")
    assert case.mr is not None
    return case.ct, case.mr


def said_of(ct: Volume, bundle: Bundle) -> tuple[str, ...]:
    """What a reader is told of the whole image."""
    result = segment(ct, bundle=bundle, options=SegmentOptions(overlap=0.0, threads=1))
    return (*result.warnings, *result_warnings(result.organs))


def ellipse(grid: Grid, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    k, j, i = np.indices(grid.shape_kji)
    points = grid.to_lps(np.stack([i, j, k], axis=-1))
    return (((points - centre) / radii) ** 2).sum(axis=-1) < 1


def abdomen() -> Volume:
    """Fat around muscle, liver, two kidneys, a spine with its canal, gas: no head and no neck."""
    grid = Grid((120, 88, 76), (3.0, 3.0, 3.0), (-180.0, -131.0, -614.0))
    hu = np.full(grid.shape_kji, -1000.0)
    for centre, radii, value in (
        ((0, 0, -500), (165, 112, 1e4), -100), ((0, 0, -500), (148, 97, 1e4), 50),
        ((-60, -15, -460), (70, 60, 60), 110),
        ((55, 45, -520), (25, 22, 55), 160), ((-55, 45, -525), (25, 22, 55), 160), ((0, 55, -500), (22, 18, 1e4), 300),
        ((0, 80, -500), (9, 9, 1e4), 35), ((40, -50, -540), (30, 25, 30), -900),
    ):  # fmt: skip
        hu[ellipse(grid, centre, radii)] = value
    noise = np.random.default_rng(0).normal(0, 12, grid.shape_kji)
    return Volume(np.round(hu + noise).astype(np.int16), grid)


def water() -> Volume:
    """A box of water, as physicists scan it."""
    hu = np.full((56, 60, 64), -1000, np.int16)
    hu[6:50, 8:52, 8:56] = 0
    noise = np.random.default_rng(0).normal(0, 8, hu.shape)
    return Volume((hu + np.round(noise)).astype(np.int16), Grid((64, 60, 56), (2.5, 2.5, 3.0)))


def test_a_head_and_neck_raises_no_warning(phantom: tuple[Volume, Volume], shipped: Bundle) -> None:
    assert said_of(phantom[0], shipped) == ()


def test_an_abdomen_is_flagged(shipped: Bundle) -> None:
    assert any(OUT_OF_PLACE in sentence for sentence in said_of(abdomen(), shipped))


def test_a_box_of_water_is_flagged(shipped: Bundle) -> None:
    said = said_of(water(), shipped)
    assert any(OUT_OF_PLACE in sentence for sentence in said)
    assert any("shows no bone" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        pytest.param((0,), "from foot to head", id="upside down"),
        pytest.param((0, 2), "from foot to head", id="feet first", marks=pytest.mark.slow),
        pytest.param((1, 2), "from front to back", id="prone", marks=pytest.mark.slow),
    ],
)
def test_a_head_whose_header_turns_it_is_flagged(
    phantom: tuple[Volume, Volume], shipped: Bundle, axes: tuple[int, ...], said: str
) -> None:
    turned = phantom[0].with_array(np.flip(phantom[0].array_kji, axes).copy())
    found = said_of(turned, shipped)
    assert any(f"do not lie {said} as in a patient" in sentence or OUT_OF_PLACE in sentence for sentence in found)


def test_half_a_head_is_flagged(phantom: tuple[Volume, Volume], shipped: Bundle) -> None:
    said = said_of(phantom[0].cropped((46, 0, 0), (46, 100, 112)), shipped)
    assert any("reaches the image's right side in most slices" in sentence for sentence in said)


def test_an_mr_as_ct_is_refused(phantom: tuple[Volume, Volume], shipped: Bundle) -> None:
    with pytest.raises(WrongModality, match="not in HU"):
        said_of(phantom[1], shipped)
