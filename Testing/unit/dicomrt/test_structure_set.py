"""RTSTRUCT out and in on axial, oblique, tilted and feet-first series."""

import hashlib
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from hnseg.dicomrt.provenance import Provenance
from hnseg.dicomrt.read import read_structure_set
from hnseg.dicomrt.rois import read_rois
from hnseg.dicomrt.segmentation_object import read_segmentation_object, write_segmentation_object
from hnseg.dicomrt.series import open_series
from hnseg.dicomrt.structure_set import StructureSetOptions, build_structure_set, write_structure_set
from hnseg.errors import ConfigError, DicomSeriesError, GeometryMismatch, InputError, OutputError
from hnseg.evaluation.metrics import dsc
from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segmentation
from hnseg.image.volume import Volume
from hnseg.terminology import STATUS_TAG
from hnseg.version import RESEARCH_USE, __version__


def ellipsoid(grid, centre_share, radii_mm):
    """An ellipsoid along the patient's axes, its centre at a share of the grid."""
    indices = np.stack(np.meshgrid(*map(np.arange, grid.size_ijk), indexing="ij"), axis=-1)
    offset = grid.to_lps(indices) - grid.to_lps(np.array(centre_share) * np.array(grid.size_ijk))
    return (np.linalg.norm(offset / radii_mm, axis=-1) <= 1).transpose(2, 1, 0)


