"""DICOM folders as hospitals export them, made here, and a few real ones."""

import shutil
from dataclasses import replace

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid
from real_data import unpack

from hnseg.errors import DicomSeriesError, UnreadableFile
from hnseg.image.dicom import list_series, read_series
from hnseg.image.files import read_image
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
PATIENT = "Doe^Jane"
DECIMAL_STRING_MM = 1e-6  # DICOM writes numbers with 16 characters

POSITIONS = {
    "head first supine": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "feet first supine": (-1, 0, 0, 0, 1, 0, 0, 0, -1),
    "head first prone": (-1, 0, 0, 0, -1, 0, 0, 0, 1),
    "head first, on the left side": (0, 1, 0, -1, 0, 0, 0, 0, 1),
    "sagittal storage": (0, 0, -1, 1, 0, 0, 0, -1, 0),
    "oblique": (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1),
}


def image(grid):
    """Every voxel tells where it lies: −900 + 3x + 5y + 7z, in the numbers of this phantom between −1024 and 3071."""
    i, j, k = np.meshgrid(*(np.arange(n) for n in grid.size_ijk), indexing="ij")
    points = grid.to_lps(np.stack([i, j, k], axis=-1))
    return Volume(np.rint(linear(points)).astype(np.int16).transpose(2, 1, 0), grid)


def linear(points_lps):
    return points_lps @ (3.0, 5.0, 7.0) - 500


def grid_of(direction=POSITIONS["oblique"]):
    return Grid((9, 7, 10), (1.0, 2.0, 3.0), (10.5, -20.25, 30.125), direction)


@pytest.fixture
def ct():
    return image(grid_of())


