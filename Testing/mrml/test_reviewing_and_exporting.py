"""Review and export of a real segmentation node."""

from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
import vtk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from hnseg.errors import GeometryMismatch, HNSegError, InputError, OutputError
from hnseg.image.grid import Grid
from hnseg.image.segmentation import read_segmentation
from hnseg.image.volume import Volume
from hnseg.organs import ORGANS
from hnseg.terminology import TAUGHT_TAG
from HNSegLib.exporting import series_folder_of, write_rtstruct, write_seg_nrrd
from HNSegLib.merging import Status
from HNSegLib.reviewing import centre_ras, mark, progress, review_rows
from HNSegLib.segments import CONFIDENCE_TAG, EXPECTED_TAG, MODEL_TAG, NOTES_TAG, import_labels

GRID = Grid((40, 35, 6), (1.0, 2.0, 3.0), (-20.0, 15.0, 100.0))


@pytest.fixture
def labels():
    """Parotid_L a block of 4×3×2 voxels (24 × 6 mm³), Eye_AR (13) one of 5×5×3, SpinalCord one voxel."""
    array = np.zeros(GRID.shape_kji, np.uint8)
    array[1:3, 10:13, 20:24] = 27
    array[2:5, 20:25, 5:10] = 13
    array[3, 30, 30] = 30
    return Volume(array, GRID)


@pytest.fixture
def node(scene, labels):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Plan")
    node.CreateDefaultDisplayNodes()
    tags = {
        "Parotid_L": {MODEL_TAG: "scripted 1.0", CONFIDENCE_TAG: "0.915", NOTES_TAG: "Smaller than usual."},
        "Eye_AR": {TAUGHT_TAG: "phantoms only", EXPECTED_TAG: "0.71"},
    }
    import_labels(labels, node, tags=tags)
    return node


@pytest.fixture
def series(tmp_path):
    """The CT series on whose grid the labels lie: axial slices, pydicom."""
    folder = tmp_path / "CT"
    folder.mkdir()
    study, serie, frame = generate_uid(), generate_uid(), generate_uid()
    for k in range(6):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid()
        slice_ = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = study, serie, frame
        slice_.Modality, slice_.PatientID, slice_.PatientName = "CT", "phantom", "Phantom^Patient"
        slice_.SeriesNumber, slice_.InstanceNumber, slice_.StudyID = 1, k + 1, "1"
        slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        slice_.ImagePositionPatient = [-20.0, 15.0, 100.0 + 3.0 * k]
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.PixelSpacing, slice_.SliceThickness = [2.0, 1.0], 3.0
        slice_.Rows, slice_.Columns = 35, 40
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.RescaleSlope, slice_.RescaleIntercept = 1, 0
        slice_.PixelData = np.zeros((35, 40), np.int16).tobytes()
        slice_.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return folder


def shifted(scene, node):
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 5)
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    parent.SetMatrixTransformToParent(matrix)
    node.SetAndObserveTransformNodeID(parent.GetID())


def row_of(node, name):
    return next(row for row in review_rows(node) if row.name == name)


def test_rows_tell_volume_confidence_notes_and_status(node):
    row = row_of(node, "Parotid_L")
    assert row.volume_ml == pytest.approx(24 * 6 / 1000)
    assert (row.confidence, row.notes, row.status) == (0.915, "Smaller than usual.", Status.NOT_STARTED)
    assert not row.is_usual  # 0.144 mL where 10 to 56 are usual
    assert row_of(node, "Eye_AR").is_usual is True  # 75 × 6 mm³ = 0.45 mL of 0.4 to 2.2
    assert row_of(node, "Eye_AR").confidence is None
    assert (row_of(node, "Eye_AR").expected_dsc, row.expected_dsc) == (0.71, None)
    assert (row_of(node, "Eye_AR").taught_by, row.taught_by) == ("phantoms only", "")
    assert len(review_rows(node)) == 30


def test_marking_is_kept_and_counted(node):
    mark(node, ["Parotid_L", "SpinalCord"], Status.COMPLETED)
    mark(node, ["Lips"], Status.FLAGGED)
    assert row_of(node, "SpinalCord").status is Status.COMPLETED
    assert progress(review_rows(node)).startswith("2 of 30 completed, 1 flagged, ")
    assert progress(()) == "There is nothing to review yet."


