"""What other systems write, and what nobody should: contours that dangle, repeat, stay open or make no sense."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from real_data import real_data

from hnseg.cli.main import main
from hnseg.dicomrt.rasterise import rasterise
from hnseg.dicomrt.read import read_on_series
from hnseg.dicomrt.rois import Contour, read_rois
from hnseg.dicomrt.series import open_series
from hnseg.dicomrt.structure_set import write_structure_set
from hnseg.errors import InputError, UnreadableFile
from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segmentation
from hnseg.image.volume import Volume

GRID = Grid((30, 26, 12), (1.0, 1.5, 3.0), (-10.0, -12.0, 40.0))


def square(z, low, high):
    (x0, y0), (x1, y1) = low, high
    return np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]], float)


def filled(*contours, grid=GRID, xor=False):
    return rasterise([Contour(points, xor) for points in contours], grid)


@pytest.fixture
def structure_set(axial_series, tmp_path):
    """A valid file to be spoilt, and the way to write it back."""
    series = open_series(axial_series.folder)
    mask = np.zeros(series.grid.shape_kji, bool)
    mask[5:15, 20:40, 20:40] = True
    path = tmp_path / "RT.dcm"
    write_structure_set(path, series, Segmentation.from_masks({"Brainstem": Volume(mask, series.grid)}))

    def spoil(change):
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path, enforce_file_format=True)
        return path

    return spoil


def contours_of(dataset):
    return dataset.ROIContourSequence[0].ContourSequence


def test_a_square_holds_the_voxels_whose_centres_are_in_it():
    mask = filled(square(46.0, (-0.5, -4.6), (3.5, 1.6))).mask_kji
    expected = np.zeros(GRID.shape_kji, bool)
    expected[2, 5:10, 10:14] = True  # x = 0…3, y = −4.5…1.5
    np.testing.assert_array_equal(mask, expected)


def test_a_contour_inside_another_is_a_hole_and_one_in_the_hole_an_island():
    nested = [square(46.0, (-9.5, -11.0), (15.5, 22.0)), square(46.0, (-5.5, -6.0), (10.5, 15.0))]
    island = square(46.0, (0.5, 0.5), (4.5, 7.0))
    mask = filled(island, *nested).mask_kji[2]
    whole, hole, inner = (filled(points).mask_kji[2] for points in (*nested, island))
    np.testing.assert_array_equal(mask, whole & ~hole | inner)


def test_contours_that_partly_overlap_are_united_and_named():
    result = filled(square(46.0, (-5.5, -6.0), (5.5, 5.0)), square(46.0, (0.5, 0.5), (10.5, 9.0)))
    parts = [filled(square(46.0, *box)).mask_kji for box in (((-5.5, -6), (5.5, 5)), ((0.5, 0.5), (10.5, 9)))]
    np.testing.assert_array_equal(result.mask_kji, parts[0] | parts[1])
    assert "partly overlap" in result.remarks[0]


def test_contours_marked_xor_are_combined_by_exclusive_or():
    boxes = [square(46.0, (-5.5, -6.0), (5.5, 5.0)), square(46.0, (0.5, 0.5), (10.5, 9.0))]
    parts = [filled(points).mask_kji for points in boxes]
    np.testing.assert_array_equal(filled(*boxes, xor=True).mask_kji, parts[0] ^ parts[1])


def test_a_contour_smaller_than_a_voxel_is_kept_as_one():
    result = filled(square(46.0, (2.1, 0.1), (2.4, 0.5)))
    assert np.argwhere(result.mask_kji).tolist() == [[2, 8, 12]]
    assert "without a voxel centre" in result.remarks[0]


def test_planes_farther_apart_than_the_slices_stand_for_slabs():
    # Planes 9 mm apart on 3 mm slices: each stands for itself and its two neighbours.
    mask = filled(square(46.0, (-0.5, -5.0), (3.5, 2.0)), square(55.0, (-0.5, -5.0), (3.5, 2.0))).mask_kji
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [1, 2, 3, 4, 5, 6]


def test_planes_closer_than_the_slices_do_not_add_up():
    planes = [square(z, (-0.5, -5.0), (3.5, 2.0)) for z in (46.0, 46.75, 47.5, 48.25, 49.0)]
    mask = filled(*planes).mask_kji
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [2, 3]


def test_contours_across_the_slices_are_filled_in_their_own_planes():
    # A box of 10 × 12 × 15 mm drawn in sagittal planes 1 mm apart.
    corners = [(-4.5, 44.5), (7.5, 44.5), (7.5, 59.5), (-4.5, 59.5)]
    planes = [np.array([(x, y, z) for y, z in corners]) for x in np.arange(0.0, 10.0)]
    mask = filled(*planes).mask_kji
    assert mask.sum() * GRID.voxel_ml == pytest.approx(10 * 12 * 15 / 1000, rel=0.05)
    low, high = np.argwhere(mask).min(axis=0)[::-1], np.argwhere(mask).max(axis=0)[::-1]
    assert (low.tolist(), high.tolist()) == ([10, 5, 2], [19, 12, 6])


def test_contours_outside_the_image_are_named():
    result = filled(square(500.0, (0.0, 0.0), (5.0, 5.0)), square(46.0, (-0.5, -5.0), (3.5, 2.0)))
    assert result.mask_kji.any()
    assert "outside the image: 1 of 2" in result.remarks[0]
    assert not filled(square(46.0, (5000.0, 0.0), (5005.0, 5.0))).mask_kji.any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: setattr(c, "ContourGeometricType", "OPEN_PLANAR"), "they are open"),
        (lambda c: setattr(c, "ContourGeometricType", "POINT"), "they are points"),
        (lambda c: setattr(c, "ContourGeometricType", "SQUIGGLE"), "SQUIGGLE is no closed polygon"),
        (lambda c: setattr(c, "ContourData", c.ContourData[:-1]), "not triplets"),
        (lambda c: setattr(c, "ContourData", []), "not triplets"),
        (lambda c: setattr(c, "ContourData", [*c.ContourData[:-1], "1e30"]), "not triplets"),
        (lambda c: setattr(c, "ContourData", c.ContourData[:6]), "fewer than three points"),
    ],
)
def test_unusable_contours_are_left_out_and_named(structure_set, axial_series, change, words):
    path = structure_set(lambda dataset: change(contours_of(dataset)[3]))
    read = read_on_series(path, axial_series.folder)
    assert any(words in warning and "Brainstem" in warning for warning in read.warnings)
    slices = read.segmentation.mask("Brainstem").array_kji.any(axis=(1, 2))
    assert np.count_nonzero(slices) == 9


def test_a_contour_drawn_twice_counts_once(structure_set, axial_series):
    path = structure_set(lambda dataset: contours_of(dataset).append(contours_of(dataset)[2]))
    read = read_on_series(path, axial_series.folder)
    assert any("drawn twice: 1" in warning for warning in read.warnings)
    assert read.segmentation.mask("Brainstem").array_kji.sum() == 10 * 20 * 20


def test_dangling_references_are_counted_and_the_coordinates_used(structure_set, axial_series):
    def dangle(dataset):
        for contour in contours_of(dataset)[:4]:
            contour.ContourImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"

    read = read_on_series(structure_set(dangle), axial_series.folder)
    assert any(warning.startswith("4 of 10 contours refer to images") for warning in read.warnings)
    assert read.segmentation.mask("Brainstem").array_kji.sum() == 10 * 20 * 20


def test_references_may_be_missing_altogether(structure_set, axial_series):
    def strip(dataset):
        del dataset.ReferencedFrameOfReferenceSequence
        for contour in contours_of(dataset):
            del contour.ContourImageSequence

    read = read_on_series(structure_set(strip), axial_series.folder)
    assert read.warnings == ()
    assert read.segmentation.mask("Brainstem").array_kji.sum() == 10 * 20 * 20


def test_regions_without_contours_and_with_the_same_name_stay_apart(structure_set):
    def add(dataset):
        twin, empty = Dataset(), Dataset()
        twin.ROINumber, twin.ROIName = 7, "Brainstem"
        empty.ROINumber, empty.ROIName = 8, "Couch"
        dataset.StructureSetROISequence.extend([twin, empty])

    read = read_rois(structure_set(add))
    assert [roi.name for roi in read.rois] == ["Brainstem", "Brainstem_2", "Couch"]
    assert any("more than one structure" in warning for warning in read.warnings)
    assert any(warning.startswith("Couch has no closed contour") for warning in read.warnings)


def test_a_file_without_regions_says_so(structure_set, axial_series):
    path = structure_set(lambda dataset: delattr(dataset, "StructureSetROISequence"))
    with pytest.raises(InputError, match="holds no structure"):
        read_on_series(path, axial_series.folder)


@pytest.mark.parametrize("content", [b"", b"not dicom", b"\0" * 128 + b"DICM"])
def test_what_is_no_dicom_gives_a_sentence_and_exit_code_1(axial_series, tmp_path, capsys, content):
    path = tmp_path / "x.dcm"
    path.write_bytes(content)
    words = ["rtstruct", "read", str(path), "--series", str(axial_series.folder), "-o", str(tmp_path / "o.seg.nrrd")]
    assert main(words) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("x.dcm")
    assert "\n" not in said
    assert not (tmp_path / "o.seg.nrrd").exists()


def test_another_kind_of_object_is_named(axial_series):
    with pytest.raises(UnreadableFile, match="is CT, not RTSTRUCT"):
        read_rois(axial_series.files[0])


@pytest.mark.real_data
def test_other_systems_files_with_broken_references_are_read_and_named():
    folder = real_data() / "dicom_syntaxes_and_bad_rt" / "rt_utils"
    read = read_on_series(folder / "mock_data" / "non_existent_reference_rt.dcm", folder / "mock_data")
    assert len(read.segmentation.segments) == 4
    assert any("refer to images that are not in this series" in warning for warning in read.warnings)
    invented = read_on_series(folder / "mock_data" / "rt.dcm", folder / "mock_data")
    assert any("names another frame of reference" in warning for warning in invented.warnings)


@pytest.mark.real_data
def test_a_breast_plan_with_an_empty_region_is_parsed():
    read = read_rois(real_data() / "dicom_syntaxes_and_bad_rt" / "dicompyler" / "rtss.dcm")
    assert len(read.rois) == 10
    assert sum(not roi.contours for roi in read.rois) == 1
    assert sum("has no closed contour" in warning for warning in read.warnings) == 1
    assert max(len(roi.contours) for roi in read.rois) >= 141


@pytest.mark.real_data
def test_the_head_phantoms_brainstem_has_the_volume_of_its_polygons(tmp_path):
    import tarfile

    with tarfile.open(real_data() / "dcpt_headphantom" / "dcpt_headphantom.tar.xz") as archive:
        members = [m for m in archive.getmembers() if "/RS." in m.name]
        archive.extractall(tmp_path, members, filter="data")
    (path,) = tmp_path.rglob("RS.*")
    roi = next(roi for roi in read_rois(path).rois if roi.name == "BrainStem")
    assert len(roi.contours) == 44
    area = 0.0
    for contour in roi.contours:
        x, y, _ = contour.points_lps.T
        area += abs(0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
    points = np.concatenate([contour.points_lps for contour in roi.contours])
    low, high = points.min(axis=0) - 5, points.max(axis=0) + 5
    size = np.ceil((high - low) / (0.5859, 0.5859, 1.5)).astype(int)
    grid = Grid(tuple(size.tolist()), (0.5859, 0.5859, 1.5), (low[0], low[1], points[:, 2].min() - 3.0))
    result = rasterise(roi.contours, grid)
    assert result.mask_kji.sum() * grid.voxel_ml == pytest.approx(area * 1.5 / 1000, rel=0.02)
