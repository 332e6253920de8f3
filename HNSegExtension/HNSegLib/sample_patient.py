"""A phantom patient to try HNSeg with: drawn on the spot, without any download. No Qt."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import slicer

from hnseg.phantom import draw_patient, render
from HNSegLib.volumes import add_volume

SEED = 7
CT_SPACING_MM = (2.5, 2.5, 3.0)
MR_SPACING_MM = (1.5, 1.5, 4.0)
"""Coarse, so that drawing takes seconds."""


def add_sample_patient(
    scene: slicer.vtkMRMLScene,
    *,
    ct_spacing_mm: tuple[float, float, float] = CT_SPACING_MM,
    mr_spacing_mm: tuple[float, float, float] = MR_SPACING_MM,
    on_progress: Callable[[float, str], None] = lambda fraction, text: None,
) -> tuple[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLScalarVolumeNode]:
    """CT and T1 MR of a procedural patient as new nodes, far apart as two scanners leave them.

    ``on_progress`` may raise ``Cancelled``; nothing is added then.
    """
    case = render(
        draw_patient(np.random.default_rng(SEED)),
        ct_spacing_mm=ct_spacing_mm,
        mr_spacing_mm=mr_spacing_mm,
        on_progress=on_progress,
    )
    images = {"Phantom CT": case.ct, "Phantom T1": case.mr}
    ct, mr = (add_volume(scene, image, name) for name, image in images.items() if image is not None)
    return ct, mr
