"""DICOM SEG out and in."""

import shutil
import subprocess

import numpy as np
import pydicom
import pytest

from hnseg.cli.main import main
from hnseg.dicomrt.provenance import Provenance
from hnseg.dicomrt.segmentation_object import (
    SegmentationObjectOptions,
    read_segmentation_object,
    write_segmentation_object,
)
from hnseg.dicomrt.series import open_series
from hnseg.errors import InputError, OutputError, UnreadableFile
from hnseg.image.segmentation import Segmentation, read_segmentation, write_segmentation
from hnseg.image.volume import Volume
from hnseg.version import __version__


def organs_on(grid, *, overlapping):
    masks = {name: np.zeros(grid.shape_kji, bool) for name in ("Parotid_L", "OpticNrv_R", "GTVp")}
    masks["Parotid_L"][4:14, 12:30, 9:33] = True
    masks["OpticNrv_R"][20:22, 40:43, 50:60] = True
    masks["GTVp"][(slice(10, 20), slice(25, 40), slice(30, 45)) if overlapping else (slice(25, 28),) * 3] = True
    return Segmentation.from_masks({name: Volume(mask, grid) for name, mask in masks.items()})


@pytest.mark.parametrize("overlapping", [False, True])
def test_segments_come_back_equal_on_every_kind_of_series(any_series, tmp_path, overlapping):
    series = open_series(any_series.folder)
    organs = organs_on(series.grid, overlapping=overlapping)
    assert write_segmentation_object(tmp_path / "SEG.dcm", series, organs) == ()
    read = read_segmentation_object(tmp_path / "SEG.dcm", grid=series.grid)
    assert [segment.name for segment in read.segments] == [segment.name for segment in organs.segments]
    for segment in organs.segments:
        np.testing.assert_array_equal(read.mask(segment.name).array_kji, organs.mask(segment.name).array_kji)
        assert read.segment(segment.name).rgb == pytest.approx(segment.rgb, abs=1)


def test_on_its_own_grid_each_voxel_keeps_its_place(any_series, tmp_path):
    series = open_series(any_series.folder)
    organs = organs_on(series.grid, overlapping=False)
    write_segmentation_object(tmp_path / "SEG.dcm", series, organs)
    read = read_segmentation_object(tmp_path / "SEG.dcm")
    for segment in organs.segments:
        points = [part.grid.to_lps(np.argwhere(part.mask(segment.name).array_kji)[:, ::-1]) for part in (organs, read)]
        ordered = [part[np.lexsort(np.round(part, 3).T)] for part in points]
        np.testing.assert_allclose(*ordered, atol=1e-3)


def test_the_object_says_what_it_is_and_where_it_belongs(axial_series, tmp_path):
    series = open_series(axial_series.folder)
    options = SegmentationObjectOptions(frozenset({"OpticNrv_R"}), Provenance("hnseg-small", "1.2.3"))
    write_segmentation_object(tmp_path / "SEG.dcm", series, organs_on(series.grid, overlapping=False), options)
    dataset = pydicom.dcmread(tmp_path / "SEG.dcm")
    image = pydicom.dcmread(axial_series.files[0], stop_before_pixels=True)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID"):
        assert dataset[keyword].value == image[keyword].value
    assert dataset.Modality == "SEG"
    assert list(dataset.SoftwareVersions) == [f"HNSeg {__version__}", "model hnseg-small 1.2.3"]
    assert "Research use only" in dataset.ContentDescription
    assert "not reviewed" in dataset.ContentDescription
    parotid, nerve, _ = dataset.SegmentSequence
    assert (parotid.SegmentLabel, parotid.SegmentAlgorithmType) == ("Parotid_L", "AUTOMATIC")
    assert (nerve.SegmentLabel, nerve.SegmentAlgorithmType) == ("OpticNrv_R", "SEMIAUTOMATIC")
    (code,) = nerve.SegmentedPropertyTypeCodeSequence
    assert code.CodeValue == "18234004"
    assert code.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "24028007"


def test_exporting_twice_makes_two_objects_and_originals_stay(axial_series, tmp_path):
    series = open_series(axial_series.folder)
    organs = organs_on(series.grid, overlapping=False)
    uids = set()
    for _ in range(2):
        write_segmentation_object(tmp_path / "SEG.dcm", series, organs)
        dataset = pydicom.dcmread(tmp_path / "SEG.dcm")
        uids |= {dataset.SOPInstanceUID, dataset.SeriesInstanceUID}
    assert len(uids) == 4
    shutil.copy(axial_series.files[0], tmp_path / "ct.dcm")
    with pytest.raises(OutputError, match="not written by HNSeg"):
        write_segmentation_object(tmp_path / "ct.dcm", series, organs)


def test_nothing_to_write_and_nothing_to_read_are_said(axial_series, tmp_path):
    series = open_series(axial_series.folder)
    empty = Segmentation.from_masks({"Lips": Volume(np.zeros(series.grid.shape_kji, bool), series.grid)})
    with pytest.raises(InputError, match="nothing to write"):
        write_segmentation_object(tmp_path / "SEG.dcm", series, empty)
    with pytest.raises(UnreadableFile, match="is CT, not SEG"):
        read_segmentation_object(axial_series.files[0])
    write_segmentation_object(tmp_path / "SEG.dcm", series, organs_on(series.grid, overlapping=False))
    whole = (tmp_path / "SEG.dcm").read_bytes()
    for share in (0.1, 0.5, 0.97):
        (tmp_path / "cut.dcm").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UnreadableFile, match=r"cut\.dcm"):
            read_segmentation_object(tmp_path / "cut.dcm")


def test_the_commands_write_and_read(axial_series, tmp_path):
    series = open_series(axial_series.folder)
    organs = organs_on(series.grid, overlapping=True)
    write_segmentation(organs, tmp_path / "in.seg.nrrd")
    folder, seg, out = str(axial_series.folder), str(tmp_path / "SEG.dcm"), str(tmp_path / "out.seg.nrrd")
    assert main(["seg", "write", "--series", folder, "--labels", str(tmp_path / "in.seg.nrrd"), "-o", seg]) == 0
    assert main(["seg", "read", seg, "--series", folder, "-o", out]) == 0
    read = read_segmentation(tmp_path / "out.seg.nrrd")
    for segment in organs.segments:
        np.testing.assert_array_equal(read.mask(segment.name).array_kji, organs.mask(segment.name).array_kji)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
@pytest.mark.parametrize("overlapping", [False, True])
def test_dciodvfy_finds_no_error(axial_series, tmp_path, overlapping):
    series = open_series(axial_series.folder)
    write_segmentation_object(tmp_path / "SEG.dcm", series, organs_on(series.grid, overlapping=overlapping))
    said = subprocess.run(["dciodvfy", tmp_path / "SEG.dcm"], capture_output=True, text=True, check=False).stderr
    assert [line for line in said.splitlines() if line.startswith("Error")] == []
