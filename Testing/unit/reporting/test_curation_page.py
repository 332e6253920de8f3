"""The page of a curated cohort: its figures' numbers against the cohort's own, and tables that sort."""

import base64
import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from hnseg.curation.alignment import AlignmentRecord
from hnseg.curation.cohort import CuratedCohort
from hnseg.curation.intensity import LANDMARKS, Linear, NyulStandard, ZScore
from hnseg.curation.mr import MrRecord, MrScales
from hnseg.curation.overlaps import Conflict
from hnseg.curation.record import CaseRecord
from hnseg.curation.settings import CurationSettings
from hnseg.curation.splits import Fold, Splits
from hnseg.image.grid import Grid
from hnseg.organs import BY_NAME, ORGANS
from hnseg.reporting import curation_plots
from hnseg.reporting.curation_page import cohort_csv, curation_page, write_cohort_report

GRID = Grid((3, 5, 7), (3.0, 2.0, 1.0))
FEW, MANY = "#b3261e", "#1f5fa8"
PLACE = {organ.name: n for n, organ in enumerate(ORGANS)}
VOLUMES = {
    "case_2": {"Brainstem": 25.0, "Parotid_L": 30.0, "Lips": 11.0},
    "case_10": {"Brainstem": 28.5, "Parotid_L": 21.0},
    "case_9": {"Brainstem": 22.25},
}
LANDMARKS_OF = {
    "case_2": (0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0),
    "case_10": (100.0, 140.0, 180.0, 220.0, 260.0, 300.0, 340.0, 380.0, 420.0, 460.0, 500.0),
}
"""Both rise evenly, so that Nyúl's scale brings either to 0, 10 … 100."""


def case(name: str, status: Any, peaks: dict[int, int], conflicts: tuple[Conflict, ...] = ()) -> CaseRecord:
    """``peaks``: bins of the CT's histogram and what they hold."""
    histogram = [0] * 60
    for where, count in peaks.items():
        histogram[where] = count
    mr = alignment = None
    if name in LANDMARKS_OF:
        scales = MrScales(ZScore(300.0, 50.0), Linear(0.0, 1.0), Linear(0.0, 1.0), LANDMARKS_OF[name])
        mr = MrRecord("scanner", False, scales, GRID, 0.5)
        alignment = AlignmentRecord("rigid", status, "Because.", True, None, {})
    organs = tuple(VOLUMES[name])
    return CaseRecord(
        name, status, (), GRID, GRID, organs, (), (), VOLUMES[name], conflicts, (), (), tuple(histogram), alignment, mr
    )


@pytest.fixture
def cohort() -> CuratedCohort:
    """Out of order by name, verdict and number; the third case has no MR, the fourth failed."""
    small, large = (Conflict("Arytenoid", "Larynx_SG", 3, ml, "The smaller one wins.") for ml in (0.25, 11.5))
    cases = (
        case("case_10", "good", {0: 600, 20: 300, 59: 100}, (large,)),
        case("case_2", "doubtful", {20: 7, 21: 1}, (small,)),
        case("case_9", "good", {30: 5}),
    )
    splits = Splits(4, ("case_10", "case_2"), ("case_9",), (Fold(("case_10",), ("case_2",)),))
    nyul = NyulStandard.fit(list(LANDMARKS_OF.values()))
    return CuratedCohort("HaN-Seg", CurationSettings(), cases, {"case_1": "No CT."}, (), splits, nyul, None)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures in the order in which they become SVG."""
    real, figures = curation_plots.svg, []

    def keep(figure: Figure) -> bytes:
        figures.append(figure)
        return real(figure)

    monkeypatch.setattr(curation_plots, "svg", keep)
    return figures


def test_the_bars_of_the_class_balance_are_the_cases_that_have_each_organ(
    cohort: CuratedCohort, drawn: list[Figure]
) -> None:
    curation_plots.imbalance_plot(cohort)
    counts, volumes = drawn[0].axes
    heights = dict.fromkeys(PLACE, 0) | {"Brainstem": 3, "Parotid_L": 2, "Lips": 1}
    assert [bar.get_height() for bar in counts.patches] == [heights[organ.name] for organ in ORGANS]
    assert [bar.get_x() + bar.get_width() / 2 for bar in counts.patches] == pytest.approx(range(len(ORGANS)))
    colours = {name: to_hex(counts.patches[place].get_facecolor()) for name, place in PLACE.items()}
    assert {name for name, colour in colours.items() if colour == MANY} == {"Brainstem"}
    assert set(colours.values()) == {FEW, MANY}
    assert [tick.get_text() for tick in volumes.get_xticklabels()] == list(PLACE)


def test_every_volume_is_a_dot_over_its_organs_published_range(cohort: CuratedCohort, drawn: list[Figure]) -> None:
    curation_plots.imbalance_plot(cohort)
    _, volumes = drawn[0].axes
    dots = {(x, y) for line in volumes.lines if line.get_marker() == "." for x, y in line.get_xydata().tolist()}
    assert dots == {(PLACE[name], ml) for found in VOLUMES.values() for name, ml in found.items()}
    ranges = [line.get_xydata().tolist() for line in volumes.lines if line.get_marker() == "None"]
    assert ranges == [[[n, organ.range_ml[0]], [n, organ.range_ml[1]]] for n, organ in enumerate(ORGANS)]
    assert volumes.get_yscale() == "log"


def test_each_ct_is_a_line_of_its_histograms_shares_at_the_bins_middles(
    cohort: CuratedCohort, drawn: list[Figure]
) -> None:
    """60 bins of 50 HU from −1000: the first one's middle is −975, that of bin 20 is 25; an empty bin is 1e-6."""
    curation_plots.intensity_plot(cohort)
    first, second, third = drawn[0].axes[0].lines
    assert np.asarray(first.get_xdata())[[0, 20, 59]].tolist() == pytest.approx([-975.0, 25.0, 1975.0])
    assert np.asarray(first.get_ydata())[[0, 1, 20, 59]].tolist() == pytest.approx([0.6, 1e-6, 0.3, 0.1])
    assert np.asarray(second.get_ydata())[[0, 20, 21]].tolist() == pytest.approx([1e-6, 7 / 8, 1 / 8])
    assert np.asarray(third.get_ydata())[30] == 1.0