def dataset_of(volume, k, *, modality="CT", slope=1, intercept=-1024, stored=None):
    """One slice: its own place, and stored values that the rescale turns into the volume's."""
    grid = volume.grid
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CT if modality == "CT" else MR
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = modality
    dataset.PatientName = PATIENT
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImageOrientationPatient = [f"{value:.10g}" for value in grid.axes[:, :2].T.ravel()]
    dataset.ImagePositionPatient = [f"{value:.10g}" for value in grid.to_lps((0, 0, k))]
    dataset.PixelSpacing = [str(grid.spacing_mm[1]), str(grid.spacing_mm[0])]
    dataset.SliceThickness = "1"
    dataset.Rows, dataset.Columns = volume.array_kji.shape[1:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.RescaleSlope, dataset.RescaleIntercept = str(slope), str(intercept)
    if stored is None:
        stored = np.rint((volume.array_kji[k] - intercept) / slope).astype(np.uint16)
    dataset.PixelData = stored.tobytes()
    return dataset


def datasets_of(volume, *, description="Planning CT", number=2, **options):
    series, frame = generate_uid(), generate_uid()
    datasets = [dataset_of(volume, k, **options) for k in range(volume.grid.size_ijk[2])]
    for instance, dataset in enumerate(datasets, start=1):
        dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = series, frame
        dataset.SeriesDescription, dataset.SeriesNumber, dataset.InstanceNumber = description, number, instance
    return datasets


def save(datasets, folder, *, name="{:03d}.dcm"):
    """Files in an order that has nothing to do with the slices' order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for n, dataset in enumerate(datasets):
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path = folder / name.format((n * 7) % len(datasets) if len(datasets) % 7 else n)
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def refusal(folder, modality="CT"):
    with pytest.raises(DicomSeriesError) as error:
        read_series(folder, modality=modality)
    text = str(error.value)
    assert "\n" not in text
    assert PATIENT not in text
    assert "Jane" not in text
    return text


# What is read


@pytest.mark.parametrize("direction", POSITIONS.values(), ids=POSITIONS)
def test_a_series_comes_back_with_its_values_and_its_place(tmp_path, direction):
    volume = image(grid_of(direction))
    save(datasets_of(volume), tmp_path)
    notes = []
    again = read_series(tmp_path, modality="CT", on_note=notes.append)
    assert again.array_kji.dtype == np.int16
    assert np.array_equal(again.array_kji, volume.array_kji)
    assert again.grid.is_close(volume.grid, tolerance_mm=DECIMAL_STRING_MM)
    assert notes == []


def test_a_left_handed_stack_comes_back_right_handed_at_the_same_place(tmp_path):
    volume = image(Grid((9, 7, 10), (1, 2, 3), (10.5, -20.25, 30.125), (1, 0, 0, 0, 1, 0, 0, 0, -1)))
    save(datasets_of(volume), tmp_path)
    again = read_series(tmp_path, modality="CT")
    assert np.array_equal(again.array_kji, volume.array_kji[::-1])
    assert again.grid.to_lps((0, 0, 0)) == pytest.approx(volume.grid.to_lps((0, 0, 9)))
    assert np.linalg.det(again.grid.axes) == pytest.approx(1)


def test_files_need_no_extension_and_may_lie_in_subfolders_among_others(tmp_path, ct):
    save(datasets_of(ct), tmp_path / "DICOM" / "0001", name="I{}")
    (tmp_path / "DICOM" / "DIRFILE").write_bytes(b"not DICOM at all")
    (tmp_path / "LICENSE").write_text("text" * 100)
    (tmp_path / "empty").touch()
    assert np.array_equal(read_series(tmp_path, modality="CT").array_kji, ct.array_kji)


def test_each_slice_is_rescaled_by_its_own_slope(tmp_path):
    grid = grid_of()
    volume = Volume(np.tile(np.arange(9, dtype=np.float32) * 0.5, (10, 7, 1)), grid)
    datasets = datasets_of(volume, modality="MR", description="T1")
    for k, dataset in enumerate(datasets):
        slope = 0.25 if k % 2 else 0.5
        dataset.RescaleSlope, dataset.RescaleIntercept = str(slope), "0"
        dataset.PixelData = np.rint(volume.array_kji[k] / slope).astype(np.uint16).tobytes()
    save(datasets, tmp_path)
    again = read_series(tmp_path, modality="MR")
    assert again.array_kji.dtype == np.float32
    assert np.array_equal(again.array_kji, volume.array_kji)


def test_compressed_slices_are_decoded(tmp_path, ct):
    datasets = datasets_of(ct)
    for dataset in datasets:
        dataset.compress(RLELossless)
    save(datasets, tmp_path)
    assert np.array_equal(read_series(tmp_path, modality="CT").array_kji, ct.array_kji)


def test_rounded_positions_are_no_irregular_spacing(tmp_path, ct):
    datasets = datasets_of(ct)
    for k, dataset in enumerate(datasets):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, str(float(z) + 0.05 * (-1) ** k)]
    save(datasets, tmp_path)
    notes = []
    again = read_series(tmp_path, modality="CT", on_note=notes.append)
    assert np.array_equal(again.array_kji, ct.array_kji)
    assert again.grid.spacing_mm[2] == pytest.approx(3 - 0.1 / 9)  # the ends moved 0.1 mm towards each other
    assert notes == []


def test_the_same_image_twice_is_one_image(tmp_path, ct):
    save(datasets_of(ct), tmp_path / "export")
    shutil.copytree(tmp_path / "export", tmp_path / "backup")
    assert np.array_equal(read_series(tmp_path, modality="CT").array_kji, ct.array_kji)
    assert list_series(tmp_path)[0].images == 10


# Tilt and uneven slices


def tilted(step_mm, degrees, count=12, rows=12):
    """A gantry tilt: the planes lean about x, the table moves along z."""
    angle = np.radians(degrees)
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(angle), -np.sin(angle)])
    datasets, frame, series = [], generate_uid(), generate_uid()
    for k in range(count):
        first = np.array([-4.5, 3.25, 10.0 + k * step_mm])
        j, i = np.meshgrid(np.arange(rows), np.arange(9), indexing="ij")
        points = first + i[..., None] * 1.5 * row + j[..., None] * 2.0 * column
        plane = Volume(np.rint(linear(points)).astype(np.int16)[None], Grid((9, rows, 1)))
        dataset = dataset_of(plane, 0)
        dataset.ImagePositionPatient = [f"{value:.10g}" for value in first]
        dataset.ImageOrientationPatient = [f"{value:.10g}" for value in (*row, *column)]
        dataset.PixelSpacing = ["2.0", "1.5"]
        dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = series, frame
        dataset.SeriesDescription, dataset.SeriesNumber, dataset.InstanceNumber = "Tilted", 3, k
        datasets.append(dataset)
    return datasets


@pytest.mark.parametrize("degrees", [18.5, -16.5])
def test_a_gantry_tilt_is_resampled_to_where_the_tissue_is(tmp_path, degrees):
    save(tilted(2.5, degrees), tmp_path)
    notes = []
    volume = read_series(tmp_path, modality="CT", on_note=notes.append)
    assert len(notes) == 1
    assert "gantry tilt of " + f"{abs(degrees):.1f}°" in notes[0]
    # the grid is orthogonal, its slices are as far apart as the tilted planes: 2.5 mm · cos(tilt)
    assert volume.grid.spacing_mm == pytest.approx((1.5, 2.0, 2.5 * np.cos(np.radians(degrees))))
    inside = volume.array_kji != -1000
    assert inside.sum() > 0.9 * 12 * 12 * 9  # at most one row of each slice is lost at the border
    inside[:, 1:-1] &= inside[:, :-2] & inside[:, 2:]  # half a row at the border is the row before it, as ITK has it
    k, j, i = np.nonzero(inside[:, 1:-1])
    truth = linear(volume.grid.to_lps(np.stack([i, j + 1, k], axis=-1)))
    assert np.abs(volume.array_kji[k, j + 1, i] - truth).max() <= 1  # two roundings of half a unit


def test_uneven_slices_are_resampled_to_the_usual_distance_with_a_note(tmp_path):
    grid = grid_of(POSITIONS["head first supine"])
    heights = np.cumsum([0, 3, 3, 3, 4, 3, 3, 2, 3, 3]).astype(float)
    datasets = datasets_of(image(grid))
    for height, dataset in zip(heights, datasets, strict=True):
        first = np.array([10.5, -20.25, 30.125 + height])
        j, i = np.meshgrid(np.arange(7), np.arange(9), indexing="ij")
        points = first + np.stack([i * 1.0, j * 2.0, 0 * i], axis=-1)
        dataset.ImagePositionPatient = [f"{value:.10g}" for value in first]
        dataset.PixelData = (np.rint(linear(points)) + 1024).astype(np.uint16).tobytes()
    save(datasets, tmp_path)
    notes = []
    volume = read_series(tmp_path, modality="CT", on_note=notes.append)
    assert "2.00 to 4.00 mm apart" in notes[0]
    assert volume.grid.spacing_mm[2] == pytest.approx(3)
    assert volume.grid.size_ijk == (9, 7, 10)
    assert np.abs(volume.array_kji - image(volume.grid).array_kji).max() <= 1


# What is refused


def test_a_missing_slice_is_refused_with_its_place(tmp_path, ct):
    datasets = datasets_of(ct)
    del datasets[4]
    save(datasets, tmp_path)
    text = refusal(tmp_path)
    assert "lacks about 1 slices: after the one at (10.5, -20.2, 39.1) mm the next is 6.0 mm away, not 3.0" in text


def test_several_missing_slices_are_counted(tmp_path):
    datasets = datasets_of(image(replace(grid_of(), size_ijk=(9, 7, 20))))
    save([dataset for k, dataset in enumerate(datasets) if k not in (5, 6, 13)], tmp_path)
    assert "lacks about 3 slices" in refusal(tmp_path)


def test_two_images_at_one_place_are_refused(tmp_path, ct):
    datasets = datasets_of(ct, modality="MR", description="Dixon", intercept=-1024)
    echoes = datasets_of(ct, modality="MR", intercept=-1024)
    for dataset in echoes:
        dataset.SeriesInstanceUID = datasets[0].SeriesInstanceUID
        dataset.FrameOfReferenceUID = datasets[0].FrameOfReferenceUID
    save([*datasets, *echoes], tmp_path)
    assert "two different images at 10 of its positions, as several echoes or phases" in refusal(tmp_path, "MR")


def turned(datasets, change):
    for dataset in datasets[:4]:
        change(dataset)
    return datasets


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("orientations", lambda d: setattr(d, "ImageOrientationPatient", ["1", "0", "0", "0", "0", "-1"])),
        ("pixel spacings", lambda d: setattr(d, "PixelSpacing", ["2.0", "1.1"])),
        ("frames of reference", lambda d: setattr(d, "FrameOfReferenceUID", "1.2.3")),
    ],
)
def test_a_series_that_mixes_things_is_refused(tmp_path, ct, what, change):
    save(turned(datasets_of(ct), change), tmp_path)
    assert f"mixes {what}: " in refusal(tmp_path)


def test_a_series_that_mixes_image_sizes_is_refused(tmp_path, ct):
    def halve(dataset):
        dataset.Rows = 3
        dataset.PixelData = dataset.PixelData[: 3 * 9 * 2] + b"\0" * (3 * 9 * 2 % 2)

    save(turned(datasets_of(ct), halve), tmp_path)
    assert "mixes image sizes" in refusal(tmp_path)


def test_slices_out_of_line_are_refused(tmp_path, ct):
    datasets = datasets_of(ct)
    x, y, z = datasets[5].ImagePositionPatient
    datasets[5].ImagePositionPatient = [str(float(x) + 2), y, z]
    save(datasets, tmp_path)
    assert "1.6 mm out of line" in refusal(tmp_path)  # 2 mm along x are 1.6 mm along the oblique row


def localiser(ct):
    (dataset, *_) = datasets_of(ct, description="Topogram", number=1)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return [dataset]


def dose_screen(ct):
    (dataset, *_) = datasets_of(ct, description="Dose report", number=99)
    dataset.SOPClassUID = SECONDARY_CAPTURE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelData = bytes(7 * 9 * 3 + 1)
    return [dataset]


def multi_frame(ct):
    (dataset, *_) = datasets_of(ct, description="Enhanced", number=7)
    dataset.SOPClassUID = f"{CT}.1"
    dataset.NumberOfFrames = 10
    dataset.PixelData = dataset.PixelData * 10
    return [dataset]


def mosaic(ct):
    (dataset, *_) = datasets_of(ct, description="fMRI", number=8)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    return [dataset]


def without_place(ct):
    datasets = datasets_of(ct, description="Film scan")
    for dataset in datasets:
        del dataset.ImagePositionPatient
    return datasets


def three_slices(ct):
    return datasets_of(ct, description="Biopsy")[:3]


ODDITIES = {
    "a localiser": localiser,
    "a colour screen, not a slice": dose_screen,
    "an enhanced multi-frame object; convert it": multi_frame,
    "a mosaic of slices": mosaic,
    "without a position in the patient": without_place,
    "too few slices": three_slices,
}


@pytest.mark.parametrize("reason", ODDITIES)
def test_a_folder_with_nothing_but_oddities_is_refused_with_the_reason(tmp_path, ct, reason):
    save(ODDITIES[reason](ct), tmp_path)
    text = refusal(tmp_path)
    assert "holds no CT series that is a volume" in text
    assert reason in text


def test_oddities_beside_the_ct_do_not_disturb_it(tmp_path, ct):
    for n, make in enumerate(ODDITIES.values()):
        save(make(ct), tmp_path / str(n))
    save(datasets_of(ct), tmp_path / "ct")
    assert np.array_equal(read_series(tmp_path, modality="CT").array_kji, ct.array_kji)


def test_a_localiser_within_the_series_is_left_out(tmp_path, ct):
    datasets = datasets_of(ct)
    (scout,) = localiser(ct)
    scout.SeriesInstanceUID = datasets[0].SeriesInstanceUID
    save([scout, *datasets], tmp_path)
    assert np.array_equal(read_series(tmp_path, modality="CT").array_kji, ct.array_kji)


def test_the_series_is_picked_by_its_modality(tmp_path, ct):
    mr = image(grid_of(POSITIONS["sagittal storage"]))
    save(datasets_of(ct), tmp_path / "a")
    save(datasets_of(mr, modality="MR", description="T1"), tmp_path / "b")
    assert np.array_equal(read_series(tmp_path, modality="CT").array_kji, ct.array_kji)
    assert np.array_equal(read_series(tmp_path, modality="MR").array_kji, mr.array_kji)


def test_several_candidates_are_listed_and_one_file_of_the_right_one_settles_it(tmp_path, ct):
    thick = image(replace(grid_of(), size_ijk=(9, 7, 8)))
    paths = save(datasets_of(ct, description="Neck 3 mm", number=4), tmp_path, name="a{}")
    save(datasets_of(thick, description="Neck 5 mm", number=5), tmp_path, name="b{}")
    text = refusal(tmp_path)
    assert "2 CT series: 'Neck 3 mm' (series 4, CT, 10 images); 'Neck 5 mm' (series 5, CT, 8 images)" in text
    assert "Give one file of the series that is meant." in text
    assert np.array_equal(read_image(paths[0], modality="CT").array_kji, ct.array_kji)


def test_of_many_series_the_first_are_listed_and_the_others_counted(tmp_path, ct):
    for number in range(11):
        save(datasets_of(ct, description=f"Phase {number}", number=number), tmp_path / str(number))
    text = refusal(tmp_path)
    assert text.count("Phase") == 8
    assert "; and 3 more. Give one file" in text


def test_the_wrong_modality_is_refused_with_what_is_there(tmp_path, ct):
    (path, *_) = save(datasets_of(ct), tmp_path)
    assert "holds no MR series that is a volume, only 'Planning CT' (series 2, CT, 10 images)" in refusal(
        tmp_path, "MR"
    )
    with pytest.raises(DicomSeriesError, match=r"belongs to 'Planning CT' .*, not to a MR volume"):
        read_series(path, modality="MR")


def test_a_folder_without_dicom_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert "holds no DICOM images" in refusal(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UnreadableFile, match="There is no"):
        read_image(tmp_path / "nowhere", modality="CT")


def test_a_structure_set_beside_the_series_is_passed_over(tmp_path, ct):
    save(datasets_of(ct), tmp_path)
    structure_set = pydicom.Dataset()
    structure_set.file_meta = FileMetaDataset()
    structure_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    structure_set.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    structure_set.SOPInstanceUID = structure_set.SeriesInstanceUID = generate_uid()
    structure_set.Modality = "RTSTRUCT"
    (path,) = save([structure_set], tmp_path, name="RS{}.dcm")
    assert np.array_equal(read_series(tmp_path, modality="CT").array_kji, ct.array_kji)
    with pytest.raises(DicomSeriesError, match="is DICOM but no image"):
        read_series(path, modality="CT")


def test_a_slice_that_is_cut_short_is_refused(tmp_path, ct, capfd):
    paths = save(datasets_of(ct), tmp_path)
    paths[3].write_bytes(paths[3].read_bytes()[:-40])
    with pytest.raises(UnreadableFile, match=f"pixels of {paths[3].name}"):
        read_series(tmp_path, modality="CT")
    assert capfd.readouterr() == ("", "")


def test_a_slice_whose_header_is_cut_short_is_refused(tmp_path, ct):
    paths = save(datasets_of(ct), tmp_path)
    paths[3].write_bytes(paths[3].read_bytes()[:400])
    with pytest.raises((UnreadableFile, DicomSeriesError)):
        read_series(tmp_path, modality="CT")


def test_rubbish_in_a_header_is_one_sentence(tmp_path, ct):
    paths = save(datasets_of(ct), tmp_path)
    raw = paths[3].read_bytes()
    rows = raw.index(b"\x28\x00\x10\x00US\x02\x00")  # (0028,0010) Rows, two bytes
    paths[3].write_bytes(raw[: rows + 6] + b"\x03\x00" + raw[rows + 8 :])
    with pytest.raises((UnreadableFile, DicomSeriesError)) as error:
        read_series(tmp_path, modality="CT")
    assert "\n" not in str(error.value)


def test_a_derived_ct_is_read_with_a_warning(tmp_path, ct):
    datasets = datasets_of(ct, description="SPR map")
    for dataset in datasets:
        dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        dataset.RescaleType = "SPR"
    save(datasets, tmp_path)
    notes = []
    read_series(tmp_path, modality="CT", on_note=notes.append)
    assert "computed from other images" in notes[0]
    assert "declares its values to be SPR, not HU" in notes[1]


def test_series_are_listed_in_their_order_with_what_is_wrong(tmp_path, ct):
    save(datasets_of(ct, number=12), tmp_path / "b")
    save(dose_screen(ct), tmp_path / "a")
    save(localiser(ct), tmp_path / "c")
    listed = [(series.number, series.unfit) for series in list_series(tmp_path)]
    assert listed == [("1", "a localiser"), ("12", ""), ("99", "a colour screen, not a slice")]


# Real folders


@pytest.mark.real_data
def test_a_real_volunteer_supine_and_on_a_side_is_read_as_stored(shared_data, tmp_path):
    positions = ("HFS", "HFDL")
    root = unpack(shared_data / "mr_t1_four_positions" / "mr_t1_four_positions.tar.xz", tmp_path, *positions)
    for position in positions:
        volume = read_series(root / position, modality="MR")
        assert volume.grid.size_ijk == (256, 256, 35)
        # sagittal: i runs posterior, j inferior; the files run from right to left, their normal from left to right
        assert np.allclose(volume.grid.axes, [[0, 0, -1], [1, 0, 0], [0, -1, 0]])
        assert volume.grid.spacing_mm == pytest.approx((1.015625, 1.015625, 4.8), abs=1e-6)
    assert "2 MR series" in refusal(root, "MR")


@pytest.mark.real_data
def test_a_real_gantry_tilt_is_put_upright(shared_data, tmp_path):
    archive = shared_data / "philips_head_phantom_tilt" / "philips_head_phantom.tar.xz"
    root = unpack(archive, tmp_path, "tilt_minus18_S21610_S2010", "dose_screens_S21610_S4010")
    notes = []
    volume = read_series(root / "tilt_minus18_S21610_S2010", modality="CT", on_note=notes.append)
    assert "gantry tilt of 18.5°" in notes[0]
    assert volume.grid.size_ijk == (512, 600, 54)
    assert volume.grid.spacing_mm[2] == pytest.approx(2.5 * np.cos(np.radians(18.5)), abs=1e-3)
    # the file of the first slice: its rows are where its own header puts them
    first = root / "tilt_minus18_S21610_S2010" / "I10"
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(first)))[0]
    header = pydicom.dcmread(first, stop_before_pixels=True)
    row, column = np.reshape(np.array(header.ImageOrientationPatient, float), (2, 3))
    for j, i in ((250, 250), (100, 300)):
        point = np.array(header.ImagePositionPatient, float) + 0.482421875 * (i * row + j * column)
        index = volume.grid.to_ijk(point)
        assert index[2] == pytest.approx(round(index[2]), abs=0.01)
        near_i, near_j, near_k = np.rint(index).astype(int)
        around = volume.array_kji[near_k, near_j - 1 : near_j + 2, near_i]
        assert around.min() - 30 <= stored[j, i] <= around.max() + 30
    assert "colour screen" in refusal(root / "dose_screens_S21610_S4010")


@pytest.mark.real_data
def test_every_transfer_syntax_gives_the_same_pixels(shared_data):
    from hnseg.image.dicom import _read_slice
    from hnseg.image.dicom_headers import read_header

    folder = shared_data / "dicom_syntaxes_and_bad_rt" / "transfer_syntaxes"
    planes = {path.name: _read_slice(read_header(path)) for path in sorted(folder.glob("*.dcm"))}
    assert len(planes) == 9
    lossless = [plane for name, plane in planes.items() if np.array_equal(plane, planes["1.dcm"])]
    assert len(lossless) >= 7
    for name, plane in planes.items():
        error = np.abs(plane.astype(int) - planes["1.dcm"]).mean()
        assert error < 0.01 * planes["1.dcm"].max(), name
