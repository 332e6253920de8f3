"""Real Slicer MRML, without Qt and without a display: slicer-core (`pip install -e '.[mrml]'`)."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume


@pytest.fixture
def scene():
    scene = slicer.vtkMRMLScene()
    segmentations = slicer.vtkSlicerSegmentationsModuleLogic()  # registers nodes and conversion rules
    segmentations.SetMRMLScene(scene)
    colours = slicer.vtkMRMLColorLogic()
    colours.SetMRMLScene(scene)
    yield scene
    colours.SetMRMLScene(None)
    segmentations.SetMRMLScene(None)
    scene.Clear(True)


def rotation(axis, degrees):
    """Rodrigues; kept apart from the code under test."""
    unit = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    x, y, z = unit
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


OBLIQUE = rotation((1, -2, 0.5), 33)
GRIDS = {
    "oblique": Grid((7, 5, 3), (1, 2, 3), (11.5, -23.25, 1031.125), tuple(OBLIQUE.ravel())),
    "left-handed": Grid((7, 5, 3), (0.56, 0.7, 2.5), (-80, 4, -7), tuple((OBLIQUE * (1, 1, -1)).ravel())),
    "axes permuted": Grid((7, 5, 3), (3, 1.25, 0.5), (0.1, 0.2, 0.3), (0, 0, 1, 1, 0, 0, 0, 1, 0)),
}


@pytest.fixture(params=GRIDS)
def grid(request):
    return GRIDS[request.param]


@pytest.fixture
def volume(grid):
    return Volume(np.arange(grid.voxels, dtype=np.int16).reshape(grid.shape_kji) - 40, grid)


@pytest.fixture
def oblique():
    return OBLIQUE
