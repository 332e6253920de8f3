"""One patient end to end, with networks whose answer is known: a bright ball in the CT, another in the MR."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from hnseg.errors import Cancelled, ConfigError, DeviceError, UnknownOrgan, WrongModality
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.inference import segment as room
from hnseg.inference.postprocess import FAR, Removal
from hnseg.inference.second_look import SecondLook
from hnseg.inference.segment import SegmentOptions, SegmentResult, segment
from hnseg.models.bundle import Bundle
from hnseg.models.metadata import BundleMetadata, FineStage, NetworkSettings
from hnseg.preprocessing import PreprocessSettings

TURN = Rotation.from_euler("xyz", [6, -4, 9], degrees=True).as_matrix()
CT_GRID = Grid((48, 44, 40), (4.0, 4.0, 4.0), (-110.0, 60.0, -900.0), tuple(TURN.ravel()))
CENTRE = CT_GRID.centre_lps
STEM_AT = np.add(CENTRE, (10.0, 5.0, 12.0))
LIPS_AT = np.add(CENTRE, (-20.0, -25.0, -10.0))
SHIFT = np.array([400.0, -300.0, 90.0])  # CT points + shift = MR points: an MR with a far origin
BUNDLE = Bundle(
    Path("nowhere"),
    BundleMetadata(
        name="known-answer",
        title="-",
        version="1",
        licence="-",
        training_data="-",
        network=NetworkSettings("subpixel_unet"),
        preprocess=PreprocessSettings(spacing_mm=(4.0, 5.0, 6.0), ct_windows_hu=((-160.0, 240.0),)),
        patch_kji=(16, 16, 16),
        labels=("background", "Brainstem", "Lips"),
    ),
)


class KnownAnswer(nn.Module):
    """The brainstem is where the CT is above 160 HU, the lips where the MR is bright and valid."""

    def forward(self, image: Tensor) -> Tensor:
        ct, mr, valid = image.unbind(dim=1)
        return torch.stack([torch.zeros_like(ct), 20 * (ct - 0.6), 20 * (mr - 1.0) * valid - 10 * (1 - valid)], dim=1)


def ball(grid: Grid, centre_lps: np.ndarray, radius_mm: float) -> np.ndarray:
    k, j, i = np.indices(grid.shape_kji)
    points = grid.to_lps(np.stack([i, j, k], axis=-1))
    return np.asarray(np.linalg.norm(points - centre_lps, axis=-1) <= radius_mm)


def ct() -> Volume:
    hu = np.full(CT_GRID.shape_kji, -1000.0, np.float32)
    hu[ball(CT_GRID, CENTRE, 68.0)] = 30.0
    hu[ball(CT_GRID, STEM_AT, 17.0)] = 330.0
    return Volume(hu + np.random.default_rng(0).normal(0, 3, hu.shape).astype(np.float32), CT_GRID)


def mr() -> Volume:
    grid = Grid((30, 34, 32), (5.0, 4.0, 4.0), tuple(CENTRE + SHIFT - (72.0, 66.0, 62.0)))
    signal = np.full(grid.shape_kji, 2.0)
    signal[ball(grid, CENTRE + SHIFT, 60.0)] = 100.0
    signal[ball(grid, LIPS_AT + SHIFT, 18.0)] = 260.0
    return Volume(signal + np.random.default_rng(1).normal(0, 2, signal.shape), grid)


def ct_to_mr() -> sitk.Transform:
    return sitk.TranslationTransform(3, SHIFT.tolist())


def run(with_mr: bool = False, **options: Any) -> SegmentResult:
    return segment(ct(), mr() if with_mr else None, bundle=BUNDLE, networks=(KnownAnswer(),), **options)


def test_a_class_that_nothing_taught_takes_no_voxel_of_the_result() -> None:
    bundle = replace(BUNDLE, metadata=replace(BUNDLE.metadata, trained_organs=("Lips",)))
    result = segment(ct(), bundle=bundle, networks=(KnownAnswer(),))
    assert not result.labels.array_kji.any()
    assert {finding.organ: finding.status for finding in result.organs}["Brainstem"] == "not trained"


def registration(verdict: str) -> Callable[..., Any]:
    def found(*_images: Volume, on_progress: Callable[[float, str], None]) -> Any:
        on_progress(0.5, "Searching")
        return SimpleNamespace(transform=ct_to_mr(), verdict=verdict, reason="planted by the test.")

    return found


def centroid(result: SegmentResult, label: int) -> np.ndarray:
    k, j, i = np.nonzero(result.labels.array_kji == label)
    return result.labels.grid.to_lps(np.stack([i, j, k], axis=1)).mean(axis=0)


def test_a_ct_alone_gives_the_organ_at_its_place_and_volume_on_the_cts_own_grid() -> None:
    result = run()
    assert result.labels.grid == CT_GRID
    assert result.labels.array_kji.dtype == np.uint8
    np.testing.assert_allclose(centroid(result, 5), STEM_AT, atol=1.0)
    assert result.volumes_ml["Brainstem"] == pytest.approx(4 / 3 * np.pi * 1.7**3, rel=0.15)
    assert result.ct_to_mr is None
    assert result.mr_coverage == 0.0
    assert set(result.seconds) == {"checks", "location", "preprocessing", "model", "prediction", "postprocessing"}


def test_a_known_transform_places_the_mr_and_no_registration_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "register_rigid", None)
    result = run(with_mr=True, ct_to_mr=ct_to_mr())
    np.testing.assert_allclose(centroid(result, 23), LIPS_AT, atol=1.5)
    assert result.registration is None
    assert 0.6 < result.mr_coverage <= 1.0


@pytest.mark.parametrize(("verdict", "said"), [("good", ""), ("doubtful", "is doubtful"), ("failed", "was not used")])
def test_the_mr_is_used_unless_its_registration_failed(
    monkeypatch: pytest.MonkeyPatch, verdict: str, said: str
) -> None:
    monkeypatch.setattr(room, "register_rigid", registration(verdict))
    result = run(with_mr=True)
    assert ("Lips" in result.volumes_ml) == (verdict != "failed")
    assert (result.ct_to_mr is None) == (verdict == "failed")
    assert "Brainstem" in result.volumes_ml
    told = [warning for warning in result.warnings if "planted by the test" in warning]
    assert len(told) == bool(said)
    assert all(said in warning for warning in told)


def test_an_mr_that_shows_another_place_is_said_to_have_had_no_part() -> None:
    result = run(with_mr=True, ct_to_mr=sitk.TranslationTransform(3, [5000.0, 0.0, 0.0]))
    assert "Lips" not in result.volumes_ml
    assert any("shows nothing of the body" in warning for warning in result.warnings)


def test_only_the_organs_asked_for_come_out() -> None:
    options = SegmentOptions(organs=("lips", "Brainstem"))
    result = run(with_mr=True, ct_to_mr=ct_to_mr(), options=options)
    assert [finding.organ for finding in result.organs] == ["Brainstem", "Lips"]
    alone = run(with_mr=True, ct_to_mr=ct_to_mr(), options=SegmentOptions(organs=("Lips",)))
    assert set(np.unique(alone.labels.array_kji)) == {0, 23}
    np.testing.assert_array_equal(alone.labels.array_kji == 23, result.labels.array_kji == 23)


def test_organs_that_the_model_does_not_know_are_listed_as_not_trained() -> None:
    statuses = {finding.organ: finding.status for finding in run().organs}
    assert len(statuses) == 30
    assert statuses["Parotid_L"] == "not trained"
    assert statuses["Lips"] == "absent"


def test_confidence_is_high_inside_and_lower_on_the_boundary() -> None:
    sure = run().confidence["Brainstem"]
    assert 0.5 < sure.boundary < sure.mean <= 1.0


def test_a_network_without_sides_says_the_same_with_the_mirror() -> None:
    plain, mirrored = run(), run(options=SegmentOptions(mirror=True))
    np.testing.assert_array_equal(mirrored.labels.array_kji, plain.labels.array_kji)


def test_an_uncertainty_map_comes_on_request_and_is_highest_at_the_organs_border() -> None:
    assert run().uncertainty is None
    uncertainty = run(options=SegmentOptions(uncertainty=True)).uncertainty
    assert uncertainty is not None
    k, j, i = np.unravel_index(uncertainty.array_kji.argmax(), uncertainty.array_kji.shape)
    assert np.linalg.norm(uncertainty.grid.to_lps([i, j, k]) - STEM_AT) == pytest.approx(17.0, abs=6.0)


class FineAnswer(nn.Module):
    """The brainstem is where the CT is above 160 HU; lips are what the finer network is sure of, and wrong about."""

    def forward(self, image: Tensor) -> Tensor:
        ct = image[:, 0]
        return torch.stack([torch.zeros_like(ct), 20 * (ct - 0.6), torch.full_like(ct, -30.0)], dim=1)


FINE = FineStage(
    name="fine",
    network=NetworkSettings("subpixel_unet"),
    preprocess=PreprocessSettings(spacing_mm=(2.0, 2.0, 2.0), ct_windows_hu=((-160.0, 240.0),)),
    patch_kji=(16, 16, 16),
    labels=("background", "Brainstem", "Lips"),
    organs=("Brainstem",),
)
TWO_LOOKS = Bundle(BUNDLE.folder, replace(BUNDLE.metadata, stages=(FINE,)))


def look_twice(with_mr: bool = False, **options: Any) -> SegmentResult:
    networks = (KnownAnswer(), FineAnswer())
    return segment(ct(), mr() if with_mr else None, bundle=TWO_LOOKS, networks=networks, **options)


def test_an_mr_that_the_model_does_not_take_is_left_out_and_a_warning_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "register_rigid", None)
    alone = replace(BUNDLE.metadata, preprocess=replace(BUNDLE.metadata.preprocess, takes_mr=False))
    bundle = Bundle(BUNDLE.folder, alone)
    result = segment(ct(), mr(), bundle=bundle, networks=(KnownAnswer(),))
    assert "The MR was left out, since the model known-answer was trained on CT alone." in result.warnings
    assert (result.ct_to_mr, result.mr_coverage) == (None, 0.0)
    np.testing.assert_array_equal(result.labels.array_kji, run().labels.array_kji)
    assert not [said for said in segment(ct(), bundle=bundle, networks=(KnownAnswer(),)).warnings if "MR" in said]


def test_a_second_look_on_a_finer_grid_decides_its_organ_and_leaves_the_others() -> None:
    once, twice = run(True, ct_to_mr=ct_to_mr()), look_twice(True, ct_to_mr=ct_to_mr())
    truth = ball(CT_GRID, STEM_AT, 17.0)

    def wrong(result: SegmentResult) -> int:
        return int(((result.labels.array_kji == 5) != truth).sum())

    assert wrong(twice) < 0.5 * wrong(once)
    np.testing.assert_array_equal(twice.labels.array_kji == 23, once.labels.array_kji == 23)
    assert twice.confidence["Brainstem"] != once.confidence["Brainstem"]
    assert twice.confidence["Lips"] == once.confidence["Lips"]
    assert twice.seconds["second look"] >= 0


def test_a_second_look_is_left_out_where_its_organs_are_not_wanted() -> None:
    options = SegmentOptions(organs=("Lips",))
    networks = (KnownAnswer(), nn.Identity())  # the latter would give another number of classes
    result = segment(ct(), mr(), ct_to_mr=ct_to_mr(), bundle=TWO_LOOKS, networks=networks, options=options)
    assert "Lips" in result.volumes_ml


def test_what_lies_far_from_its_place_is_dropped_before_the_second_look_and_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    def look(labels: Volume, *_rest: Any, **_options: Any) -> SecondLook:
        seen.append(int((labels.array_kji == 5).sum()))
        return SecondLook(labels, {}, ())

    dropped = Removal("Brainstem", 20.0, FAR)
    monkeypatch.setattr(room, "look_again", look)
    monkeypatch.setattr(room, "postprocess", lambda labels, *_rest, **_options: (without(labels, 5), (dropped,)))
    assert look_twice().removals[0] == dropped
    assert seen == [0]


def without(labels: Volume, label: int) -> Volume:
    return labels.with_array(np.where(labels.array_kji == label, 0, labels.array_kji))


def test_a_second_look_keeps_progress_rising_and_can_be_cancelled() -> None:
    seen: list[float] = []
    look_twice(on_progress=lambda fraction, _text: seen.append(fraction))
    assert seen == sorted(seen)
    assert len([fraction for fraction in seen if 0.8 < fraction < 0.92]) > 1

    def cancel(fraction: float, _text: str) -> None:
        if fraction > 0.81:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        look_twice(on_progress=cancel)


def test_progress_never_falls_and_ends_at_one_and_a_cancel_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "register_rigid", registration("good"))
    seen: list[float] = []
    run(with_mr=True, on_progress=lambda fraction, _text: seen.append(fraction))
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)

    def cancel(fraction: float, _text: str) -> None:
        if fraction > 0.5:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        run(on_progress=cancel)


def test_swapped_images_are_refused_before_anything_long() -> None:
    with pytest.raises(WrongModality, match="swap"):
        segment(mr(), ct(), bundle=BUNDLE, networks=(KnownAnswer(),))


def test_impossible_options_are_refused_when_they_are_made() -> None:
    with pytest.raises(UnknownOrgan):
        SegmentOptions(organs=("Spleen",))
    with pytest.raises(ConfigError):
        SegmentOptions(overlap=1.0)
    with pytest.raises(ConfigError):
        SegmentOptions(threads=0)
    with pytest.raises(DeviceError):
        run(options=SegmentOptions(device="cuda:77"))


def test_the_same_request_gives_the_same_voxels_and_leaves_its_input_alone() -> None:
    image = ct()
    before = image.array_kji.copy()
    first, second = (segment(image, bundle=BUNDLE, networks=(KnownAnswer(),)).labels.array_kji for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image.array_kji, before)
