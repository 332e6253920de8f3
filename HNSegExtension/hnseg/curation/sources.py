"""Where a case comes from: files with roles, their digests, and the structures in them as named masks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hnseg.curation.availability import Marks
from hnseg.curation.masks import read_masks
from hnseg.curation.remarks import Remark
from hnseg.errors import UnreadableFile
from hnseg.image.files import read_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume

NamedMasks = Iterable[tuple[str, Volume]]


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """A file per structure, with the structure's name; of two with one name the first will count."""

    files: tuple[tuple[str, Path], ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return tuple(path for _, path in self.files)

    def read(self, grid: Grid) -> tuple[NamedMasks, tuple[Remark, ...]]:
        """The masks, on their own grids, and what was noticed."""
        return read_masks(self.files), ()


@dataclass(frozen=True, slots=True)
class LabelFile:
    """One label map; ``names`` says what its values mean. Only the ``drawn`` ones count, where that is given."""

    path: Path
    names: Mapping[int, str]
    drawn: frozenset[str] | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def read(self, grid: Grid) -> tuple[NamedMasks, tuple[Remark, ...]]:
        """A mask for each name, and a remark on values without one."""
        labels = read_volume(self.path)
        strange = sorted(set(np.unique(labels.array_kji).tolist()) - {0, *self.names})
        text = f"{self.path.name} holds the values {strange}, which mean nothing here."
        masks = (
            (name, labels.with_array(labels.array_kji == value))
            for value, name in self.names.items()
            if self.drawn is None or name in self.drawn
        )
        return masks, (Remark("values", "", text),) if strange else ()


@dataclass(frozen=True, slots=True)
class Rtstruct:
    """A DICOM structure set, drawn on the series that ``series`` (one of its files) belongs to."""

    path: Path
    series: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def read(self, grid: Grid) -> tuple[NamedMasks, tuple[Remark, ...]]:
        """Every region filled on the series' grid, and what could not be taken literally."""
        from hnseg.dicomrt.read import read_on_series

        found = read_on_series(self.path, self.series)
        remarks = tuple(
            Remark("drawn-elsewhere" if text in found.drawn_elsewhere else "image", "", text) for text in found.warnings
        )
        return ((s.name, found.segmentation.mask(s.name)) for s in found.segmentation.segments), remarks


@dataclass(frozen=True, slots=True)
class CaseSource:
    """One patient before curation. Images are files, or one file of a DICOM series.

    ``series`` lists the files of each image that has several. ``targets`` are structures beside the organs that get a
    label. ``same_frame`` images (a PET) lie in the CT's frame already. ``patient`` holds sex and age where known;
    ``subject`` is equal for cases of one person.
    """

    name: str
    ct: Path
    mr: Path | None = None
    pet: Path | None = None
    structures: MaskFiles | LabelFile | Rtstruct | None = None
    marks: Marks = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    subject: str = ""
    patient: Mapping[str, str] = field(default_factory=dict)
    series: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """A file, or all files of a series, that went into a case: path below the input folder, size and digest."""

    role: str
    path: str
    bytes: int
    sha256: str


def source_records(source: CaseSource, root: Path) -> tuple[SourceRecord, ...]:
    """Size and SHA-256 of all that the case is made of.

    A series' digest is that of its files' digests, in the order of their paths. Raises ``UnreadableFile``.
    """
    return tuple(_record(role, paths, root) for role, paths in _files(source))


def has_sources(source: CaseSource, root: Path, records: Sequence[SourceRecord]) -> bool:
    """Whether the records are of these files: all places and sizes, and the CT's digest. False where one is gone."""
    try:
        files = list(_files(source))
        places = [(role, _place(paths, root), _size(paths)) for role, paths in files]
        same = places == [(record.role, record.path, record.bytes) for record in records]
        return same and _record(*files[0], root) == records[0]
    except (OSError, UnreadableFile):
        return False


def _record(role: str, paths: tuple[Path, ...], root: Path) -> SourceRecord:
    digests = [_digest(path) for path in sorted(paths)]
    whole = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return SourceRecord(role, _place(paths, root), _size(paths), whole)


def _files(source: CaseSource) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Role and files of each source, the CT's first."""
    for role, path in (("ct", source.ct), ("mr", source.mr), ("pet", source.pet)):
        if path is not None:
            yield role, source.series.get(role, (path,))
    for path in source.structures.paths if source.structures else ():
        yield "structures", (path,)


def _place(paths: tuple[Path, ...], root: Path) -> str:
    shown = paths[0] if len(paths) == 1 else paths[0].parent
    return (shown.relative_to(root) if shown.is_relative_to(root) else shown).as_posix()


def _size(paths: tuple[Path, ...]) -> int:
    return sum(path.stat().st_size for path in paths)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UnreadableFile(f"Cannot read {path}: {error.strerror}; check the path and its permissions.") from None
