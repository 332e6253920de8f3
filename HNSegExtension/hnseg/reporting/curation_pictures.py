"""Two pictures of a curated case: its organs, and CT and MR in a checkerboard."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hnseg.curation.case import CuratedCase
from hnseg.image.resample import resample
from hnseg.reporting.pictures import fusion_picture, jpeg, montage, plane_picture
from hnseg.reporting.views import Plane, Views, best_index, make_views

ORGANS_PICTURE, FUSION_PICTURE = "organs.jpg", "fusion.jpg"
_PIXELS = 360
"""About how wide and high a slice is drawn, so that coarse CTs can be looked at too."""


def case_pictures(case: CuratedCase) -> dict[str, bytes]:
    """File name → JPEG: axial, coronal and sagittal slices with the most organs; the second one only with an MR."""
    views = _views(case)
    zoom = max(1, round(_PIXELS / max(views.grid.size_ijk)))
    organs = [plane_picture(views, plane, best_index(views.labels, plane), zoom=zoom) for plane in Plane]
    pictures = {ORGANS_PICTURE: jpeg(montage(organs, columns=3))}
    if views.mr_valid is not None and views.mr_valid.any():
        seen = views.mr_valid * (views.labels if views.labels.any() else np.uint8(1))
        boards = [fusion_picture(views, plane, best_index(seen, plane), zoom=zoom) for plane in Plane]
        pictures[FUSION_PICTURE] = jpeg(montage(boards, columns=3))
    return pictures


def _views(case: CuratedCase) -> Views:
    labels = case.structures.labels
    if case.mr is None:
        return make_views(case.ct, labels)
    views = make_views(case.ct, labels, mr=case.mr.image)
    reach = case.mr.image.with_array(case.mr.valid.astype(np.uint8))
    return replace(views, mr_valid=resample(reach, views.grid, interpolation="nearest").array_kji > 0)
