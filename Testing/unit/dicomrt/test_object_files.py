"""Files are written by what pydicom 2.4 (Slicer 5.10) and 3 have in common; pydicom 3's own writer is the judge."""

import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    PYDICOM_IMPLEMENTATION_UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RTStructureSetStorage,
    generate_uid,
)

from hnseg.dicomrt.files import write_object


@pytest.fixture
def dataset():
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    dataset.Modality, dataset.Manufacturer, dataset.StructureSetLabel = "RTSTRUCT", "HNSeg", "Organs"
    region = pydicom.Dataset()
    region.ROINumber, region.ROIName = 1, "Brainstem"
    dataset.StructureSetROISequence = [region]
    return dataset


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_the_file_is_what_the_enforcing_writer_of_pydicom_3_makes(dataset, syntax, tmp_path):
    write_object(dataset, tmp_path / "ours.dcm", transfer_syntax=syntax)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.ImplementationClassUID = syntax, PYDICOM_IMPLEMENTATION_UID
    theirs = FileDataset(str(tmp_path / "theirs.dcm"), dataset, file_meta=meta, preamble=b"\0" * 128)
    theirs.save_as(tmp_path / "theirs.dcm", enforce_file_format=True)
    ours, theirs = (pydicom.dcmread(tmp_path / f"{name}.dcm") for name in ("ours", "theirs"))
    theirs.file_meta.pop("ImplementationVersionName", None)  # pydicom's advertisement
    lengths = [one.file_meta.pop("FileMetaInformationGroupLength").value for one in (ours, theirs)]
    assert ours.file_meta == theirs.file_meta
    assert ours == theirs
    assert lengths[0] == (tmp_path / "ours.dcm").read_bytes().index(b"\x08\x00") - 128 - 4 - 12