def organs_on(grid):
    """A parotid with a hole, a cochlea-sized organ, a thin chiasm, two islands, and a cord through the last slice."""
    parotid = ellipsoid(grid, (0.3, 0.35, 0.35), (15, 18, 20)) & ~ellipsoid(grid, (0.3, 0.35, 0.35), (5, 6, 7))
    islands = ellipsoid(grid, (0.7, 0.3, 0.3), (4, 4, 8)) | ellipsoid(grid, (0.85, 0.3, 0.3), (4, 4, 8))
    cord = np.zeros(grid.shape_kji, bool)
    cord[grid.shape_kji[0] // 2 :, grid.shape_kji[1] // 2 :, 8:14][:, :7] = True
    masks = {
        "Parotid_L": parotid,
        "Cochlea_L": ellipsoid(grid, (0.6, 0.6, 0.6), (4.5, 3, 3)),
        "OpticChiasm": ellipsoid(grid, (0.5, 0.7, 0.7), (7, 4, 2.6)),
        "Arytenoid": islands,
        "SpinalCord": cord,
    }
    return Segmentation.from_masks({name: Volume(mask, grid) for name, mask in masks.items()})


def same_masks(first, second):
    return {s.name: np.array_equal(first.mask(s.name).array_kji, second.mask(s.name).array_kji) for s in first.segments}


def test_masks_come_back_as_they_were_on_every_kind_of_series(any_series, tmp_path):
    series = open_series(any_series.folder)
    organs = organs_on(series.grid)
    write_structure_set(tmp_path / "RT.dcm", series, organs)
    read = read_structure_set(tmp_path / "RT.dcm", series.grid, series=series)
    assert read.warnings == ()
    assert same_masks(organs, read.segmentation) == {segment.name: True for segment in organs.segments}


@pytest.mark.parametrize("holes", ["xor", "xor-typed"])
def test_holes_written_as_contours_of_their_own_come_back(axial_series, tmp_path, holes):
    series = open_series(axial_series.folder)
    organs = organs_on(series.grid)
    write_structure_set(tmp_path / "RT.dcm", series, organs, StructureSetOptions(holes=holes))
    read = read_structure_set(tmp_path / "RT.dcm", series.grid, series=series)
    assert same_masks(organs, read.segmentation) == {segment.name: True for segment in organs.segments}


def test_labels_on_another_grid_keep_their_shape(any_series, tmp_path):
    # The labels lie on an upright grid of their own, as those of a resampled CT do.
    series = open_series(any_series.folder)
    low, high = series.grid.bounds_lps()
    size = np.ceil((high - low) / (0.8, 0.8, 1.5)).astype(int)
    grid = Grid(tuple(size.tolist()), (0.8, 0.8, 1.5), tuple(low.tolist()))
    masks = {
        "Parotid_L": ellipsoid(grid, (0.45, 0.5, 0.5), (15, 18, 20)),
        "Cochlea_L": ellipsoid(grid, (0.55, 0.4, 0.4), (6, 5, 5)),
    }
    organs = Segmentation.from_masks({name: Volume(mask, grid) for name, mask in masks.items()})
    write_structure_set(tmp_path / "RT.dcm", series, organs)
    read = read_structure_set(tmp_path / "RT.dcm", grid, series=series).segmentation
    for name, bar in (("Parotid_L", 0.97), ("Cochlea_L", 0.85)):
        mask, back = organs.mask(name).array_kji, read.mask(name).array_kji
        assert dsc(back, mask) > bar
        assert back.sum() == pytest.approx(mask.sum(), rel=0.05)


def test_every_contour_lies_in_the_plane_of_the_image_that_it_refers_to(any_series, tmp_path):
    series = open_series(any_series.folder)
    write_structure_set(tmp_path / "RT.dcm", series, organs_on(series.grid))
    images = {str(d.SOPInstanceUID): d for d in (pydicom.dcmread(f, stop_before_pixels=True) for f in any_series.files)}
    dataset = pydicom.dcmread(tmp_path / "RT.dcm")
    checked = 0
    for item in dataset.ROIContourSequence:
        for contour in item.ContourSequence:
            (reference,) = contour.ContourImageSequence
            image = images[reference.ReferencedSOPInstanceUID]
            assert reference.ReferencedSOPClassUID == image.SOPClassUID
            row, column = np.reshape(np.array(image.ImageOrientationPatient, float), (2, 3))
            points = np.reshape(np.array(contour.ContourData, float), (-1, 3))
            heights = (points - np.array(image.ImagePositionPatient, float)) @ np.cross(row, column)
            assert np.abs(heights).max() < 2e-3
            assert contour.NumberOfContourPoints == len(points) >= 3
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            checked += 1
    assert checked > 40


def test_the_object_says_what_it_is_and_where_it_belongs(axial_series, tmp_path):
    series = open_series(axial_series.folder)
    organs = organs_on(series.grid)
    tags = {"Cochlea_L": {STATUS_TAG: "inprogress"}}
    segments = tuple(replace(s, tags={**s.tags, **tags.get(s.name, {})}) for s in organs.segments)
    provenance = Provenance("hnseg-small", "1.2.3", "not reviewed")
    options = StructureSetOptions(edited=frozenset({"OpticChiasm"}), provenance=provenance, label="AUTO OAR")
    write_structure_set(tmp_path / "RT.dcm", series, replace(organs, segments=segments), options)
    dataset = pydicom.dcmread(tmp_path / "RT.dcm")
    image = pydicom.dcmread(axial_series.files[0], stop_before_pixels=True)
    for keyword in (
        "StudyInstanceUID",
        "FrameOfReferenceUID",
        "PatientName",
        "PatientID",
        "StudyID",
        "AccessionNumber",
    ):
        assert dataset[keyword].value == image[keyword].value
    assert dataset.SeriesInstanceUID != image.SeriesInstanceUID
    assert dataset.Modality == "RTSTRUCT"
    assert dataset.ApprovalStatus == "UNAPPROVED"
    assert dataset.StructureSetLabel == "AUTO OAR"
    assert list(dataset.SoftwareVersions) == [f"HNSeg {__version__}", "model hnseg-small 1.2.3"]
    assert RESEARCH_USE in dataset.StructureSetDescription
    assert "not reviewed" in dataset.StructureSetDescription
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (referenced,) = study.RTReferencedSeriesSequence
    assert frame.FrameOfReferenceUID == image.FrameOfReferenceUID
    assert referenced.SeriesInstanceUID == image.SeriesInstanceUID
    assert len(referenced.ContourImageSequence) == len(axial_series.files)
    rois = {roi.ROIName: roi for roi in dataset.StructureSetROISequence}
    algorithms = {name: roi.ROIGenerationAlgorithm for name, roi in rois.items()}
    assert algorithms == {
        "Parotid_L": "AUTOMATIC", "Cochlea_L": "SEMIAUTOMATIC", "OpticChiasm": "SEMIAUTOMATIC",
        "Arytenoid": "AUTOMATIC", "SpinalCord": "AUTOMATIC",
    }  # fmt: skip
    volume = np.count_nonzero(organs.mask("Parotid_L").array_kji) * series.grid.voxel_ml
    assert float(rois["Parotid_L"].ROIVolume) == pytest.approx(volume, rel=1e-3)
    observation = next(o for o in dataset.RTROIObservationsSequence if o.ROIObservationLabel == "Parotid_L")
    assert observation.RTROIInterpretedType == "ORGAN"
    (code,) = observation.RTROIIdentificationCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("45289007", "SCT")
    assert code.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "7771000"
    colours = {c.ReferencedROINumber: list(c.ROIDisplayColor) for c in dataset.ROIContourSequence}
    assert colours[rois["Parotid_L"].ROINumber] == [31, 45, 172]


def test_the_polygons_areas_add_up_to_the_voxels_volume(axial_series):
    series = open_series(axial_series.folder)
    organs = organs_on(series.grid)
    dataset, _ = build_structure_set(series, organs, StructureSetOptions())
    for segment, item in zip(organs.segments, dataset.ROIContourSequence, strict=True):
        area = 0.0
        for contour in item.ContourSequence:
            x, y, _ = np.reshape(np.array(contour.ContourData, float), (-1, 3)).T
            area += abs(0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
        voxels = np.count_nonzero(organs.mask(segment.name).array_kji)
        assert area * 2.5 == pytest.approx(voxels * 0.9 * 1.1 * 2.5, rel=0.01)


def test_exporting_twice_makes_two_objects_and_leaves_the_series_alone(axial_series, tmp_path):
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in axial_series.files}
    series = open_series(axial_series.folder)
    uids = []
    for _ in range(2):
        write_structure_set(tmp_path / "RT.dcm", series, organs_on(series.grid))
        dataset = pydicom.dcmread(tmp_path / "RT.dcm")
        uids += [dataset.SOPInstanceUID, dataset.SeriesInstanceUID]
    assert len(set(uids)) == 4
    assert before == {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in axial_series.files}
    assert list(tmp_path.iterdir()) == [tmp_path / "RT.dcm"]


def test_an_original_is_never_replaced(axial_series, tmp_path):
    series = open_series(axial_series.folder)
    copy = tmp_path / "slice.dcm"
    shutil.copy(axial_series.files[0], copy)
    with pytest.raises(OutputError, match="not written by HNSeg"):
        write_structure_set(copy, series, organs_on(series.grid))
    assert copy.read_bytes() == axial_series.files[0].read_bytes()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not written by HNSeg"):
        write_structure_set(tmp_path / "notes.txt", series, organs_on(series.grid))


def test_nothing_is_left_when_writing_fails(axial_series, tmp_path, monkeypatch):
    series = open_series(axial_series.folder)

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pydicom.dataset.FileDataset, "save_as", fail)
    with pytest.raises(OutputError, match="No space left"):
        write_structure_set(tmp_path / "RT.dcm", series, organs_on(series.grid))
    assert list(tmp_path.iterdir()) == []


