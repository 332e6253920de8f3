"""Pictures as RGB arrays: overlays, checkerboard, orientation letters, scale bar, PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from hnseg.organs import ORGANS
from hnseg.reporting.views import Gray, Plane, Views

Rgb = NDArray[np.uint8]

FILL, OUTLINE = 0.28, 0.95
"""Opacity of an organ's area and of its outline."""
_REFERENCE_RGB = (255, 255, 255)


def palette() -> NDArray[np.uint8]:
    """(256, 3): the organ table's colour of each label; black elsewhere."""
    colours = np.zeros((256, 3), np.uint8)
    for organ in ORGANS:
        colours[organ.label] = organ.rgb
    return colours


def overlay(gray: Gray, labels: NDArray[np.uint8], *, zoom: int = 1, reference: NDArray[np.uint8] | None = None) -> Rgb:
    """A gray slice with its organs, filled and outlined; reference outlines in white. Enlarged by a whole factor."""
    picture = enlarge(np.repeat(gray[..., None], 3, axis=2), zoom).astype(np.float32)
    labels = np.repeat(np.repeat(labels, zoom, axis=0), zoom, axis=1)
    opacity = np.where(edges(labels), OUTLINE, FILL) * (labels > 0)
    picture += (palette()[labels] - picture) * opacity[..., None]
    if reference is not None:
        outline = edges(np.repeat(np.repeat(reference, zoom, axis=0), zoom, axis=1))
        dashes = np.add.outer(np.arange(outline.shape[0]), np.arange(outline.shape[1])) % 6 < 3
        picture[outline & dashes] = _REFERENCE_RGB
    return picture.astype(np.uint8)


def edges(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels of an organ with another label beside them."""
    shrunk = ndimage.minimum_filter(labels, 3), ndimage.maximum_filter(labels, 3)
    result: NDArray[np.bool_] = (labels > 0) & ((shrunk[0] != labels) | (shrunk[1] != labels))
    return result


def enlarge(picture: Rgb, zoom: int) -> Rgb:
    """Smoothly enlarged by a whole factor."""
    height, width = picture.shape[:2]
    image = Image.fromarray(picture).resize((width * zoom, height * zoom), Image.Resampling.BICUBIC)
    return np.asarray(image)


def checkerboard(first: Gray, second: Gray, valid: NDArray[np.bool_], *, field: int) -> Gray:
    """Alternating squares of two pictures; the first alone where the second is not valid."""
    rows, columns = np.indices(first.shape) // field
    return np.where(((rows + columns) % 2 == 1) & valid, second, first)


def annotate(picture: Rgb, plane: Plane, *, mm_per_pixel: float, title: str = "") -> Rgb:
    """Orientation letters at the four edges, a 5 cm bar, a title."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    width, height = image.size
    font, small = ImageFont.load_default(size=18), ImageFont.load_default(size=14)
    left, right, top, bottom = tuple(plane.letters)
    for letter, place, anchor in (
        (left, (8, height / 2), "lm"), (right, (width - 8, height / 2), "rm"),
        (top, (width / 2, 8), "ma"), (bottom, (width / 2, height - 8), "md"),
    ):  # fmt: skip
        draw.text(place, letter, fill=(255, 221, 120), font=font, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))
    if title:
        draw.text((8, 8), title, fill=(235, 235, 235), font=small, stroke_width=2, stroke_fill=(0, 0, 0))
    bar = 50.0 / mm_per_pixel
    if bar < width / 2:
        y = height - 12
        draw.line([(width - 13 - bar, y), (width - 11, y)], fill=(0, 0, 0), width=6)
        draw.line([(width - 12 - bar, y), (width - 12, y)], fill=(235, 235, 235), width=2)
        middle = (width - 12 - bar / 2, y - 4)
        draw.text(middle, "5 cm", fill=(235, 235, 235), font=small, anchor="md", stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(image)


def plane_picture(views: Views, plane: Plane, index: int, *, zoom: int = 2) -> Rgb:
    """One overlay slice with letters, bar and its position in mm."""
    reference = None if views.reference is None else plane.cut(views.reference, index)
    picture = overlay(views.ct_slice(plane, index), plane.cut(views.labels, index), zoom=zoom, reference=reference)
    return annotate(picture, plane, mm_per_pixel=views.spacing_mm / zoom, title=position(views, plane, index))


def position(views: Views, plane: Plane, index: int) -> str:
    """Where a slice lies, as "z = -12 mm" in LPS."""
    xyz = 2 - plane.axis
    value = views.grid.origin_lps[xyz] + index * views.spacing_mm
    return f"{'xyz'[xyz]} = {value:.0f} mm"


def fusion_picture(views: Views, plane: Plane, index: int, *, zoom: int = 2, field_mm: float = 25.0) -> Rgb:
    """CT and MR in a checkerboard; needs the MR."""
    if views.mr is None or views.mr_valid is None:
        raise ValueError("a checkerboard needs the MR")
    board = checkerboard(
        views.ct_slice(plane, index),
        plane.cut(views.mr, index),
        plane.cut(views.mr_valid, index),
        field=max(1, round(field_mm / views.spacing_mm)),
    )
    picture = enlarge(np.repeat(board[..., None], 3, axis=2), zoom)
    return annotate(picture, plane, mm_per_pixel=views.spacing_mm / zoom, title=position(views, plane, index))


def montage(pictures: Sequence[Rgb], *, columns: int, gap: int = 4) -> Rgb:
    """Pictures in rows, each in the middle of a cell as large as the largest, on black."""
    height, width = np.max([picture.shape[:2] for picture in pictures], axis=0)
    rows = -(-len(pictures) // columns)
    sheet = np.zeros((rows * (height + gap) - gap, min(columns, len(pictures)) * (width + gap) - gap, 3), np.uint8)
    for n, picture in enumerate(pictures):
        top = (n // columns) * (height + gap) + (height - picture.shape[0]) // 2
        left = (n % columns) * (width + gap) + (width - picture.shape[1]) // 2
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def png(picture: NDArray[np.uint8]) -> bytes:
    """Encoded losslessly."""
    return _encoded(picture, "PNG")


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Encoded small, for gray slices."""
    return _encoded(picture, "JPEG", quality=80)


def _encoded(picture: NDArray[np.uint8], kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()