def test_the_centre_of_an_organ_is_where_its_labels_are(node):
    # Block i 20…23, j 10…12, k 1…2: centre LPS (-20+21.5, 15+2·11, 100+3·1.5).
    np.testing.assert_allclose(centre_ras(node, "Parotid_L"), (-1.5, -37.0, 104.5), atol=1.5)


def test_a_seg_nrrd_of_slicer_is_read_by_the_engine(node, tmp_path, labels):
    mark(node, ["Parotid_L"], Status.COMPLETED)
    write_seg_nrrd(node, tmp_path / "plan.seg.nrrd")
    seen = read_segmentation(tmp_path / "plan.seg.nrrd")
    assert [segment.name for segment in seen.segments] == [organ.name for organ in ORGANS]
    mask = seen.mask("Parotid_L")
    points = mask.grid.to_lps(np.argwhere(mask.array_kji)[:, ::-1])
    expected = GRID.to_lps(np.argwhere(labels.array_kji == 27)[:, ::-1])
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(expected, axis=0), atol=1e-6)
    assert seen.segment("Parotid_L").tags["Segmentation.Status"] == "completed"


def test_another_ending_an_empty_node_and_a_transformed_one_are_refused_without_a_file(node, scene, tmp_path):
    with pytest.raises(OutputError, match=r"must end in \.seg\.nrrd"):
        write_seg_nrrd(node, tmp_path / "plan.nrrd")
    with pytest.raises(InputError, match="no segments"):
        write_seg_nrrd(scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Empty"), tmp_path / "plan.seg.nrrd")
    shifted(scene, node)
    with pytest.raises(GeometryMismatch, match="harden it before the export"):
        write_seg_nrrd(node, tmp_path / "plan.seg.nrrd")
    assert not list(tmp_path.iterdir())


def test_an_rtstruct_refers_to_the_original_series_and_says_who_made_what(node, series, tmp_path):
    mark(node, ["Eye_AR"], Status.IN_PROGRESS)
    written = write_rtstruct(node, series, tmp_path / "RT.dcm")
    assert written.contours["Parotid_L"] == 2
    structure_set = pydicom.dcmread(tmp_path / "RT.dcm")
    frame = structure_set.ReferencedFrameOfReferenceSequence[0]
    original = pydicom.dcmread(series / "0.dcm")
    assert frame.FrameOfReferenceUID == original.FrameOfReferenceUID
    made = {roi.ROIName: roi.ROIGenerationAlgorithm for roi in structure_set.StructureSetROISequence}
    assert made["Parotid_L"] == "AUTOMATIC"
    assert made["Eye_AR"] == "SEMIAUTOMATIC"
    eye = next(roi for roi in structure_set.StructureSetROISequence if roi.ROIName == "Eye_AR")
    assert eye.ROIDescription.endswith("; the model learnt it from phantoms only")
    roi = next(roi for roi in structure_set.StructureSetROISequence if roi.ROIName == "Parotid_L")
    contour = next(item for item in structure_set.ROIContourSequence if item.ReferencedROINumber == roi.ROINumber)
    points = np.array(contour.ContourSequence[0].ContourData, float).reshape(-1, 3)
    # Voxels 20…23 × 10…12 of 1×2 mm: x from -0.5 to 3.5, y from 34 to 40 (voxel edges), slices k = 1 and 2.
    np.testing.assert_allclose(points[:, :2].mean(axis=0), (1.5, 37.0), atol=1.0)
    assert {float(item.ContourData[2]) for item in contour.ContourSequence} == {103.0, 106.0}


def test_a_folder_without_the_series_is_refused_without_a_file(node, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(HNSegError):
        write_rtstruct(node, tmp_path / "empty", tmp_path / "RT.dcm")
    assert not (tmp_path / "RT.dcm").exists()


def test_the_series_folder_comes_from_slicers_dicom_database(scene, tmp_path):
    database = SimpleNamespace(fileForInstance={"1.2.3": str(tmp_path / "CT" / "0.dcm")}.get)
    ct = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    assert series_folder_of(ct, database) is None
    ct.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    assert series_folder_of(ct, database) == tmp_path / "CT"
    assert series_folder_of(ct, None) is None