def test_each_mr_is_a_line_of_its_percentiles_on_three_scales(cohort: CuratedCohort, drawn: list[Figure]) -> None:
    curation_plots.intensity_plot(cohort)
    shown = {axes.get_title(): [line.get_ydata() for line in axes.lines] for axes in drawn[0].axes[1:]}
    scanned = np.array([LANDMARKS_OF["case_10"], LANDMARKS_OF["case_2"]])
    assert list(shown) == ["MR tissue, as scanned", "MR tissue, z-score", "MR tissue, Nyúl"]
    assert np.array_equal(shown["MR tissue, as scanned"], scanned)
    assert np.allclose(shown["MR tissue, z-score"], (scanned - 300.0) / 50.0)
    assert np.allclose(shown["MR tissue, Nyúl"], [np.arange(0.0, 101.0, 10.0)] * 2, atol=1e-4)
    for axes in drawn[0].axes[1:]:
        assert all(np.array_equal(line.get_xdata(), LANDMARKS) for line in axes.lines)


def test_without_an_mr_only_the_cts_are_drawn(cohort: CuratedCohort, drawn: list[Figure]) -> None:
    curation_plots.intensity_plot(replace(cohort, cases=cohort.cases[2:], nyul=None))
    assert [axes.get_title() for axes in drawn[0].axes] == ["CT, HU"]


def test_the_page_holds_the_very_figures_and_the_counts(cohort: CuratedCohort, tmp_path: Path) -> None:
    page = curation_page(cohort, tmp_path)
    pictures = [base64.b64decode(text) for text in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)]
    assert pictures == [curation_plots.imbalance_plot(cohort), curation_plots.intensity_plot(cohort)]
    cards = re.findall(r'<div class="card"><b class="(\w*)">(.*?)</b><span>(.*?)</span>', page)
    assert [value for _, value, _ in cards] == ["2", "1", "1", "2 of 3", "11.8 mL", "2 + 1"]
    assert [kind for kind, _, _ in cards[:3]] == ["good", "doubt", "bad"]


def test_the_cases_table_can_be_sorted_and_marks_each_verdict(cohort: CuratedCohort, tmp_path: Path) -> None:
    page = curation_page(cohort, tmp_path)
    assert page.count('<table class="sortable"><thead><tr><th') == 2, "the cases and the overlaps"
    assert page.count('document.querySelectorAll("table.sortable")') == 1
    assert re.findall(r'<td class="text"><b class="(\w+)">(\w+)</b>', page) == [
        ("good", "good"), ("doubt", "doubtful"), ("good", "good"), ("bad", "failed"),
    ]  # fmt: skip


def test_the_table_beside_the_page_has_the_cases_volumes(cohort: CuratedCohort) -> None:
    rows = list(csv.DictReader(io.StringIO(cohort_csv(cohort))))
    assert [(row["case"], row["verdict"], row["overlaps mL"]) for row in rows] == [
        ("case_10", "good", "11.50"), ("case_2", "doubtful", "0.25"), ("case_9", "good", "0.00"),
        ("case_1", "failed", ""),
    ]  # fmt: skip
    for row in rows[:3]:
        found = {name: float(row[f"{name} mL"]) for name in BY_NAME if row[f"{name} mL"]}
        assert found == VOLUMES[row["case"]]


SORTING = """
addEventListener("load", () => {
  const table = document.querySelector("table.sortable"), headings = [...table.tHead.rows[0].cells];
  const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
  const click = (title) => {
    headings.find((heading) => heading.textContent === title).click();
    return names();
  };
  const seen = { start: names() };
  for (const title of ["case", "verdict", "overlaps mL", "organs"]) seen[title] = click(title);
  seen["organs again"] = click("organs");
  seen.marked = headings.filter((heading) => heading.dataset.sorted).map((h) => [h.textContent, h.dataset.sorted]);
  answer(seen);
});
"""


def test_in_a_browser_a_click_sorts_by_verdict_or_number_and_a_second_one_turns_it(
    asked: Callable[[Path, str], Any], cohort: CuratedCohort, tmp_path: Path
) -> None:
    """Numbers as numbers: 9 before 10, 0.25 before 11.5. Equals keep their order, and what is empty comes first."""
    seen = asked(write_cohort_report(tmp_path, cohort), SORTING)
    assert seen["start"] == ["case_10", "case_2", "case_9", "case_1"]
    assert seen["case"] == ["case_1", "case_2", "case_9", "case_10"]
    assert seen["verdict"] == ["case_2", "case_1", "case_9", "case_10"]
    assert seen["overlaps mL"] == ["case_1", "case_9", "case_2", "case_10"]
    assert seen["organs"] == ["case_1", "case_9", "case_10", "case_2"]
    assert seen["organs again"] == ["case_2", "case_10", "case_9", "case_1"]
    assert seen["marked"] == [["organs", "down"]]
