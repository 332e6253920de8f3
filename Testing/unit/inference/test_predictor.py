"""The streaming predictor against the plain route: full probabilities, resample, argmax."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from hnseg.errors import Cancelled, DeviceError, GeometryMismatch, ModelError
from hnseg.image.grid import Grid
from hnseg.image.orient import canonical
from hnseg.image.resample import resample
from hnseg.image.volume import Volume
from hnseg.inference import slab
from hnseg.inference.predictor import Prediction, predict_labels
from hnseg.inference.tiles import TileSettings, importance, window_rows
from hnseg.preprocessing import NetworkInput


def rotation(degrees_x: float, degrees_y: float, degrees_z: float) -> NDArray[np.float64]:
    x, y, z = np.radians([degrees_x, degrees_y, degrees_z])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


OBLIQUE = tuple(rotation(11, -7, 19).ravel())
FEET_FIRST = tuple((rotation(5, 0, 3) @ np.diag([1, -1, -1])).ravel())
SAGITTAL_LEFT_HANDED = tuple((rotation(-4, 8, 0) @ np.array([[0, 0, -1], [1, 0, 0], [0, 1, 0]])).ravel())
CT_GRIDS = {
    "straight": Grid((21, 26, 17), (0.9, 0.9, 2.5), (-80.0, 40.0, 900.0)),
    "oblique": Grid((23, 25, 14), (0.7, 0.9, 3.0), (11.0, -7.0, -350.0), OBLIQUE),
    "feet first": Grid((20, 22, 19), (0.8, 0.6, 2.0), (5.0, 60.0, 10.0), FEET_FIRST),
    "sagittal": Grid((15, 24, 20), (2.2, 0.7, 0.8), (5.0, 60.0, 10.0), SAGITTAL_LEFT_HANDED),
}


class RandomNetwork(nn.Module):
    """A random convolution whose logits vary over space: every class wins somewhere."""

    def __init__(self, channels: int, classes: int, seed: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, classes, 3, padding=1)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0.0, 0.6, generator=generator)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.conv(image)
        return logits


def network_input(ct_grid: Grid, *, seed: int = 3, spacing: Sequence[float] = (1.3, 1.1, 2.2)) -> NetworkInput:
    """Smooth random channels on a working grid that covers a part of the CT; the body fills one side of it."""
    whole = canonical(Volume(np.zeros(ct_grid.shape_kji, np.uint8), ct_grid)).grid
    size = np.asarray(whole.size_ijk)
    grid = whole.cropped((2, 1, 0), (size - (3, 4, 2)).tolist()).respaced(spacing)
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(3, *grid.shape_kji))
    smooth = np.stack([ndimage.gaussian_filter(channel, 1.2) for channel in noise])
    body = np.zeros(grid.shape_kji, bool)
    body[:, :, : grid.size_ijk[0] // 3] = True
    return NetworkInput((smooth / smooth.std()).astype(np.float32), grid, body)


def plain_route(
    network: nn.Module, given: NetworkInput, labels: Sequence[int], output_grid: Grid, tiles: TileSettings
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Everything held at once, and resampled by SimpleITK: (labels on the output grid, working-grid probabilities)."""
    image = given.array_ckji
    missing = [(0, max(0, p - n)) for n, p in zip(image.shape[1:], tiles.patch_kji, strict=True)]
    padding = tiles.padding or (0.0,) * len(image)
    image = np.stack([np.pad(c, missing, constant_values=v) for c, v in zip(image, padding, strict=True)])
    body = np.pad(given.body_kji, missing)
    total = np.zeros((len(labels), *image.shape[1:]))
    weight = np.zeros(image.shape[1:])
    pk, pj, pi = tiles.patch_kji
    for row in window_rows(image.shape[1:], tiles, body):
        for j, i in row.starts_ji:
            box = (slice(row.k, row.k + pk), slice(j, j + pj), slice(i, i + pi))
            with torch.inference_mode():
                logits = network(torch.from_numpy(image[(slice(None), *box)].copy())[None])[0]
            total[(slice(None), *box)] += torch.softmax(logits.double(), 0).numpy() * importance(tiles.patch_kji)
            weight[box] += importance(tiles.patch_kji)
    probabilities = total / np.where(weight > 0, weight, 1)
    probabilities[0] = np.where(weight > 0, probabilities[0], 1)
    k, j, i = given.grid.shape_kji
    probabilities = probabilities[:, :k, :j, :i]
    resampled = np.stack(
        [
            resample(Volume(channel, given.grid), output_grid, fill=float(n == 0)).array_kji
            for n, channel in enumerate(probabilities)
        ]
    )
    return np.asarray(labels, np.uint8)[resampled.argmax(axis=0)], probabilities


