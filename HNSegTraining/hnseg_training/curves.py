"""Curves of a run as a figure."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.figure import Figure

from hnseg.image.files import atomic_write

CURVES = "curves.svg"
_PANELS = {"loss": ("loss", "val_loss"), "soft DSC, unseen": ("val_dsc",), "waiting for data": ("data_wait",)}


def write_curves(folder: Path) -> Path:
    """The figure in the run's folder, from the logs of all its parts; returns its path."""
    series = read_series(folder)
    figure = Figure(figsize=(9.5, 2.8), layout="constrained")
    for panel, (title, names) in zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
        for name in names:
            steps = sorted(series.get(name, {}))
            panel.plot(steps, [series[name][step] for step in steps], label=name, linewidth=1.0)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("step", fontsize=8)
        panel.tick_params(labelsize=7)
        panel.legend(fontsize=7, frameon=False)
    target = folder / CURVES
    with atomic_write(target) as partial:
        figure.savefig(partial, format="svg", metadata={"Date": None})
    return target


def read_series(folder: Path) -> dict[str, dict[int, float]]:
    """Value by step, by name of what was logged; a resumed run's parts are joined."""
    series: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("log/version_*/metrics.csv"), key=lambda file: int(file.parent.name[8:])):
        with file.open() as rows:
            for row in csv.DictReader(rows):
                for name, value in row.items():
                    if value and name not in ("step", "epoch"):
                        series.setdefault(name, {})[int(row["step"])] = float(value)
    return series
