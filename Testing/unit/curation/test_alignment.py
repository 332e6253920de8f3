"""What a verdict, and a person's word against it, do to the MR of a case."""

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from hnseg.curation import alignment
from hnseg.curation.alignment import align, mr_on
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.registration import Bending, DeformableRegistration, Quality

GRID = Grid((6, 5, 4), (2.0, 3.0, 4.0), (-5.0, 7.0, 100.0))
VOLUME = Volume(np.arange(120, dtype=np.int16).reshape(4, 5, 6), GRID)
SHIFT = sitk.TranslationTransform(3, (4.0, 0.0, 0.0))


@pytest.fixture
def engine(monkeypatch):
    """An engine with the verdict that it is told to give."""

    def says(verdict):
        found = SimpleNamespace(transform=SHIFT, verdict=verdict, reason="Because.", metrics={"edges": 0.5})
        monkeypatch.setattr(alignment, "_ENGINES", {"rigid": lambda ct, mr, on_progress: found})

    return says


@pytest.mark.parametrize(
    ("verdict", "overruled", "used"),
    [
        ("good", None, True), ("doubtful", None, True), ("failed", None, False),
        ("good", "rejected", False), ("failed", "accepted", True), ("doubtful", "accepted", True),
    ],
)  # fmt: skip
def test_the_check_decides_and_a_person_can_overrule_it(engine, verdict, overruled, used):
    engine(verdict)
    record = align(VOLUME, VOLUME, "rigid", overruled=overruled, on_progress=lambda *_: None).record
    assert (record.verdict, record.used, record.overruled, record.metrics) == (verdict, used, overruled, {"edges": 0.5})


def test_without_a_registration_the_frame_is_shared_and_the_verdict_doubtful():
    found = align(VOLUME, VOLUME, "none", on_progress=lambda *_: None)
    assert found.transform.TransformPoint((1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)
    assert (found.record.verdict, found.record.used) == ("doubtful", True)


def test_the_mr_is_taken_where_the_transform_says_and_masked_where_it_does_not_reach():
    """CT points plus 4 mm in x are MR points: two columns further, and the last two see nothing."""
    moved, valid = mr_on(VOLUME, GRID, SHIFT)
    assert np.array_equal(moved.array_kji[:, :, :4], VOLUME.array_kji[:, :, 2:])
    assert valid[:, :, :4].all()
    assert not valid[:, :, 4:].any()
    assert (moved.array_kji[:, :, 4:] == 0).all()
    assert moved.array_kji.dtype == np.float32


def test_a_zero_that_was_scanned_is_valid():
    _, valid = mr_on(VOLUME.with_array(np.zeros_like(VOLUME.array_kji)), GRID, sitk.Transform(3, sitk.sitkIdentity))
    assert valid.all()


@pytest.mark.parametrize("used", [True, False])
def test_a_bent_registration_says_what_bending_did(monkeypatch, used):
    bending = Bending(used, "Bending raises the mutual information by 3.1%.", 0.0312345678, 4.5, 0.93)
    quality = Quality(1.0, 0.9, 140.0, 0.3, 0.7, 0.7, 0.9, 0.2, 0.2, 1.0, 178.0)
    found = DeformableRegistration(SHIFT, "good", "It fits.", quality, 1.0, SHIFT, bending)
    monkeypatch.setattr(alignment, "_ENGINES", {"deformable": lambda ct, mr, on_progress: found})
    record = align(VOLUME, VOLUME, "deformable", on_progress=lambda *_: None).record
    said = "" if used else "It stays rigid. "
    assert record.reason == f"It fits. {said}Bending raises the mutual information by 3.1%."
    bent = {name: value for name, value in record.metrics.items() if name.startswith("bending_")}
    assert bent == {"bending_gain": 0.031235, "bending_largest_mm": 4.5, "bending_smallest_jacobian": 0.93}
    assert (record.method, record.used, record.metrics["edges"]) == ("deformable", True, quality.edges)
