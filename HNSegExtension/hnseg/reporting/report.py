"""Writes the report folder: ``report.html`` and its pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from hnseg.errors import OutputError, UnsupportedImage
from hnseg.image.body import body_mask
from hnseg.image.volume import Volume
from hnseg.reporting.meshes import Mesh, organ_meshes, render, surface
from hnseg.reporting.page import Figure, page
from hnseg.reporting.payload import viewer_data
from hnseg.reporting.pictures import fusion_picture, montage, plane_picture, png
from hnseg.reporting.record import RunRecord
from hnseg.reporting.views import Plane, Views, best_index, make_views, spread_indices

PAGE = "report.html"

_SKIN_MM = 4.0
_SKIN_BELOW_MM = 45.0


@dataclass(frozen=True, slots=True, eq=False)
class ReportImages:
    """What the pictures are made of; labels and reference are label maps, the transform maps CT to MR points."""

    ct: Volume
    labels: Volume
    mr: Volume | None = None
    ct_to_mr: sitk.Transform | None = None
    reference: Volume | None = None


def write_run_report(
    folder: str | Path,
    record: RunRecord,
    images: ReportImages,
    *,
    on_progress: Callable[[float, str], None] | None = None,
) -> Path:
    """Write the page and its pictures into a folder, made if need be; returns the page. Raises ``OutputError``."""
    say = on_progress or (lambda _fraction, _text: None)
    folder = Path(folder)
    say(0.0, "Drawing slices")
    views = make_views(images.ct, images.labels, mr=images.mr, ct_to_mr=images.ct_to_mr, reference=images.reference)
    pictures = {**_slices(views), **_fusion(views)}
    say(0.5, "Drawing surfaces")
    meshes, skin = organ_meshes(images.labels), _skin(images.ct, images.labels)
    pictures["surfaces"] = [_surfaces(meshes, skin)]
    say(0.9, "Writing the report")
    figures: dict[str, list[Figure]] = {
        section: [(f"{section}-{n}.png", caption) for n, (_, caption) in enumerate(drawn, 1)]
        for section, drawn in pictures.items()
    }
    html = page(record, figures, viewer_data(views, meshes, skin, record.organs))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for section, drawn in pictures.items():
            for (name, _), (picture, _) in zip(figures[section], drawn, strict=True):
                (folder / name).write_bytes(png(picture))
        (folder / PAGE).write_text(html, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"The report cannot be written to {folder} ({error.strerror}); choose another.") from error
    say(1.0, "Report written")
    return folder / PAGE


Drawn = tuple[NDArray[np.uint8], str]


def _slices(views: Views) -> dict[str, list[Drawn]]:
    main = [plane_picture(views, plane, best_index(views.labels, plane)) for plane in Plane]
    axial = [plane_picture(views, Plane.AXIAL, n) for n in spread_indices(views.labels, Plane.AXIAL, 8)]
    hint = "; dashed white: the reference" if views.reference is not None else ""
    return {
        "slices": [
            (montage(main, columns=3), f"Axial, coronal and sagittal slice with the most organs{hint}."),
            (montage(axial, columns=4), f"Axial slices from the lowest to the highest organ{hint}."),
        ]
    }


def _fusion(views: Views) -> dict[str, list[Drawn]]:
    if views.mr is None or views.mr_valid is None or not views.mr_valid.any():
        return {}
    valid = views.mr_valid.astype(np.uint8) * views.labels
    boards = [fusion_picture(views, plane, best_index(valid, plane)) for plane in Plane]
    return {"fusion": [(montage(boards, columns=3), "CT and MR in turn, squares of 25 mm; edges should run through.")]}


def _surfaces(meshes: tuple[Mesh, ...], skin: Mesh | None) -> Drawn:
    views = [render(meshes, azimuth_deg=azimuth, skin=skin) for azimuth in (0.0, 40.0, 90.0, 180.0)]
    return montage(views, columns=4), "From the front, half left, the patient's left, and the back."


def _skin(ct: Volume, labels: Volume) -> Mesh | None:
    """The body's surface, without what lies far below the organs; None when no body is found."""
    try:
        body = body_mask(ct)
    except UnsupportedImage:
        return None
    organs = np.argwhere(labels.array_kji)[:, ::-1]
    if len(organs):
        lowest = labels.grid.to_lps(organs)[:, 2].min() - _SKIN_BELOW_MM
        first = int(
            np.clip(np.ceil(body.grid.to_ijk([*body.grid.centre_lps[:2], lowest])[2]), 0, body.grid.size_ijk[2] - 1)
        )
        i, j, k = body.grid.size_ijk
        body = body.cropped((0, 0, first), (i, j, k - first))
    return surface(body, spacing_mm=_SKIN_MM, name="skin", rgb=(214, 188, 168))
