"""Plots of a curated cohort: how often and how large each organ is, and how grey values are spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from hnseg.curation.cohort import CuratedCohort
from hnseg.curation.intensity import LANDMARKS
from hnseg.curation.record import CT_BINS_HU
from hnseg.organs import ORGANS
from hnseg.reporting.cohort_plots import svg

_FEW_RGB, _MANY_RGB = "#b3261e", "#1f5fa8"
_LINE = {"linewidth": 0.9, "alpha": 0.7}


def imbalance_plot(cohort: CuratedCohort) -> bytes:
    """SVG: cases that have each organ annotated, and the organ's volumes on a logarithmic scale."""
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    counts_axes, volumes_axes = figure.subplots(2, 1, sharex=True)
    counts = [sum(organ.name in case.annotated for case in cohort.cases) for organ in ORGANS]
    colours = [_MANY_RGB if count == len(cohort.cases) else _FEW_RGB for count in counts]
    counts_axes.bar(range(len(ORGANS)), counts, color=colours)
    counts_axes.set_ylabel("cases with the organ")
    counts_axes.yaxis.get_major_locator().set_params(integer=True)
    volumes = [[ml for case in cohort.cases if (ml := case.volumes_ml.get(organ.name))] for organ in ORGANS]
    for n, (organ, values) in enumerate(zip(ORGANS, volumes, strict=True)):
        volumes_axes.plot([n, n], organ.range_ml, color="#bcd6c6", linewidth=8, solid_capstyle="butt", zorder=1)
        volumes_axes.plot([n] * len(values), values, ".", color=_MANY_RGB, markersize=4, zorder=2)
    volumes_axes.set_yscale("log")
    volumes_axes.set_ylabel("volume, mL")
    names = [organ.name for organ in ORGANS]
    volumes_axes.set_xticks(range(len(ORGANS)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    volumes_axes.set_xlim(-0.7, len(ORGANS) - 0.3)
    for axes in (counts_axes, volumes_axes):
        axes.grid(axis="y", color="#dde3e9")
        axes.set_axisbelow(True)
    return svg(figure)


def intensity_plot(cohort: CuratedCohort) -> bytes:
    """SVG: the CTs' histograms and, where there are MRs, their tissue's percentiles on three scales."""
    panels = _mr_panels(cohort)
    figure = Figure(figsize=(3.6 + 2.6 * len(panels), 3.2), layout="constrained")
    ct_axes, *mr_axes = figure.subplots(1, 1 + len(panels), squeeze=False)[0]
    low, high, bins = CT_BINS_HU
    middles = np.linspace(low, high, bins, endpoint=False) + (high - low) / bins / 2
    for case in cohort.cases:
        share = np.asarray(case.ct_histogram, float) / max(sum(case.ct_histogram), 1)
        ct_axes.plot(middles, np.maximum(share, 1e-6), color=_MANY_RGB, **_LINE)
    ct_axes.set_yscale("log")
    ct_axes.set_title("CT, HU", fontsize=9)
    for axes, (title, curves) in zip(mr_axes, panels.items(), strict=True):
        _percentiles(axes, title, curves)
    for axes in (ct_axes, *mr_axes):
        axes.tick_params(labelsize=7)
    return svg(figure)


def _mr_panels(cohort: CuratedCohort) -> dict[str, list[Sequence[float]]]:
    """Title → a curve per case with an MR."""
    fitted, standard = [case.mr.scales for case in cohort.cases if case.mr], cohort.nyul
    if not fitted or standard is None:
        return {}
    return {
        "MR tissue, as scanned": [scales.landmarks for scales in fitted],
        "MR tissue, z-score": [scales.z_score.apply(np.asarray(scales.landmarks)).tolist() for scales in fitted],
        "MR tissue, Nyúl": [standard.scale(s.landmarks).apply(np.asarray(s.landmarks)).tolist() for s in fitted],
    }


def _percentiles(axes: object, title: str, curves: Sequence[Sequence[float]]) -> None:
    draw = axes  # matplotlib has no types
    for values in curves:
        draw.plot(LANDMARKS, values, color=_MANY_RGB, **_LINE)  # type: ignore[attr-defined]
    draw.set_title(title, fontsize=9)  # type: ignore[attr-defined]
    draw.set_xlabel("percentile", fontsize=8)  # type: ignore[attr-defined]