def test_empty_organs_and_what_leaves_the_series_are_named(axial_series, tmp_path):
    series = open_series(axial_series.folder)
    longer = series.grid.cropped((0, 0, -5), (72, 64, 42))
    cord = np.zeros(longer.shape_kji, bool)
    cord[:, 30:40, 30:40] = True
    masks = {"SpinalCord": Volume(cord, longer), "Lips": Volume(np.zeros_like(cord), longer)}
    written = write_structure_set(tmp_path / "RT.dcm", series, Segmentation.from_masks(masks))
    assert written.contours == {"SpinalCord": 32}
    assert [w.split(":")[0] for w in written.warnings] == [
        "SpinalCord leaves the series",
        "Left out, as they are empty",
    ]
    with pytest.raises(InputError, match="No structure has a voxel"):
        write_structure_set(tmp_path / "RT2.dcm", series, Segmentation.from_masks({"Lips": masks["Lips"]}))


def test_a_copy_of_an_organ_keeps_its_own_name(axial_series, tmp_path):
    series = open_series(axial_series.folder)
    organs = organs_on(series.grid)
    parotid = organs.segment("Parotid_L")
    copies = [replace(parotid, name=name, label=label) for name, label in (("Parotid_L copy", 200), ("a\\b", 201))]
    copies.append(replace(parotid, name="a_b", label=202))
    array = organs.layers[parotid.layer].array_kji.copy()
    for n, copy in enumerate(copies):
        array[2, 2, 2 + n] = copy.label
    layers = tuple(layer.with_array(array) if n == parotid.layer else layer for n, layer in enumerate(organs.layers))
    organs = Segmentation(layers, (*organs.segments, *copies))
    written = write_structure_set(tmp_path / "RT.dcm", series, organs)
    names = [roi.ROIName for roi in pydicom.dcmread(tmp_path / "RT.dcm").StructureSetROISequence]
    assert names[0] == "Parotid_L"
    assert names[-3:] == ["Parotid_L copy", "a_b", "a_b_2"]
    assert len(written.contours) == len(names)


def test_options_that_make_no_sense_are_refused():
    for wrong in ({"holes": "bridge"}, {"tolerance_mm": -1.0}, {"label": "x" * 17}, {"label": ""}):
        with pytest.raises(ConfigError):
            StructureSetOptions(**wrong)


def test_a_structure_set_of_another_patient_is_refused(axial_series, series_maker, tmp_path):
    series = open_series(axial_series.folder)
    write_structure_set(tmp_path / "RT.dcm", series, organs_on(series.grid))
    other = open_series(series_maker(tmp_path / "other").folder)
    with pytest.raises(GeometryMismatch, match="another frame of reference"):
        read_structure_set(tmp_path / "RT.dcm", other.grid, series=other)


