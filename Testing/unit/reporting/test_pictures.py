import io

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from hnseg.image.volume import Volume
from hnseg.organs import BY_NAME
from hnseg.reporting.pictures import (
    annotate,
    checkerboard,
    edges,
    jpeg,
    montage,
    overlay,
    palette,
    plane_picture,
    png,
    position,
)
from hnseg.reporting.views import Plane, best_index, make_views, spread_indices, viewing_grid, window

LEFT, CORD = BY_NAME["Parotid_L"].label, BY_NAME["SpinalCord"].label


def middle(mask: np.ndarray) -> np.ndarray:
    """Row and column of a mask's centre, as shares of the picture."""
    return np.argwhere(mask).mean(axis=0) / mask.shape


def test_the_patients_left_is_on_the_right_and_superior_on_top(ct: Volume, labels: Volume) -> None:
    views = make_views(ct, labels)
    shown = {plane: [plane.cut(views.labels == label, n) for label in (LEFT, CORD)]
             for plane in Plane for n in [views.labels.shape[plane.axis] // 2]}  # fmt: skip
    flat = {plane: [plane.cut(np.broadcast_to((views.labels == label).max(axis=plane.axis, keepdims=True),
            views.labels.shape), 0) for label in (LEFT, CORD)] for plane in shown}  # fmt: skip
    (left_row, left_column), (cord_row, cord_column) = map(middle, flat[Plane.AXIAL])
    assert left_column > cord_column + 0.15, "left is right"
    assert left_row < cord_row - 0.15, "anterior is up"
    (left_row, left_column), (cord_row, cord_column) = map(middle, flat[Plane.CORONAL])
    assert left_column > cord_column + 0.15
    assert left_row < cord_row - 0.05, "superior is up"
    (left_row, left_column), (cord_row, cord_column) = map(middle, flat[Plane.SAGITTAL])
    assert left_column < cord_column - 0.15, "anterior is left"
    assert left_row < cord_row - 0.05


def test_the_viewing_grid_is_isotropic_along_the_patient_and_holds_every_organ(ct: Volume, labels: Volume) -> None:
    grid = viewing_grid(ct.grid, labels)
    assert len(set(grid.spacing_mm)) == 1
    assert grid.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    views = make_views(ct, labels)
    for label in (LEFT, CORD):
        truth = np.count_nonzero(labels.array_kji == label) * labels.grid.voxel_ml
        assert np.count_nonzero(views.labels == label) * grid.voxel_ml == pytest.approx(truth, rel=0.05)


def test_without_labels_the_whole_ct_is_shown(ct: Volume) -> None:
    views = make_views(ct, ct.with_array(np.zeros(ct.array_kji.shape, np.uint8)))
    low, high = ct.grid.bounds_lps()
    assert np.abs(np.array(views.grid.bounds_lps()) - (low, high)).max() < 2 * views.spacing_mm
    assert best_index(views.labels, Plane.AXIAL) == views.labels.shape[0] // 2


def test_the_mr_is_shown_where_its_transform_puts_it_and_marked_where_it_ends(ct: Volume, labels: Volume) -> None:
    shift = sitk.TranslationTransform(3, (500.0, -40.0, 7.0))  # CT points to MR points
    grid = ct.grid
    moved = type(grid)(
        grid.size_ijk, grid.spacing_mm, tuple(np.add(grid.origin_lps, (500.0, -40.0, 7.0))), grid.direction
    )
    mr = Volume((labels.array_kji == LEFT).astype(np.int16) * 400, moved)
    views = make_views(ct, labels, mr=mr, ct_to_mr=shift)
    assert views.mr is not None
    assert views.mr_valid is not None
    inside = views.labels == LEFT
    assert np.median(views.mr[inside]) > 200
    assert np.median(views.mr[views.labels == CORD]) == 0
    far = make_views(ct, labels, mr=mr)
    assert far.mr_valid is not None
    assert not far.mr_valid.any()


def test_windows_are_linear_and_clipped() -> None:
    assert window(np.array([-500, -160, 40, 240, 900]), (-160.0, 240.0)).tolist() == [0, 0, 127, 255, 255]


def test_an_organ_is_tinted_with_the_tables_colour_most_at_its_outline() -> None:
    labels = np.zeros((7, 8), np.uint8)
    labels[1:6, 1:6] = LEFT
    picture = overlay(np.full((7, 8), 100, np.uint8), labels)
    assert picture[0, 7].tolist() == [100, 100, 100]
    colour = np.array(BY_NAME["Parotid_L"].rgb)
    assert np.abs(picture[1, 1] - (100 + (colour - 100) * 0.95)).max() <= 1
    assert np.abs(picture[3, 3] - (100 + (colour - 100) * 0.28)).max() <= 1
    assert edges(labels).sum() == 16
    assert palette()[CORD].tolist() == list(BY_NAME["SpinalCord"].rgb)


def test_the_reference_is_drawn_in_white_dashes_on_its_outline_only() -> None:
    nothing = np.zeros((12, 12), np.uint8)
    reference = nothing.copy()
    reference[2:10, 2:10] = CORD
    picture = overlay(nothing, nothing, reference=reference)
    white = (picture == 255).all(axis=-1)
    assert white.any()
    assert not white[~edges(reference)].any()
    assert white.sum() < edges(reference).sum()


def test_a_checkerboard_takes_the_second_image_only_where_it_is_valid() -> None:
    first, second = np.full((4, 4), 1, np.uint8), np.full((4, 4), 2, np.uint8)
    valid = np.ones((4, 4), bool)
    valid[0, 2:] = False
    board = checkerboard(first, second, valid, field=2)
    assert board.tolist() == [[1, 1, 1, 1], [1, 1, 2, 2], [2, 2, 1, 1], [2, 2, 1, 1]]


def test_slices_are_spread_through_the_organs_and_the_best_one_shows_the_most() -> None:
    labels = np.zeros((30, 5, 5), np.uint8)
    labels[10:23, 1, 1] = LEFT
    labels[14, 3, 3] = CORD
    assert spread_indices(labels, Plane.AXIAL, 3) == [12, 16, 20]
    assert best_index(labels, Plane.AXIAL) == 14


def test_pictures_carry_letters_and_their_place(ct: Volume, labels: Volume) -> None:
    views = make_views(ct, labels)
    index = round(float(views.grid.to_ijk([0.0, 0.0, 100.0])[2]))
    assert position(views, Plane.AXIAL, index) in ("z = 100 mm", "z = 99 mm", "z = 101 mm")
    plain = np.zeros((200, 240, 3), np.uint8)
    marked = annotate(plain, Plane.SAGITTAL, mm_per_pixel=1.0)
    assert not plain.any()
    for edge in (marked[80:120, :30], marked[80:120, -30:], marked[:30, 100:140], marked[-30:, 100:140]):
        assert edge.any(), "a letter at each edge"
    picture = plane_picture(views, Plane.AXIAL, index, zoom=2)
    assert picture.shape == (2 * views.labels.shape[1], 2 * views.labels.shape[2], 3)


def test_a_montage_places_pictures_in_rows_each_in_the_middle_of_its_cell() -> None:
    one, two, low = np.full((3, 3, 3), 1, np.uint8), np.full((3, 3, 3), 2, np.uint8), np.full((1, 3, 3), 3, np.uint8)
    sheet = montage([one, two, low], columns=2, gap=1)
    assert sheet[..., 0].tolist() == [
        [1, 1, 1, 0, 2, 2, 2], [1, 1, 1, 0, 2, 2, 2], [1, 1, 1, 0, 2, 2, 2], [0] * 7,
        [0] * 7, [3, 3, 3, 0, 0, 0, 0], [0] * 7,
    ]  # fmt: skip


def test_png_is_exact_and_jpeg_near() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (16, 20, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(picture)))), picture)
    gray = np.linspace(0, 255, 320).reshape(16, 20).astype(np.uint8)
    assert np.abs(np.asarray(Image.open(io.BytesIO(jpeg(gray)))).astype(int) - gray).max() < 12