def predict(
    given: NetworkInput, ct_grid: Grid, tiles: TileSettings, labels: Sequence[int], **options: object
) -> tuple[Prediction, NDArray[np.uint8], NDArray[np.float64]]:
    network = RandomNetwork(3, len(labels)).eval()
    options = {"labels": labels, "output_grid": ct_grid, "tiles": tiles, "precision": "full", **options}
    result = predict_labels(network, given, **options)  # type: ignore[arg-type]
    return result, *plain_route(network, given, labels, ct_grid, tiles)


@pytest.mark.parametrize("name", CT_GRIDS)
@pytest.mark.parametrize("skip", [False, True])
def test_streamed_labels_equal_the_plain_route_voxel_for_voxel(name: str, skip: bool) -> None:
    ct_grid = CT_GRIDS[name]
    labels = (0, 7, 3, 30, 12)
    tiles = TileSettings((6, 8, 7), overlap=0.4, skip_outside_body=skip, batch=2)
    result, expected, _ = predict(network_input(ct_grid), ct_grid, tiles, labels)
    assert result.labels.grid == ct_grid
    assert result.labels.array_kji.dtype == np.uint8
    assert set(np.unique(expected)) == set(labels)
    np.testing.assert_array_equal(result.labels.array_kji, expected)


def test_labels_equal_the_plain_route_with_all_31_classes() -> None:
    ct_grid = CT_GRIDS["oblique"]
    tiles = TileSettings((5, 9, 8), overlap=0.5)
    result, expected, _ = predict(network_input(ct_grid), ct_grid, tiles, range(31))
    np.testing.assert_array_equal(result.labels.array_kji, expected)


def test_skipping_windows_outside_the_body_asks_the_network_less_often() -> None:
    ct_grid = CT_GRIDS["straight"]
    given = network_input(ct_grid)
    few, _, _ = predict(given, ct_grid, TileSettings((6, 8, 5), overlap=0.0), (0, 1))
    many, _, _ = predict(given, ct_grid, TileSettings((6, 8, 5), overlap=0.0, skip_outside_body=False), (0, 1))
    assert 0 < few.windows < many.windows


def test_a_scan_smaller_than_the_patch_is_padded_with_each_channels_own_value() -> None:
    ct_grid = CT_GRIDS["feet first"]
    tiles = TileSettings((32, 8, 32), overlap=0.5, padding=(-1.0, 0.5, 2.0), skip_outside_body=False)
    result, expected, _ = predict(network_input(ct_grid), ct_grid, tiles, (0, 1, 2))
    np.testing.assert_array_equal(result.labels.array_kji, expected)


def test_a_working_grid_of_a_single_slice_works() -> None:
    ct_grid = Grid((9, 11, 3), (1.0, 1.0, 2.0))
    given = network_input(ct_grid, spacing=(1.3, 1.1, 8.0))
    assert given.grid.size_ijk[2] == 1
    result, expected, _ = predict(given, ct_grid, TileSettings((4, 4, 4)), (0, 1, 2))
    np.testing.assert_array_equal(result.labels.array_kji, expected)


def test_ct_voxels_beyond_the_working_grid_are_background() -> None:
    ct_grid = CT_GRIDS["straight"]
    given = network_input(ct_grid)
    network = RandomNetwork(3, 2).eval()
    with torch.no_grad():
        network.conv.weight.zero_()
        network.conv.bias.copy_(torch.tensor([0.0, 5.0]))
    tiles = TileSettings((6, 8, 5), skip_outside_body=False)
    found = predict_labels(network, given, labels=(0, 4), output_grid=ct_grid, tiles=tiles).labels.array_kji
    centres = np.stack(np.meshgrid(*(range(n) for n in ct_grid.shape_kji), indexing="ij"), axis=-1)[..., ::-1]
    index = given.grid.to_ijk(ct_grid.to_lps(centres))
    inside = ((index >= -0.5) & (index <= np.asarray(given.grid.size_ijk) - 0.5)).all(axis=-1)
    assert 0 < inside.sum() < inside.size
    np.testing.assert_array_equal(found, np.where(inside, 4, 0))