def test_the_series_that_a_structure_set_refers_to_is_taken_of_several(series_maker, tmp_path):
    first, second = series_maker(tmp_path / "both" / "a"), series_maker(tmp_path / "both" / "b")
    with pytest.raises(DicomSeriesError, match="2 series"):
        open_series(tmp_path / "both")
    wanted = str(pydicom.dcmread(second.files[0]).SeriesInstanceUID)
    assert open_series(tmp_path / "both", preferred={wanted}).series_uid == wanted
    assert open_series(first.files[3]).series_uid != wanted


def test_codes_and_generation_come_back_as_tags(axial_series, tmp_path):
    series = open_series(axial_series.folder)
    options = StructureSetOptions(edited=frozenset({"Cochlea_L"}))
    write_structure_set(tmp_path / "RT.dcm", series, organs_on(series.grid), options)
    rois = {roi.name: roi for roi in read_rois(tmp_path / "RT.dcm").rois}
    assert rois["Cochlea_L"].tags["HNSeg.Generation"] == "SEMIAUTOMATIC"
    assert "SCT^80169004^Cochlea~SCT^7771000^Left" in rois["Cochlea_L"].tags["TerminologyEntry"]


@pytest.mark.parametrize("character_set", [None, "", "ISO_IR 100"])
def test_names_in_any_script_are_written_and_the_patients_stays(series_maker, tmp_path, character_set):
    made = series_maker(tmp_path / "ct", size=(24, 22, 4))
    for file in made.files:
        image = pydicom.dcmread(file)
        image.PatientName = "Mueller^Aenne" if not character_set else image.PatientName
        image.SpecificCharacterSet = character_set
        if character_set is None:
            del image.SpecificCharacterSet
        image.save_as(file)
    series = open_series(made.folder)
    mask = np.zeros(series.grid.shape_kji, bool)
    mask[1:3, 5:12, 6:13] = True
    organs = Segmentation.from_masks({name: Volume(mask, series.grid) for name in ("Lips", "Tumör 腫瘍")})
    write_structure_set(tmp_path / "RT.dcm", series, organs)
    write_segmentation_object(tmp_path / "SEG.dcm", series, organs)
    for name in ("RT.dcm", "SEG.dcm"):
        dataset = pydicom.dcmread(tmp_path / name)
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert str(dataset.PatientName) == ("Müller^Änne" if character_set else "Mueller^Aenne")
    assert [roi.name for roi in read_rois(tmp_path / "RT.dcm").rois] == ["Lips", "Tumör 腫瘍"]
    assert [one.name for one in read_segmentation_object(tmp_path / "SEG.dcm").segments] == ["Lips", "Tumör 腫瘍"]
    write_structure_set(tmp_path / "plain.dcm", series, Segmentation.from_masks({"Lips": Volume(mask, series.grid)}))
    assert pydicom.dcmread(tmp_path / "plain.dcm").get("SpecificCharacterSet") == (character_set or None)


@pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dicom3tools is not installed: apt-get install dicom3tools"
)
def test_dciodvfy_finds_no_error(any_series, tmp_path):
    series = open_series(any_series.folder)
    for holes in ("keyhole", "xor"):
        write_structure_set(tmp_path / "RT.dcm", series, organs_on(series.grid), StructureSetOptions(holes=holes))
        said = subprocess.run(["dciodvfy", tmp_path / "RT.dcm"], capture_output=True, text=True, check=False).stderr
        assert [line for line in said.splitlines() if line.startswith(("Error", "Warning"))] == []


@pytest.mark.skipif(
    shutil.which("plastimatch") is None, reason="plastimatch is not installed: apt-get install plastimatch"
)
def test_plastimatch_fills_the_same_voxels(any_series, tmp_path):
    import SimpleITK as sitk

    series = open_series(any_series.folder)
    organs = organs_on(series.grid)
    write_structure_set(tmp_path / "RT.dcm", series, organs)
    command = ["plastimatch", "convert", "--input", tmp_path / "RT.dcm", "--referenced-ct", any_series.folder]
    command += ["--output-prefix", tmp_path / "out", "--prefix-format", "nrrd"]
    subprocess.run(command, check=True, capture_output=True)
    # The parotid leaves the field of view of some slices of the tilted series, where plastimatch has no voxels.
    inside = [s for s in organs.segments if s.name != "Parotid_L" or series.stack.is_upright]
    for segment in inside:
        theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / f"{segment.name}.nrrd")))
        assert theirs.sum() == np.count_nonzero(organs.mask(segment.name).array_kji)
