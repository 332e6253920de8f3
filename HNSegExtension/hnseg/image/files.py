"""Images and transforms in files: read whole or refused with one sentence, written whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import SimpleITK as sitk

from hnseg.errors import GeometryMismatch, OutputError, UnreadableFile, UnsupportedImage
from hnseg.image.itk import from_sitk, to_sitk
from hnseg.image.nifti import refuse_truncated_nifti
from hnseg.image.quiet import native_chatter_silenced
from hnseg.image.volume import Volume

Modality = Literal["CT", "MR"]

_READERS = {
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".nii": "NiftiImageIO",
    ".nii.gz": "NiftiImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
# A detached header names its data file, which no single rename can put in place together with it.
_WRITABLE = (".nrrd", ".nii", ".nii.gz", ".mha")
_TRANSFORMS = (".tfm", ".txt", ".h5", ".hdf5")
_DICOM_MAGIC_AT = 128
PARTIAL_MARK = ".hnseg-"
"""How the names of half-written files begin, so that a killed process's can be told from a person's."""


def read_volume(path: str | Path) -> Volume:
    """A 3D scalar image from NRRD, NIfTI or MetaImage, in LPS mm; a ``.seg.nrrd`` comes as its label map.

    A 4D file with a single frame is taken as 3D. Raises ``UnreadableFile`` (missing, truncated, not an image) or
    ``UnsupportedImage`` (2D, several frames or layers, RGB, complex numbers).
    """
    path = readable_file(path)
    return _volume(read_sitk(path), path)


def write_volume(volume: Volume, path: str | Path) -> None:
    """Write NRRD, NIfTI or MHA, gzip-compressed (but for ``.nii``), whole or not at all; booleans become uint8.

    NRRD and MHA keep the grid to double precision; NIfTI holds it in single precision. Raises ``OutputError``.
    """
    path = Path(path)
    _known_suffix(path, _WRITABLE, OutputError)
    with atomic_write(path) as temporary:
        _write_sitk(to_sitk(volume), temporary, path)


def read_image(path: str | Path, *, modality: Modality, on_note: Callable[[str], None] | None = None) -> Volume:
    """The CT or MR in an image file, in a DICOM folder, or in the series to which one DICOM file belongs.

    ``on_note`` is told, in a sentence each, what a person should know of how the image was read: a gantry tilt, say.
    """
    path = Path(path)
    if path.is_dir() or is_dicom(path):
        from hnseg.image.dicom import read_series  # pydicom is needed here alone

        return read_series(path, modality=modality, on_note=on_note)
    path = readable_file(path)
    image = read_sitk(path)
    if on_note is not None and _has_no_orientation(image, path):
        on_note(
            f"{path.name} does not say how the patient lies in it; its axes were taken to run left, posterior and "
            "superior, so check the sides."
        )
    return _volume(image, path)


def read_transform(path: str | Path) -> sitk.Transform:
    """A 3D spatial transform from an ITK file (``.tfm``, ``.h5``): fixed to moving points, LPS mm."""
    path = readable_file(path)
    _known_suffix(path, _TRANSFORMS, UnreadableFile)
    try:
        with native_chatter_silenced():
            transform = sitk.ReadTransform(str(path))
    except RuntimeError:
        raise UnreadableFile(
            f"{path.name} does not hold an ITK transform, or is cut short; give a .tfm or .h5 written by ITK."
        ) from None
    if transform.GetDimension() != 3:
        raise UnreadableFile(f"{path.name} holds a {transform.GetDimension()}D transform; give a 3D one.")
    return transform


def write_transform(transform: sitk.Transform, path: str | Path) -> None:
    """Write an ITK transform file (``.tfm``, ``.h5``), whole or not at all. Raises ``OutputError``."""
    path = Path(path)
    _known_suffix(path, _TRANSFORMS, OutputError)
    with atomic_write(path) as temporary:
        try:
            with native_chatter_silenced():
                sitk.WriteTransform(transform, str(temporary))
        except RuntimeError:
            raise _cannot_write(path) from None


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A path beside the target, with its suffix, to write to; it takes the target's place when the block ends well.

    When the block raises, an earlier target stays as it was and nothing partial is left. The folder must be there.
    Raises ``OutputError`` in place of any ``OSError``.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise OutputError(f"Cannot write {path.name}: there is no folder {path.parent}; create it first.")
    if path.is_dir():
        raise OutputError(f"Cannot write {path}: it is a folder; give a file name.")
    temporary = path.with_name(f"{PARTIAL_MARK}{secrets.token_hex(6)}.partial{''.join(path.suffixes[-2:])}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def is_partial(path: Path) -> bool:
    """Whether ``atomic_write`` made the file, which is then another process's, or what a killed one left."""
    return path.name.startswith(PARTIAL_MARK) and ".partial" in path.name and path.is_file()


