"""Plots of an evaluation: boxes per organ, Bland–Altman panels, and the worst cases as pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from hnseg.evaluation.cohort import Cohort
from hnseg.evaluation.statistics import limits_of_agreement
from hnseg.image.grid import Grid
from hnseg.image.resample import resample
from hnseg.image.volume import Volume
from hnseg.reporting.pictures import annotate, edges, enlarge, montage, png
from hnseg.reporting.views import SOFT_TISSUE_HU, Plane, window

_COLOURS = ("#1f5fa8", "#d1722c", "#1e7d4f", "#8a3ea1", "#b3261e", "#5b6875")
_REFERENCE_RGB, _PREDICTION_RGB = (90, 220, 120), (255, 80, 70)
_MARGIN_MM = 12.0
_LINEAR_UP_TO_MM = 10.0
_MM_TICKS = (0, 2, 4, 6, 8, 10, 20, 50, 100, 200, 500)
_BONY_HU, _BONE_WINDOW_HU = 250.0, (-600.0, 1600.0)
_AIR_HU = -1024.0


def box_plot(
    cohorts: Sequence[Cohort], metric: str, label: str, *, ceiling: Mapping[str, float] | None = None
) -> bytes:
    """SVG: for each organ a box per system, every case as a dot, the observers' ceiling as a black bar."""
    organs = list(dict.fromkeys(organ for cohort in cohorts for organ in cohort.organs))
    figure = Figure(figsize=(0.36 * len(organs) * max(1.0, 0.6 * len(cohorts)) + 2.2, 4.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(cohorts)
    for number, cohort in enumerate(cohorts):
        colour = _COLOURS[number % len(_COLOURS)]
        places = np.arange(len(organs)) + (number - (len(cohorts) - 1) / 2) * width
        values = [_finite(cohort.values(metric, organ).values()) for organ in organs]
        axes.boxplot(
            values, positions=places, widths=0.75 * width, showfliers=False, manage_ticks=False, patch_artist=True,
            boxprops={"facecolor": f"{colour}33", "edgecolor": colour}, medianprops={"color": colour, "linewidth": 2},
            whiskerprops={"color": colour}, capprops={"color": colour},
        )  # fmt: skip
        for place, points in zip(places, values, strict=True):
            spread = np.linspace(-0.2, 0.2, len(points)) * width if len(points) > 1 else np.zeros(len(points))
            axes.plot(place + spread, points, ".", color=colour, markersize=3, alpha=0.6)
        axes.plot([], [], "s", color=colour, label=cohort.system)
    for place, organ in enumerate(organs):
        if ceiling and organ in ceiling:
            axes.plot([place - 0.42, place + 0.42], [ceiling[organ]] * 2, color="black", linewidth=1.6, zorder=5)
    if ceiling:
        axes.plot([], [], color="black", label="between observers")
    axes.set_xticks(range(len(organs)), organs, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_xlim(-0.7, len(organs) - 0.3)
    axes.set_ylabel(label)
    if metric.endswith("_mm"):  # one organ that lies far off must not flatten all the others
        axes.set_yscale("symlog", linthresh=_LINEAR_UP_TO_MM)
        axes.set_yticks(_MM_TICKS, [f"{mm:g}" for mm in _MM_TICKS])
        axes.minorticks_off()
    axes.set_ylim(bottom=0.0)
    axes.grid(axis="y", color="#dde3e9")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper right", ncols=len(cohorts) + 1, fontsize=8, frameon=False)
    return svg(figure)


def bland_altman_plot(cohort: Cohort) -> bytes:
    """SVG: volume difference over mean volume, with bias and limits of agreement.

    The first panel holds every organ, in percent of the mean; further ones an organ each, in mL, if there are cases to
    compare.
    """
    organs = cohort.organs if len(cohort.cases) > 1 else ()
    columns = min(6, 1 + len(organs))
    rows = -(-(1 + len(organs)) // columns)
    figure = Figure(figsize=(2.3 * columns + (1.6 if columns == 1 else 0), 1.9 * rows + 0.6), layout="constrained")
    first, *panels = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    means, differences = _volumes(cohort, None)
    positive = means > 0
    _bland_altman_panel(first, means[positive], 100 * differences[positive] / means[positive], "all organs, %")
    first.set_xscale("log")
    for panel, organ in zip(panels, organs, strict=False):
        _bland_altman_panel(panel, *_volumes(cohort, organ), organ)
    for panel in panels[len(organs) :]:
        panel.axis("off")
    figure.supxlabel("mean of prediction and reference, mL", fontsize=9)
    figure.supylabel("prediction − reference", fontsize=9)
    return svg(figure)


def _volumes(cohort: Cohort, organ: str | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and difference of predicted and reference mL."""
    rows = [row for _, row, _ in cohort.rows(organ) if row.scored]
    predicted, expected = (np.array([getattr(row, f"{who}_ml") for row in rows]) for who in ("prediction", "reference"))
    return (predicted + expected) / 2, predicted - expected


def _bland_altman_panel(panel: Any, means: NDArray[np.float64], differences: NDArray[np.float64], title: str) -> None:
    panel.plot(means, differences, ".", color=_COLOURS[0], markersize=5)
    panel.axhline(0.0, color="#9aa5b0", linewidth=0.8)
    for value, style in zip(limits_of_agreement(differences), ("-", "--", "--"), strict=True):
        if np.isfinite(value):
            panel.axhline(value, color=_COLOURS[1], linestyle=style, linewidth=1.0)
    panel.set_title(title, fontsize=8)
    panel.tick_params(labelsize=7)


def disagreement_picture(prediction: Volume, reference: Volume, ct: Volume | None = None) -> bytes:
    """PNG: the axial, coronal and sagittal slice in which two masks of one organ differ most; on the CT if there is
    one.

    Reference green, prediction red, where both agree yellow.
    """
    grid = _viewing_grid(prediction, reference)
    predicted, expected = (
        resample(_uint8(mask), grid, interpolation="nearest").array_kji.astype(np.bool_)
        for mask in (prediction, reference)
    )
    gray = np.full(grid.shape_kji, 40, np.uint8)
    if ct is not None:
        hu = resample(ct.with_array(ct.array_kji.astype(np.float32)), grid, fill=_AIR_HU).array_kji
        bony = expected.any() and np.median(hu[expected]) > _BONY_HU
        gray = window(hu, _BONE_WINDOW_HU if bony else SOFT_TISSUE_HU)
    return png(montage([_slice(plane, gray, predicted, expected, grid.spacing_mm[0]) for plane in Plane], columns=3))


def _slice(
    plane: Plane, gray: NDArray[np.uint8], predicted: NDArray[np.bool_], expected: NDArray[np.bool_], spacing_mm: float
) -> NDArray[np.uint8]:
    across = tuple(axis for axis in range(3) if axis != plane.axis)
    index = int(np.count_nonzero(predicted ^ expected, axis=across).argmax())
    zoom = max(1, round(320 / max(plane.cut(gray, index).shape)))
    picture = enlarge(np.repeat(plane.cut(gray, index)[..., None], 3, axis=2), zoom).copy()
    outlines = [_outline(plane.cut(mask, index), zoom) for mask in (expected, predicted)]
    picture[outlines[0]] = _REFERENCE_RGB
    picture[outlines[1]] = _PREDICTION_RGB
    picture[outlines[0] & outlines[1]] = (250, 220, 80)
    return annotate(picture, plane, mm_per_pixel=spacing_mm / zoom)


def _outline(mask: NDArray[np.bool_], zoom: int) -> NDArray[np.bool_]:
    """Two pixels wide, as the page shows pictures at about half their size."""
    thin = edges(np.kron(mask, np.ones((zoom, zoom), np.bool_)).astype(np.uint8))
    return np.asarray(ndimage.binary_dilation(thin, np.ones((2, 2), np.bool_)))


def _viewing_grid(prediction: Volume, reference: Volume) -> Grid:
    """Isotropic, along the patient's axes, around both masks."""
    voxels = [(mask.grid, np.argwhere(mask.array_kji)[:, ::-1]) for mask in (prediction, reference)]
    points = [grid.to_lps(indices) for grid, indices in voxels if len(indices)]
    low = np.min([part.min(axis=0) for part in points], axis=0) - _MARGIN_MM
    high = np.max([part.max(axis=0) for part in points], axis=0) + _MARGIN_MM
    spacing = max(0.5, float((high - low).max()) / 240)
    i, j, k = (np.ceil((high - low) / spacing).astype(int) + 1).tolist()
    x, y, z = low.tolist()
    return Grid((i, j, k), (spacing,) * 3, (x, y, z))


def _uint8(mask: Volume) -> Volume:
    return mask.with_array((mask.array_kji != 0).astype(np.uint8))


def _finite(values: object) -> list[float]:
    return [value for value in values if np.isfinite(value)]  # type: ignore[attr-defined]


def svg(figure: Figure) -> bytes:
    """The figure as SVG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "hnseg"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
