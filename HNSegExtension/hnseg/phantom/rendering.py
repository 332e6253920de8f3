"""A patient on grids: CT, T1 MR, labels and the true CT→MR transform."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from hnseg.errors import ConfigError
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.organs import ORGANS, find_organ
from hnseg.phantom.anatomy import anatomy
from hnseg.phantom.ct import CtScanner, ct_palette
from hnseg.phantom.lattice import Lattice
from hnseg.phantom.mr import MrScanner, mr_palette, split_slices, subslices
from hnseg.phantom.paint import Painter
from hnseg.phantom.patient import Patient
from hnseg.phantom.pose import CtToMr, MrToCanonical, ToCanonical, rotation_matrix

Size = Literal["small", "medium", "full"]
SIZES: tuple[Size, ...] = ("small", "medium", "full")
Frame = Literal["ct", "mr"]

# CT: in-plane voxels and mm, slices (None: spacing decides) and slice mm; MR: in-plane voxels and mm, most slices.
_CT_SIZES = {"small": (192, 3.0, None, 4.0), "medium": (512, 1.12, None, 2.5), "full": (1024, 0.56, 202, 2.0)}
_MR_SIZES = {"small": (128, 2.0, 83), "medium": (256, 1.0, 83), "full": (512, 0.5, 83)}


@dataclass(frozen=True, slots=True, eq=False)
class PhantomCase:
    """One rendered patient. ``labels`` lie on the CT's grid; ``ct_to_mr`` maps CT points to MR points (LPS mm)."""

    patient: Patient
    ct: Volume
    mr: Volume | None
    labels: Volume
    ct_to_mr: sitk.Transform

    @property
    def masks(self) -> Mapping[str, Volume]:
        """Organ name → uint8 mask on the CT's grid, made when asked for."""
        return _Masks(self.labels)


class _Masks(Mapping[str, Volume]):
    def __init__(self, labels: Volume) -> None:
        self._labels = labels
        present = set(np.unique(labels.array_kji).tolist())
        self._names = [organ.name for organ in ORGANS if organ.label in present]

    def __getitem__(self, name: str) -> Volume:
        if name not in self._names:
            raise KeyError(name)
        return self._labels.with_array((self._labels.array_kji == find_organ(name).label).astype(np.uint8))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


OnProgress = Callable[[float, str], None]


def _ignore(fraction: float, text: str) -> None:
    """Progress that nobody wants to see."""


def render(
    patient: Patient,
    *,
    size: Size = "medium",
    ct_spacing_mm: tuple[float, float, float] | None = None,
    mr_spacing_mm: tuple[float, float, float] | None = None,
    ct_grid: Grid | None = None,
    mr_grid: Grid | None = None,
    threads: int = 1,
    on_progress: OnProgress = _ignore,
) -> PhantomCase:
    """CT (int16 HU), MR (int16; None if the options say so), labels (uint8) and the true transform.

    Grids follow from the patient's scan and ``size``, or from the spacings (a tight field of view about the patient),
    or are given. The same patient and grids give the same voxels, whatever ``threads``.
    """
    ct_grid = ct_grid or ct_grid_of(patient, size, ct_spacing_mm)
    mr_grid = mr_grid or mr_grid_of(patient, size, mr_spacing_mm)
    share = ct_grid.voxels / (ct_grid.voxels + mr_grid.voxels) if patient.options.mr else 1.0
    ct, labels = render_ct(patient, ct_grid, threads=threads, on_progress=_part(on_progress, 0.0, share))
    mr = None
    if patient.options.mr:
        mr = render_mr(patient, mr_grid, threads=threads, on_progress=_part(on_progress, share, 1.0))
    return PhantomCase(patient, ct, mr, labels, CtToMr(patient).transform)


def render_ct(
    patient: Patient, grid: Grid, *, threads: int = 1, on_progress: OnProgress = _ignore
) -> tuple[Volume, Volume]:
    """CT in int16 HU and labels on an axis-aligned grid."""
    painter = _painter(patient, grid, "ct", ct_palette(patient))
    scanner = CtScanner(patient, painter)
    ct, labels = np.empty(grid.shape_kji, np.int16), np.empty(grid.shape_kji, np.uint8)

    def work(span: tuple[int, int]) -> None:
        ct[slice(*span)], labels[slice(*span)] = scanner.slices(*span)

    _each_slab(painter, work, painter.slabs(), threads, _say(on_progress, "Painting the CT"))
    return Volume(ct, grid), Volume(labels, grid)