def readable_file(path: str | Path) -> Path:
    """The path, if a readable, non-empty file is there; else ``UnreadableFile``."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            if stream.read(1):
                return path
    except FileNotFoundError:
        raise UnreadableFile(f"There is no file {path}; check the path.") from None
    except IsADirectoryError:
        raise UnreadableFile(f"{path} is a folder, but an image file was expected; give a file in it.") from None
    except OSError as error:
        raise UnreadableFile(f"Cannot open {path}: {error.strerror}; check its permissions.") from None
    raise UnreadableFile(f"{path.name} is empty (0 bytes); fetch the file again.")


def is_dicom(path: Path) -> bool:
    """Whether the file begins as a DICOM file does."""
    try:
        with path.open("rb") as stream:
            return stream.read(_DICOM_MAGIC_AT + 4)[_DICOM_MAGIC_AT:] == b"DICM"
    except OSError:
        return False


def read_sitk(path: Path) -> sitk.Image:
    """The image as ITK reads it, whatever its dimension and components; ``UnreadableFile`` if it cannot.

    ``GeometryMismatch`` for sheared axes, which ITK does not take.
    """
    suffix = _known_suffix(path, tuple(_READERS), UnreadableFile)
    if suffix.startswith(".nii"):
        refuse_truncated_nifti(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS[suffix])
    reader.SetFileName(str(path))
    try:
        with native_chatter_silenced():
            return reader.Execute()
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise GeometryMismatch(
                f"{path.name} has sheared or singular axes; resample it to an upright grid."
            ) from None
        raise UnreadableFile(
            f"{path.name} cannot be read as {suffix[1:]}: it is cut short, corrupt, or another kind of file; "
            "fetch it again or convert it to NRRD."
        ) from None


def _volume(image: sitk.Image, path: Path) -> Volume:
    _refuse_odd_pixels(image, path)
    image = _single_frame(image, path)
    try:
        return from_sitk(image)
    except GeometryMismatch as error:
        raise GeometryMismatch(f"{path.name}: {error}") from None


def _has_no_orientation(image: sitk.Image, path: Path) -> bool:
    """Whether the header leaves open which way is left. A MetaImage never does."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return all(image.HasMetaDataKey(key) and image.GetMetaData(key) == "0" for key in ("qform_code", "sform_code"))
    return path.name.lower().endswith((".nrrd", ".nhdr")) and not image.HasMetaDataKey("NRRD_space")


def _refuse_odd_pixels(image: sitk.Image, path: Path) -> None:
    if "complex" in image.GetPixelIDTypeAsString():
        raise UnsupportedImage(f"{path.name} holds complex numbers; save the magnitude image instead.")
    components = image.GetNumberOfComponentsPerPixel()
    if components > 1 and path.name.endswith(".seg.nrrd"):
        raise UnsupportedImage(
            f"{path.name} holds {components} layers of overlapping segments, not one label map; "
            "merge them into one layer first."
        )
    if components > 1:
        raise UnsupportedImage(
            f"{path.name} has {components} values per voxel, as RGB and vector images do; give a scalar image."
        )


def _single_frame(image: sitk.Image, path: Path) -> sitk.Image:
    size = image.GetSize()
    if len(size) < 3:
        raise UnsupportedImage(f"{path.name} is {len(size)}D; give a 3D volume.")
    if any(frames > 1 for frames in size[3:]):
        raise UnsupportedImage(f"{path.name} is {len(size)}D, of size {size}; save the one frame that you mean as 3D.")
    while image.GetDimension() > 3:
        image = sitk.Extract(image, (*image.GetSize()[:-1], 0))
    return image


def _write_sitk(image: sitk.Image, temporary: Path, path: Path) -> None:
    try:
        with native_chatter_silenced():
            sitk.WriteImage(image, str(temporary), useCompression=True)
    except RuntimeError:
        raise _cannot_write(path) from None


def _cannot_write(path: Path, error: OSError | None = None) -> OutputError:
    reason = error.strerror if error and error.strerror else "the folder refuses it or the disk is full"
    return OutputError(f"Cannot write {path}: {reason}; check the folder's permissions and free space.")


def _known_suffix(path: Path, known: tuple[str, ...], error: type[UnreadableFile] | type[OutputError]) -> str:
    name = path.name.lower()
    for suffix in known:
        if name.endswith(suffix):
            return suffix
    verb = "write" if error is OutputError else "read"
    raise error(f"Cannot {verb} {path.name}: its name does not end in {', '.join(known)}; use one of these.")
