"""A tiny patient and a tiny model with random weights: every path of the engine, in seconds."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hnseg.image.files import write_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.models.bundle import write_bundle
from hnseg.models.metadata import BundleMetadata, NetworkSettings
from hnseg.models.networks import build_network
from hnseg.models.places import MODELS_VARIABLE
from hnseg.organs import ORGANS
from hnseg.preprocessing import PreprocessSettings

TILT = np.radians(7.0)
CT_GRID = Grid(
    (40, 44, 36),
    (4.0, 4.0, 5.0),
    (-80.0, -120.0, 300.0),
    (1, 0, 0, 0, np.cos(TILT), -np.sin(TILT), 0, np.sin(TILT), np.cos(TILT)),
)
MR_GRID = Grid((30, 34, 22), (4.5, 4.5, 6.0), (-66.0, -105.0, 330.0))
NETWORK = NetworkSettings(
    "subpixel_unet", {"in_channels": 4, "out_channels": 31, "filters": [8, 8, 8], "factor": [2, 2, 2]}
)


def head(grid: Grid, *, air: float, tissue: float, bone: float, noise: float) -> Volume:
    """An egg of tissue with a skull and an airway off its middle, the same in the patient's space on any grid."""
    k, j, i = np.indices(grid.shape_kji)
    x, y, z = np.moveaxis(grid.to_lps(np.stack([i, j, k], axis=-1)) - (2.0, -30.0, 385.0), -1, 0)
    radius = np.sqrt((x / 60) ** 2 + (y / 70) ** 2 + (z / 80) ** 2)
    values = np.where(radius < 1, tissue, air)
    values[(radius > 0.8) & (radius < 0.92) & (z > -10)] = bone
    values[((x - 8) ** 2 + (y + 15) ** 2 < 100) & (z < 0) & (radius < 0.8)] = air
    values = values + np.random.default_rng(1).normal(0, noise, values.shape)
    return Volume(np.round(values).astype(np.int16), grid)


@pytest.fixture(scope="session")
def ct() -> Volume:
    """A head in HU on an oblique grid."""
    return head(CT_GRID, air=-1000, tissue=40, bone=900, noise=12)


@pytest.fixture(scope="session")
def mr() -> Volume:
    """The same head in T1, on a smaller grid of its own, in the same frame."""
    return head(MR_GRID, air=15, tissue=420, bone=60, noise=12)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory, ct: Volume, mr: Volume) -> Path:
    """A folder with ct.nrrd, mr.nrrd and identity.tfm."""
    import SimpleITK as sitk

    folder = tmp_path_factory.mktemp("images")
    write_volume(ct, folder / "ct.nrrd")
    write_volume(mr, folder / "mr.nrrd")
    sitk.WriteTransform(sitk.Euler3DTransform(), str(folder / "identity.tfm"))
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of random weights, under the shipped one's name."""
    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("models")
    metadata = BundleMetadata(
        name="hnseg-base",
        title="Random weights",
        version="0.0.1",
        licence="Apache-2.0",
        training_data="nothing",
        network=NETWORK,
        preprocess=PreprocessSettings(spacing_mm=(8.0, 8.0, 8.0)),
        patch_kji=(16, 24, 24),
        overlap=0.25,
        labels=("background", *(organ.name for organ in ORGANS)),
        taught_by={"Lips": ("phantom",), "Parotid_L": ("phantom", "patient")},
    )
    network = build_network(NETWORK.name, **NETWORK.arguments)
    write_bundle(
        folder / metadata.name, metadata=metadata, state_dict=network.state_dict(), card="# Random\n", licence_text="-"
    )
    return folder


@pytest.fixture(autouse=True)
def _tiny_model(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model is the one that every door finds, child processes included. Each has one thread: two add in
    another order, and a random network has voxels where that decides.
    """
    monkeypatch.setenv(MODELS_VARIABLE, str(models))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
