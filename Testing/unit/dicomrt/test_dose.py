"""Dose statistics against analytic phantoms: a uniform dose, a gradient, a Gaussian around a sphere."""

import json

import numpy as np
import pytest
from scipy import integrate

from hnseg.cli.main import main
from hnseg.dicomrt.dose import read_dose
from hnseg.dicomrt.dvh import dose_at_volume, dose_statistics, organ_dose
from hnseg.errors import UnreadableFile, UnsupportedImage
from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segmentation, write_segmentation
from hnseg.image.volume import Volume

DOSE_GRID = Grid((41, 31, 25), (2.5, 2.5, 3.0), (-50.0, -40.0, -36.0))
LABEL_GRID = Grid((70, 60, 30), (0.9, 0.8, 2.0), (-30.0, -25.0, -28.0))


def dose_of(function, grid=DOSE_GRID):
    """The dose that a function of x, y, z (LPS mm) gives at the grid's points."""
    indices = np.stack(np.meshgrid(*map(np.arange, grid.size_ijk), indexing="ij"), axis=-1)
    values = function(*np.moveaxis(grid.to_lps(indices), -1, 0))
    return Volume(values.transpose(2, 1, 0).astype(np.float32), grid)


def ball(grid=LABEL_GRID, radius=12.0, centre=(0.0, 0.0, 0.0)):
    indices = np.stack(np.meshgrid(*map(np.arange, grid.size_ijk), indexing="ij"), axis=-1)
    inside = np.linalg.norm(grid.to_lps(indices) - centre, axis=-1) <= radius
    return Volume(inside.transpose(2, 1, 0), grid)


def test_a_uniform_dose_is_every_statistic():
    dose = organ_dose("A", ball(), dose_of(lambda x, y, z: 0 * x + 37.5), levels_gy=(37.0, 38.0))
    assert [dose.mean_gy, dose.max_gy, dose.min_gy, dose.near_max_gy, dose.median_gy, dose.d95_gy] == pytest.approx(
        [37.5] * 6
    )
    assert dose.volume_share == {37.0: 1.0, 38.0: 0.0}
    assert dose.covered == 1.0


def test_a_linear_gradient_over_a_box_has_the_statistics_of_a_uniform_distribution():
    # A box of 27 × 24 × 20 mm; dose 40 + x Gy rises by 1 Gy/mm along x, so that dose is uniform over its extent.
    mask = np.zeros(LABEL_GRID.shape_kji, bool)
    mask[8:18, 12:42, 20:50] = True
    low = LABEL_GRID.to_lps((19.5, 0, 0))[0]
    dose = organ_dose("A", Volume(mask, LABEL_GRID), dose_of(lambda x, y, z: 40.0 + x), levels_gy=(40 + low + 27 / 4,))
    assert dose.ml == pytest.approx(27 * 24 * 20 / 1000)
    assert dose.mean_gy == pytest.approx(40 + low + 13.5, abs=1e-3)
    assert dose.median_gy == pytest.approx(40 + low + 13.5, abs=0.5)
    assert dose.d95_gy == pytest.approx(40 + low + 0.05 * 27, abs=0.5)
    # 0.03 mL of the box are 0.0625 mm of its 27 mm, which is less than half a voxel.
    assert dose.near_max_gy == pytest.approx(40 + low + 27 - 0.0625, abs=0.5)
    assert next(iter(dose.volume_share.values())) == pytest.approx(0.75, abs=0.02)


def test_a_gaussian_dose_around_a_ball_has_its_analytic_mean_and_near_maximum():
    sigma, radius = 20.0, 12.0
    dose = organ_dose(
        "A", ball(radius=radius), dose_of(lambda x, y, z: 60 * np.exp(-(x**2 + y**2 + z**2) / 2 / sigma**2))
    )
    integral, _ = integrate.quad(lambda r: 4 * np.pi * r**2 * 60 * np.exp(-(r**2) / 2 / sigma**2), 0, radius)
    assert dose.mean_gy == pytest.approx(integral / (4 / 3 * np.pi * radius**3), rel=0.01)
    # The hottest 0.03 mL are the ball of that volume in the middle.
    inner = (3 * 30 / 4 / np.pi) ** (1 / 3)
    assert dose.near_max_gy == pytest.approx(60 * np.exp(-(inner**2) / 2 / sigma**2), rel=0.01)
    assert dose.min_gy == pytest.approx(60 * np.exp(-(radius**2) / 2 / sigma**2), rel=0.05)


def test_thick_slices_are_split_so_that_a_steep_dose_counts_as_it_falls():
    grid = Grid((10, 10, 1), (1.0, 1.0, 10.0), (-5.0, -5.0, 0.0))
    dose = organ_dose("A", Volume(np.ones((1, 10, 10), bool), grid), dose_of(lambda x, y, z: 50 + 2 * z))
    assert dose.mean_gy == pytest.approx(50.0, abs=1e-3)
    assert dose.max_gy == pytest.approx(50 + 2 * 4.5, abs=1e-3)


