"""Head and neck found in a long scan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from hnseg.image.grid import Grid
from hnseg.image.orient import canonical
from hnseg.image.volume import Volume
from hnseg.inference.locate import _elected, head_and_neck
from hnseg.inference.segment import segment
from hnseg.models.bundle import Bundle
from hnseg.models.metadata import BundleMetadata, NetworkSettings
from hnseg.organs import BY_NAME
from hnseg.preprocessing import PreprocessSettings

TURN = Rotation.from_euler("xyz", [4, -3, 6], degrees=True).as_matrix() @ np.diag([1, -1, -1])
GRID = Grid((40, 36, 150), (8.0, 8.0, 8.0), (-150.0, 140.0, 2000.0), tuple(TURN.ravel()))  # 1200 mm, k towards the feet
CENTRES = {"Brainstem": (0.0, 20.0, 20.0), "Lips": (0.0, -60.0, -30.0), "Glottis": (0.0, -30.0, -130.0)}
HU = {"Brainstem": 150.0, "Lips": 300.0, "Glottis": 450.0}
METADATA = BundleMetadata(
    name="by-brightness",
    title="-",
    version="1",
    licence="-",
    training_data="-",
    network=NetworkSettings("subpixel_unet"),
    preprocess=PreprocessSettings(spacing_mm=(8.0, 8.0, 8.0), ct_windows_hu=((0.0, 600.0),)),
    patch_kji=(8, 16, 16),
    labels=("background", *CENTRES),
    organ_centres_mm=CENTRES,
)
HEAD_LPS = GRID.to_lps((20, 17, 30))


class ByBrightness(nn.Module):
    """Each organ is what has its HU, to within 60; counts the windows that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.windows = 0

    def forward(self, image: Tensor) -> Tensor:
        self.windows += len(image)
        hu = image[:, 0] * 300 + 300
        logits = [5 - ((hu - value) / 27) ** 2 for value in HU.values()]
        return torch.stack([torch.zeros_like(hu), *logits], dim=1)


def scan(*, decoys: bool = True, head: bool = True) -> Volume:
    """A body with three organs in the head and neck, and things as bright as each of them in the trunk."""
    k, j, i = np.indices(GRID.shape_kji)
    hu = np.where(((i - 20) / 15) ** 2 + ((j - 17) / 13) ** 2 < 1, 0.0, -1000.0)
    points = GRID.to_lps(np.stack([i, j, k], axis=-1))

    def ball(at: np.ndarray, value: float) -> None:
        hu[np.linalg.norm(points - at, axis=-1) < 26] = value

    for n, (name, value) in enumerate(HU.items()):
        if head:
            ball(HEAD_LPS + CENTRES[name], value)
        if decoys:
            ball(GRID.to_lps((20, 17, 80 + 22 * n)), value)
    return Volume(hu, GRID)


def run(ct: Volume, metadata: BundleMetadata = METADATA) -> tuple[np.ndarray, int, tuple[str, ...]]:
    network = ByBrightness()
    result = segment(ct, bundle=Bundle(Path("nowhere"), metadata), networks=(network,))
    return result.labels.array_kji, network.windows, result.warnings


def test_only_the_head_and_neck_of_a_long_scan_are_looked_at_closely() -> None:
    ct = scan()
    found, few, warnings = run(ct)
    everywhere, many, _ = run(ct, replace(METADATA, organ_centres_mm={}))
    assert few < 0.6 * many
    assert any("only the head and neck" in warning for warning in warnings)
    true, _, _ = run(scan(decoys=False), replace(METADATA, organ_centres_mm={}))
    for name in HU:
        label = BY_NAME[name].label
        assert (found == label).sum() > 100
        np.testing.assert_array_equal(found == label, true == label)
    assert (everywhere[75:] > 0).any(), "the trunk holds something to be mistaken"
    assert not found[75:].any()


def test_the_part_keeps_the_grid_and_reaches_beyond_every_organ() -> None:
    shown = head_and_neck(scan(), METADATA, lambda given, grid: glance(given.array_ckji, grid))
    whole = canonical(scan()).grid
    assert shown.grid.size_ijk[:2] == whole.size_ijk[:2]
    assert 40 < shown.grid.size_ijk[2] < 70
    offset = whole.to_ijk(shown.grid.origin_lps)
    np.testing.assert_allclose(offset, np.rint(offset), atol=1e-6)
    low, high = shown.grid.bounds_lps()
    for centre in CENTRES.values():
        z = HEAD_LPS[2] + centre[2]
        assert low[2] + 90 < z < high[2] - 90


def glance(array_ckji: np.ndarray, grid: Grid):  # type: ignore[no-untyped-def]
    from hnseg.inference.predictor import Prediction

    with torch.inference_mode():
        winner = ByBrightness()(torch.from_numpy(array_ckji)[None])[0].argmax(dim=0).numpy()
    labels = np.array(METADATA.label_values, np.uint8)[winner]
    return Prediction(Volume(labels, grid), {}, None, 1, "cpu", "float32")


def test_a_long_scan_without_a_head_is_looked_at_from_end_to_end() -> None:
    ct = scan(head=False)
    assert head_and_neck(ct, METADATA, lambda given, grid: glance(given.array_ckji, grid)) is ct


def test_a_short_scan_costs_no_glance() -> None:
    ct = scan().cropped((0, 0, 20), (40, 36, 50))
    assert head_and_neck(ct, METADATA, lambda *_: pytest.fail("asked")) is ct


def test_two_organs_must_agree_on_a_place() -> None:
    assert _elected([]) is None
    assert _elected([(np.array([0.0, 1.0]), 0.5), (np.array([500.0]), 1.0)]) is None
    assert _elected([(np.array([0.0, 10.0]), 0.5), (np.array([12.0]), 1.0), (np.array([500.0]), 1.0)]) == 10.0
