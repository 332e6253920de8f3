"""The phantom patient that anybody can try HNSeg with."""

import pytest

from hnseg.errors import Cancelled
from HNSegLib.sample_patient import add_sample_patient
from HNSegLib.volumes import grid_of, likely_ct

COARSE = {"ct_spacing_mm": (6.0, 6.0, 8.0), "mr_spacing_mm": (6.0, 6.0, 9.0)}


def test_the_patient_is_a_ct_and_an_mr_of_two_scanners(scene):
    said = []
    ct, mr = add_sample_patient(scene, **COARSE, on_progress=lambda fraction, text: said.append((fraction, text)))
    assert (ct.GetName(), mr.GetName()) == ("Phantom CT", "Phantom T1")
    assert grid_of(ct).spacing_mm == (6.0, 6.0, 8.0)
    assert not grid_of(mr).is_close(grid_of(ct))
    assert likely_ct(scene) is ct
    assert said[-1] == (1.0, "Painting the MR")


def test_a_cancelled_patient_leaves_nothing_in_the_scene(scene):
    def stop(fraction, text):
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        add_sample_patient(scene, **COARSE, on_progress=stop)
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