def test_the_near_maximum_of_a_small_structure_is_its_minimum():
    assert dose_at_volume(np.array([3.0, 1.0, 2.0]), 0.005, 0.03) == 1.0
    # Two of three 0.02 mL points make 0.04 mL; half way between the first's 0.02 and the second's 0.04 lies 0.03.
    assert dose_at_volume(np.array([3.0, 1.0, 2.0]), 0.02, 0.03) == pytest.approx(2.5)


def test_what_the_dose_grid_does_not_cover_is_left_out_and_said():
    mask = ball(grid=Grid((60, 60, 60), (2.0, 2.0, 2.0), (-8.0, -60.0, -60.0)), radius=6.0, centre=(51.0, 0.0, 0.0))
    dose = organ_dose("A", mask, dose_of(lambda x, y, z: 0 * x + 10.0))
    assert 0.3 < dose.covered < 0.7
    assert dose.mean_gy == pytest.approx(10.0)
    away = organ_dose("A", mask, Volume(np.ones((3, 3, 3), np.float32), Grid((3, 3, 3), (1, 1, 1), (500, 0, 0))))
    assert away.covered == 0.0
    assert np.isnan([away.mean_gy, away.near_max_gy]).all()


@pytest.mark.parametrize("layout", [{}, {"absolute": True}, {"reverse": True}])
def test_a_dose_file_is_read_in_gy_whichever_way_its_planes_are_given(write_dose, tmp_path, layout):
    dose = dose_of(lambda x, y, z: 30 + 0.1 * x + 0.2 * y + 0.3 * z)
    read = read_dose(write_dose(tmp_path / "RD.dcm", dose, **layout))
    assert read.grid.is_close(dose.grid)
    np.testing.assert_allclose(read.array_kji, dose.array_kji, atol=1e-5)


def test_oblique_dose_grids_keep_their_place(write_dose, tmp_path):
    c, s = np.cos(0.2), np.sin(0.2)
    grid = Grid((11, 9, 7), (2.0, 3.0, 4.0), (5.0, -3.0, 8.0), (c, -s, 0, s, c, 0, 0, 0, 1))
    assert read_dose(write_dose(tmp_path / "RD.dcm", dose_of(lambda x, y, z: 20 + z, grid))).grid.is_close(grid)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"DoseUnits": "RELATIVE"}, UnsupportedImage, "RELATIVE"),
        ({"PixelData": None}, UnsupportedImage, "no dose grid"),
        ({"Modality": "CT"}, UnreadableFile, "is CT, not RTDOSE"),
        ({"DoseGridScaling": None}, UnreadableFile, "cannot be read"),
        ({"GridFrameOffsetVector": [0.0, 3.0, 7.0]}, UnsupportedImage, "unevenly"),
    ],
)
def test_doses_that_cannot_be_used_are_refused_in_a_sentence(write_dose, tmp_path, changes, kind, words):
    path = write_dose(tmp_path / "RD.dcm", dose_of(lambda x, y, z: 0 * x + 1.0), **changes)
    with pytest.raises(kind, match=words):
        read_dose(path)


def test_the_command_writes_the_statistics_of_every_organ(write_dose, tmp_path, capsys):
    write_dose(tmp_path / "RD.dcm", dose_of(lambda x, y, z: 0 * x + 25.0))
    segmentation = Segmentation.from_masks({"Parotid_L": ball(), "SpinalCord": ball(radius=5.0, centre=(10, 10, 10))})
    write_segmentation(segmentation, tmp_path / "organs.seg.nrrd")
    words = ["dvh", "--dose", str(tmp_path / "RD.dcm"), "--labels", str(tmp_path / "organs.seg.nrrd"), "--at", "20,30"]
    assert main([*words, "--json", str(tmp_path / "dose.json")]) == 0
    organs = json.loads((tmp_path / "dose.json").read_text())["organs"]
    assert set(organs) == {"Parotid_L", "SpinalCord"}
    assert organs["Parotid_L"]["Dmean_Gy"] == pytest.approx(25.0)
    assert (organs["Parotid_L"]["V20Gy"], organs["Parotid_L"]["V30Gy"]) == (1.0, 0.0)
    assert "Parotid_L" in capsys.readouterr().out


def test_all_segments_of_overlapping_layers_are_counted():
    segmentation = Segmentation.from_masks({"Parotid_L": ball(), "Inner": ball(radius=5.0)})
    names = [organ.name for organ in dose_statistics(segmentation, dose_of(lambda x, y, z: 0 * x + 1.0))]
    assert names == ["Parotid_L", "Inner"]
