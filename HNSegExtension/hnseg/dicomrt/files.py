"""DICOM objects on disk: broken ones give a sentence; writing is all or nothing and never over an original."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID, ImplicitVRLittleEndian

from hnseg.dicomrt.provenance import MANUFACTURER
from hnseg.errors import HNSegError, OutputError, UnreadableFile
from hnseg.image.files import atomic_write, readable_file


def read_object(path: str | Path, *, kind: str) -> Dataset:
    """The DICOM object in a file; ``UnreadableFile`` if it is missing, truncated, not DICOM or of another kind."""
    path = readable_file(path)
    try:
        with tolerant():
            dataset = pydicom.dcmread(path, force=False)
            found = str(dataset.get("Modality", "of no modality"))
    except HNSegError:
        raise
    except Exception as error:
        raise UnreadableFile(
            f"{path.name} cannot be read as DICOM ({type(error).__name__}); export it again from its source."
        ) from error
    if found != kind:
        raise UnreadableFile(f"{path.name} is {found}, not {kind}; give the {kind} file.")
    return dataset


@contextmanager
def tolerant() -> Iterator[None]:
    """Without pydicom's and highdicom's warnings about odd values: they quote them, and one may be the patient's name.

    What matters of them is judged, and said, by the caller.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_object(dataset: Dataset, path: str | Path, *, transfer_syntax: UID = ImplicitVRLittleEndian) -> None:
    """Write as a part 10 file, atomically.

    Implicit by default, because a contour of more than 65534 bytes cannot be encoded in explicit syntax (PS3.3
    C.8.8.6). Raises ``OutputError`` rather than replace a file that HNSeg did not write. The file's header is complete
    as it is given, since pydicom 2.4, which Slicer 5.10 brings, and pydicom 3 share no option that completes it.
    """
    path = Path(path)
    refuse_original(path)
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # filled in by the writer
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    with atomic_write(path) as partial:
        file = FileDataset(str(partial), dataset, b"\0" * 128, meta, is_implicit_VR=transfer_syntax.is_implicit_VR)
        file.save_as(partial)


def refuse_original(path: Path) -> None:
    """Raise ``OutputError`` if something that HNSeg did not write is at ``path``."""
    if not path.exists():
        return
    try:
        maker = str(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Manufacturer"]).Manufacturer)
    except Exception:  # noqa: BLE001  whatever it is, it is not ours
        maker = ""
    if maker != MANUFACTURER:
        raise OutputError(f"{path.name} exists and was not written by HNSeg; choose another file name.")
