"""What the page's viewer needs, as JSON with everything in it: tiled slices and quantised surfaces."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnseg.image.grid import Grid
from hnseg.image.resample import resample
from hnseg.image.volume import Volume
from hnseg.organs import ORGANS
from hnseg.reporting.meshes import Mesh
from hnseg.reporting.pictures import jpeg, png
from hnseg.reporting.record import OrganRecord
from hnseg.reporting.views import SOFT_TISSUE_HU, Views

LABEL_STEP = 8
"""Labels are stored times this, so that no colour management of a browser can turn one into its neighbour."""

WINDOWS_HU = {"soft tissue": SOFT_TISSUE_HU, "bone": (-500.0, 1500.0), "wide": (-1000.0, 2000.0)}
"""What the viewer's CT can be shown in."""

_HU, _GRAY = (-1000.0, -200.0, 300.0, 2000.0), (0.0, 40.0, 215.0, 255.0)
"""The CT's 8 bits: most of them, 3 HU each, for soft tissue; air and bone share the rest."""

MR_FLOOR = 24
"""The MR's darkest gray; what is much darker lies outside of the MR, even after the losses of a JPEG."""

_MOST_VOXELS = 6_000_000
_MOST_POINTS = 65_535


def viewer_data(
    views: Views, meshes: Sequence[Mesh], skin: Mesh | None, findings: Sequence[OrganRecord] = ()
) -> dict[str, Any]:
    """Volumes as tiled pictures, meshes as base64, organs with colours, a voxel to jump to, and what was found."""
    small = _shrunk(replace(views, mr=_raised(views)))
    columns = math.ceil(math.sqrt(small.grid.size_ijk[2]))
    shown = [mesh for mesh in (*meshes, skin) if mesh is not None and len(mesh.points_lps) <= _MOST_POINTS]
    box = _box(shown)
    centres = _centres(small.labels)
    return {
        "size": small.grid.size_ijk,
        "spacing_mm": small.spacing_mm,
        "origin_lps": small.grid.origin_lps,
        "columns": columns,
        "label_step": LABEL_STEP,
        "start": _start(centres, small.grid),
        "sheets": {
            "ct": _uri("jpeg", jpeg(tiled(companded(small.hu), columns))),
            **({} if small.mr is None else {"mr": _uri("jpeg", jpeg(tiled(small.mr, columns)))}),
            "labels": _uri("png", png(tiled(small.labels * np.uint8(LABEL_STEP), columns))),
        },
        "mr_floor": MR_FLOOR,
        "hu_of_gray": np.round(np.interp(np.arange(256), _GRAY, _HU)).tolist(),
        "windows_hu": WINDOWS_HU,
        "organs": [
            {"label": organ.label, "name": organ.name, "rgb": organ.rgb, "centre": centres[organ.label]}
            | _finding(organ.name, findings)
            for organ in ORGANS
            if organ.label in centres
        ],
        "mesh_box": [side.tolist() for side in box],
        "focus": [side.tolist() for side in _box(meshes or shown)],
        "meshes": [_mesh(mesh, box) for mesh in shown],
    }


def companded(hu_kji: NDArray[np.int16]) -> NDArray[np.uint8]:
    """HU in 8 bits, finest in soft tissue; ``hu_of_gray`` of the viewer's data turns them back."""
    return np.rint(np.interp(hu_kji, _HU, _GRAY)).astype(np.uint8)


def _raised(views: Views) -> NDArray[np.uint8] | None:
    """The MR from ``MR_FLOOR`` to white, 0 where there is none."""
    if views.mr is None or views.mr_valid is None:
        return None
    raised = MR_FLOOR + views.mr * np.float32((255 - MR_FLOOR) / 255)
    return np.where(views.mr_valid, raised, 0).astype(np.uint8)


def tiled(array_kji: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Slices beside each other in rows of ``columns``, k from the first; empty tiles are 0."""
    k, j, i = array_kji.shape
    rows = math.ceil(k / columns)
    sheet = np.zeros((rows * columns, j, i), np.uint8)
    sheet[:k] = array_kji
    return sheet.reshape(rows, columns, j, i).transpose(0, 2, 1, 3).reshape(rows * j, columns * i)


def _shrunk(views: Views) -> Views:
    """Coarser where the page would become too heavy."""
    factor = max(1.0, (views.grid.voxels / _MOST_VOXELS) ** (1 / 3))
    if factor == 1.0:
        return views
    spacing = views.spacing_mm * factor
    size = np.maximum(np.floor(np.asarray(views.grid.size_ijk) / factor), 1).astype(int)
    origin = views.grid.to_lps(np.full(3, factor / 2 - 0.5))
    grid = Grid(tuple(size.tolist()), (spacing,) * 3, tuple(origin.tolist()))
    return Views(
        grid=grid,
        hu=resample(Volume(views.hu, views.grid), grid).array_kji,
        labels=resample(Volume(views.labels, views.grid), grid, interpolation="nearest").array_kji,
        mr=None if views.mr is None else resample(Volume(views.mr, views.grid), grid).array_kji,
    )


def _finding(name: str, findings: Sequence[OrganRecord]) -> dict[str, Any]:
    found = (finding for finding in findings if finding.name == name)
    return next(({"ml": round(f.volume_ml, 2), "check": f.status == "check"} for f in found), {})


def _centres(labels: NDArray[np.uint8]) -> dict[int, list[int]]:
    """For each label that is there, its voxel (i, j, k) nearest to its centroid."""
    centres = {}
    for label in np.unique(labels[labels > 0]).tolist():
        where = np.argwhere(labels == label)
        nearest = np.argmin(((where - where.mean(axis=0)) ** 2).sum(axis=1))
        centres[label] = where[nearest][::-1].tolist()
    return centres


def _start(centres: dict[int, list[int]], grid: Grid) -> list[int]:
    """In the organ nearest to the middle of all, or in the middle of the grid where there is none."""
    if not centres:
        return [n // 2 for n in grid.size_ijk]
    places = np.array(list(centres.values()))
    nearest = np.argmin(((places - places.mean(axis=0)) ** 2).sum(axis=1))
    return list(places[nearest].tolist())


def _box(meshes: Sequence[Mesh]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not meshes:
        return np.zeros(3), np.ones(3)
    points = np.concatenate([mesh.points_lps for mesh in meshes]).astype(np.float64)
    return points.min(axis=0), points.max(axis=0)


def _mesh(mesh: Mesh, box: tuple[NDArray[np.float64], NDArray[np.float64]]) -> dict[str, Any]:
    low, high = box
    share = (mesh.points_lps - low) / np.maximum(high - low, 1e-6)
    label = next((organ.label for organ in ORGANS if organ.name == mesh.name), 0)
    return {
        "label": label,
        "rgb": mesh.rgb,
        "points": _base64(_padded(np.round(share * 65535)).astype("<u2")),
        "normals": _base64(_padded(np.round(mesh.normals * 127)).astype("i1")),
        "triangles": _base64(mesh.triangles.astype("<u2")),
    }


def _padded(rows: NDArray[Any]) -> NDArray[Any]:
    """A fourth column: graphics hardware wants elements to begin at multiples of four bytes."""
    return np.pad(rows, ((0, 0), (0, 1)))


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