def test_confidence_is_the_mean_winning_probability_of_each_organ_and_of_its_boundary() -> None:
    ct_grid = CT_GRIDS["oblique"]
    labels = (0, 9, 4)
    result, _, probabilities = predict(
        network_input(ct_grid), ct_grid, TileSettings((6, 8, 7)), labels, uncertainty=True
    )
    winner, top = probabilities.argmax(axis=0), probabilities.max(axis=0)
    for n in (1, 2):
        mask = winner == n
        boundary = mask & ~ndimage.binary_erosion(mask, border_value=1)
        assert 0 < boundary.sum() < mask.sum()
        assert result.confidence[labels[n]].mean == pytest.approx(top[mask].mean(), rel=1e-5)
        assert result.confidence[labels[n]].boundary == pytest.approx(top[boundary].mean(), rel=1e-5)
    assert result.uncertainty is not None
    np.testing.assert_allclose(result.uncertainty.array_kji, 1 - top, atol=1e-6)


def test_progress_counts_windows_and_a_cancel_passes_through() -> None:
    ct_grid = CT_GRIDS["straight"]
    given, tiles = network_input(ct_grid), TileSettings((6, 8, 5), batch=1)
    network = RandomNetwork(3, 2).eval()
    seen: list[float] = []
    predict_labels(
        network, given, labels=(0, 1), output_grid=ct_grid, tiles=tiles, on_progress=lambda f, _text: seen.append(f)
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1.0

    def cancel(fraction: float, _text: str) -> None:
        if fraction > 0.3:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        predict_labels(network, given, labels=(0, 1), output_grid=ct_grid, tiles=tiles, on_progress=cancel)


class HungryNetwork(RandomNetwork):
    """Runs out of memory for batches of more than one window."""

    def forward(self, image: Tensor) -> Tensor:
        if len(image) > 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes.")
        return super().forward(image)


def test_when_memory_runs_out_smaller_batches_are_tried_and_said() -> None:
    ct_grid = CT_GRIDS["straight"]
    given, tiles = network_input(ct_grid), TileSettings((6, 8, 5), batch=3)
    network, labels = HungryNetwork(3, 3).eval(), (0, 1, 2)
    result = predict_labels(network, given, labels=labels, output_grid=ct_grid, tiles=tiles, precision="full")
    assert result.warnings == ("cpu ran out of memory: one window at a time.",)
    np.testing.assert_array_equal(
        result.labels.array_kji, plain_route(RandomNetwork(3, 3).eval(), given, (0, 1, 2), ct_grid, tiles)[0]
    )


def test_when_every_plan_runs_out_of_memory_a_device_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_arguments: object) -> None:
        raise RuntimeError("CUDA out of memory.")

    monkeypatch.setattr(slab, "exponentials", exhausted)
    with pytest.raises(DeviceError, match="more memory"):
        predict(network_input(CT_GRIDS["straight"]), CT_GRIDS["straight"], TileSettings((6, 8, 5)), (0, 1))


def test_other_runtime_errors_are_not_taken_for_lack_of_memory() -> None:
    ct_grid = CT_GRIDS["straight"]
    with pytest.raises(RuntimeError, match="expected input"):
        predict_labels(
            RandomNetwork(5, 2).eval(),
            network_input(ct_grid),
            labels=(0, 1),
            output_grid=ct_grid,
            tiles=TileSettings((6, 8, 5)),
        )


def test_a_network_with_another_number_of_classes_is_refused() -> None:
    ct_grid = CT_GRIDS["straight"]
    with pytest.raises(ModelError, match="The network gave"):
        predict_labels(
            RandomNetwork(3, 4).eval(),
            network_input(ct_grid),
            labels=(0, 1),
            output_grid=ct_grid,
            tiles=TileSettings((6, 8, 5)),
        )


def test_a_working_grid_that_is_turned_against_the_ct_is_refused() -> None:
    with pytest.raises(GeometryMismatch, match="CT's axes"):
        predict(network_input(CT_GRIDS["straight"]), CT_GRIDS["oblique"], TileSettings((6, 8, 5)), (0, 1))


def test_the_input_array_is_not_changed() -> None:
    ct_grid = CT_GRIDS["straight"]
    given = network_input(ct_grid)
    before = given.array_ckji.copy()
    predict(given, ct_grid, TileSettings((6, 8, 5)), (0, 1))
    np.testing.assert_array_equal(given.array_ckji, before)


def test_every_window_position_contributes_with_every_ring_wrap() -> None:
    """Depth 3 slab over 11 slices with starts that do not divide: each ring wrap is met."""
    ct_grid = Grid((8, 9, 11), (1.0, 1.5, 2.0))
    whole = NetworkInput(
        np.random.default_rng(0).normal(size=(3, 11, 9, 8)).astype(np.float32), ct_grid, np.ones((11, 9, 8), bool)
    )
    for depth, overlap in product((3, 4, 5), (0.3, 0.7)):
        result, expected, _ = predict(whole, ct_grid, TileSettings((depth, 4, 5), overlap=overlap), (0, 1, 2))
        np.testing.assert_array_equal(result.labels.array_kji, expected)