def render_mr(patient: Patient, grid: Grid, *, threads: int = 1, on_progress: OnProgress = _ignore) -> Volume:
    """T1-weighted MR in int16 on a grid of the MR's world."""
    parts = subslices(grid)
    painter = _painter(patient, split_slices(grid, parts), "mr", mr_palette(patient))
    scanner = MrScanner(patient, painter, parts)
    mr = np.empty(grid.shape_kji, np.int16)

    def work(span: tuple[int, int]) -> None:
        start, stop = (k // parts for k in span)
        mr[start:stop] = scanner.slices(start, stop)

    _each_slab(painter, work, painter.slabs(parts), threads, _say(on_progress, "Painting the MR"))
    return Volume(mr, grid)


def labels_on(patient: Patient, grid: Grid, *, frame: Frame = "ct", threads: int = 1) -> Volume:
    """The labels on any grid of the CT's or the MR's world."""
    painter = _painter(patient, grid, frame, None)
    labels = np.empty(grid.shape_kji, np.uint8)

    def work(span: tuple[int, int]) -> None:
        labels[slice(*span)] = painter.paint(*span)[1]

    _each_slab(painter, work, painter.slabs(), threads, lambda fraction: None)
    return Volume(labels, grid)


def ct_grid_of(patient: Patient, size: Size = "medium", spacing_mm: tuple[float, float, float] | None = None) -> Grid:
    """The planning CT's grid: axis-aligned, from above the vertex to the shoulders."""
    scan = patient.scan
    ends = ToCanonical(patient).back(
        np.array([(*scan.ct_centre, scan.ct_bottom), (*scan.ct_centre, scan.ct_top), (*scan.ct_centre, 0)])
    )
    bottom, top, (x, y, _) = float(ends[0, 2]), float(ends[1, 2]), ends[2]
    if spacing_mm is None:
        _check_size(size)
        n, inplane, slices, thick = _CT_SIZES[size]
        spacing, shape = (inplane, inplane, thick), (n, n)
    else:
        slices, spacing = None, spacing_mm
        shape = (round(440 / spacing_mm[0]), round(300 / spacing_mm[1]))
    count = slices or round((top - bottom) / spacing[2])
    low_z = (top + bottom) / 2 - (count - 1) / 2 * spacing[2] if slices is None else top - (count - 1) * spacing[2]
    origin = (x - (shape[0] - 1) / 2 * spacing[0], y - (shape[1] - 1) / 2 * spacing[1], low_z)
    return Grid((shape[0], shape[1], count), spacing, origin)


def mr_grid_of(patient: Patient, size: Size = "medium", spacing_mm: tuple[float, float, float] | None = None) -> Grid:
    """The MR's own grid: oblique, far from the CT's origin, cut off in the neck."""
    scan, motion = patient.scan, CtToMr(patient)
    _check_size(size)
    n, inplane, most = _MR_SIZES[size]
    spacing = spacing_mm or (inplane, inplane, max(scan.mr_slice, inplane))
    shape = (round(256 / spacing[0]), round(256 / spacing[1])) if spacing_mm else (n, n)
    count = min(round((150 - scan.mr_bottom) / spacing[2]), most if not spacing_mm else 999)
    if size == "full" and not spacing_mm and scan.mr_slice <= 3.2:
        count = most
    centre_z = scan.mr_bottom + (count - 1) / 2 * spacing[2]
    centre_ct = ToCanonical(patient).back(np.array([(*scan.mr_centre, centre_z)]))[0]
    centre = np.asarray(motion.rigid.TransformPoint([float(v) for v in centre_ct]))
    tilt = patient.pose.__class__(rotation_degrees=scan.mr_tilt_degrees)
    axes = rotation_matrix(patient.mr_pose) @ rotation_matrix(patient.pose) @ rotation_matrix(tilt)
    half = (np.array([*shape, count]) - 1) / 2 * np.asarray(spacing)
    return Grid((shape[0], shape[1], count), spacing, tuple(centre - axes @ half), tuple(axes.ravel()))


def _painter(patient: Patient, grid: Grid, frame: Frame, palette: Any) -> Painter:
    mappings: dict[str, Any] = {"ct": ToCanonical, "mr": MrToCanonical}
    if frame not in mappings:
        raise ConfigError(f"A frame is 'ct' or 'mr', got {frame!r}; choose one.")
    return Painter(
        Lattice.of(grid, mappings[frame](patient)), anatomy(patient), palette, patient.seed, patient.options.missing
    )


def _each_slab(
    painter: Painter,
    work: Callable[[tuple[int, int]], None],
    spans: Sequence[tuple[int, int]],
    threads: int,
    on_done: Callable[[float], None],
) -> None:
    """Every slab by ``threads`` threads (numpy lets them run side by side); the first error is raised."""
    painter.prepare()
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for n, _ in enumerate(pool.map(work, spans) if threads > 1 else map(work, spans)):
            on_done((n + 1) / len(spans))


def _part(on_progress: OnProgress, start: float, stop: float) -> OnProgress:
    return lambda fraction, text: on_progress(start + (stop - start) * fraction, text)


def _say(on_progress: OnProgress, text: str) -> Callable[[float], None]:
    return lambda fraction: on_progress(fraction, text)


def _check_size(size: str) -> None:
    if size not in SIZES:
        raise ConfigError(f"A size is one of {', '.join(SIZES)}, got {size!r}; choose one.")


def label_volumes_ml(labels: Volume) -> dict[str, float]:
    """Organ name → mL in a label volume; organs that are not there are left out."""
    counts: NDArray[np.int64] = np.bincount(labels.array_kji.ravel(), minlength=len(ORGANS) + 1)
    return {o.name: float(counts[o.label]) * labels.grid.voxel_ml for o in ORGANS if counts[o.label]}
