"""A tiny cohort in HaN-Seg's layout: a soft block of tissue with denser organs in it, the left one on the left (+x)."""

import numpy as np
import pytest
import SimpleITK as sitk

from hnseg.image.files import write_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg_training.config import CohortConfig

GRID = Grid((30, 34, 20), (4.0, 4.0, 5.0), (-60.0, -66.0, -40.0))
ORGANS = ("Parotid_R", "Arytenoid", "Parotid_L")


def write(folder, *, organs=ORGANS, mr=True):
    """Organ n is a block at columns 4 + 7n to 9 + 7n; the MR shows the same."""
    folder.mkdir(parents=True)
    ct = np.full(GRID.shape_kji, -1000, np.int16)
    ct[2:18, 5:29, 3:27] = 30
    masks = {name: np.zeros(GRID.shape_kji, np.uint8) for name in organs}
    for n, mask in enumerate(masks.values()):
        mask[6:12, 10:18, 4 + 7 * n : 10 + 7 * n] = 1
        ct[mask > 0] = 90 + 50 * n
    write_volume(Volume(ct, GRID), folder / f"{folder.name}_IMG_CT.nrrd")
    for name, mask in masks.items():
        write_volume(Volume(mask, GRID), folder / f"{folder.name}_OAR_{name}.seg.nrrd")
    if mr:
        write_volume(Volume(ct + 1100, GRID), folder / f"{folder.name}_IMG_MR_T1.nrrd")
        sitk.WriteTransform(sitk.Euler3DTransform(), str(folder / f"{folder.name}_TRUTH_CT_TO_MR.tfm"))
    return folder


@pytest.fixture(scope="session")
def write_patient():
    """``write_patient(folder, organs=, mr=)``."""
    return write


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory):
    """Two patients: one with everything, one without MR and with one organ less drawn."""
    folder = tmp_path_factory.mktemp("cohort")
    write(folder / "case_01")
    write(folder / "case_02", mr=False, organs=ORGANS[:2])
    return CohortConfig(source="hanseg", path=str(folder))
