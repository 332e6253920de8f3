"""An asymmetric, oblique, anisotropic phantom for image tests, and where the real data lies."""

from __future__ import annotations

import numpy as np
import pytest
from real_data import real_data

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume

COSINE, SINE = 0.8, 0.6  # a turn about z with exact cosines: 3-4-5

# columns: i → (0.8, 0.6, 0), j → (−0.6, 0.8, 0), k → z
OBLIQUE = (COSINE, -SINE, 0.0, SINE, COSINE, 0.0, 0.0, 0.0, 1.0)
# the same with k pointing down: left-handed
LEFT_HANDED = (COSINE, -SINE, 0.0, SINE, COSINE, 0.0, 0.0, 0.0, -1.0)


@pytest.fixture
def oblique_grid():
    """7 × 5 × 3 voxels of 1 × 2 × 3 mm."""
    return Grid((7, 5, 3), (1.0, 2.0, 3.0), (10.0, -20.0, 30.0), OBLIQUE)


@pytest.fixture
def oblique(oblique_grid):
    """Every voxel has a value of its own."""
    values = np.arange(oblique_grid.voxels, dtype=np.int16).reshape(oblique_grid.shape_kji) - 50
    return Volume(values, oblique_grid)


@pytest.fixture
def shared_data():
    """``../shared/data`` beside the checkout; the test is skipped, saying so, where it is absent."""
    return real_data()
