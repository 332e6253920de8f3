"""The report's viewer in a real browser: what it shows once the page counts as loaded, and what its controls do."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hnseg.image.volume import Volume
from hnseg.reporting.record import RunRecord
from hnseg.reporting.report import ReportImages, write_run_report

Asked = Callable[[Path, str], dict[str, Any]]

# Runs in the page, after the page's own script, and answers what it saw.
QUESTIONS = """
addEventListener("load", () => {
  const byId = (id) => document.getElementById(id), place = () => byId("place").textContent, seen = {};
  function look(id) {  // the shares of a pane that are lit and in colour, and its mean gray
    const pane = byId(id), flat = document.createElement("canvas"), context = flat.getContext("2d");
    [flat.width, flat.height] = [pane.width, pane.height];
    context.drawImage(pane, 0, 0);
    const rgba = context.getImageData(0, 0, flat.width, flat.height).data, count = rgba.length / 4;
    let lit = 0, coloured = 0, sum = 0;
    for (let n = 0; n < rgba.length; n += 4) {
      const [r, g, b] = rgba.slice(n, n + 3);
      lit += r + g + b > 90; coloured += Math.max(r, g, b) - Math.min(r, g, b) > 60; sum += (r + g + b) / 3;
    }
    return { lit: lit / count, coloured: coloured / count, gray: sum / count };
  }
  const looks = () => Object.fromEntries(["axial", "coronal", "sagittal", "solid"].map((id) => [id, look(id)]));
  const set = (id, value) => {
    byId(id).value = value; byId(id).dispatchEvent(new Event("input"));
    return look("axial");
  };
  const list = () => [...document.querySelectorAll("#organs li")].map((item) => [item.innerText, item.className]);
  seen.loaded = looks(); seen.list = list(); seen.start = place();
  document.querySelector("td a[data-label]").click();
  seen.there = looks(); seen.place = place();
  byId("axial").dispatchEvent(new WheelEvent("wheel", { deltaY: -1, cancelable: true }));
  seen.unasked = place();
  byId("axial").focus();
  byId("axial").dispatchEvent(new WheelEvent("wheel", { deltaY: -1, cancelable: true }));
  seen.wheeled = place();
  byId("axial").dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown" }));
  seen.back = place();
  byId("doubts").click(); seen.doubts = list();
  byId("none").click(); seen.none = look("axial");
  seen.bone = set("window", "bone"); set("window", "soft tissue");
  if (byId("blend")) {
    seen.mr = set("blend", 100); set("blend", 0);
    byId("squares").click(); seen.squares = look("axial"); byId("squares").click();
  }
  requestAnimationFrame(() => requestAnimationFrame(() => {
    seen.empty = look("solid");
    answer(seen);
  }));
});
"""


@pytest.fixture(scope="module")
def seen(
    asked: Asked, ct: Volume, labels: Volume, record: RunRecord, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A report with CT and MR; the MR's body is white."""
    mr = ct.with_array(np.where(ct.array_kji > -500, 500, 20).astype(np.int16))
    folder = tmp_path_factory.mktemp("both")
    return asked(write_run_report(folder, record, ReportImages(ct, labels, mr=mr)), QUESTIONS)


def test_slices_and_surfaces_are_drawn_by_the_time_the_page_is_loaded(seen: dict[str, Any]) -> None:
    for pane in ("axial", "coronal", "sagittal"):
        assert seen["loaded"][pane]["lit"] > 0.2, pane
    assert seen["loaded"]["solid"]["coloured"] > 0.01
    assert seen["empty"]["coloured"] == 0, "without organs there is skin at most"


def test_the_list_names_the_organs_with_their_volumes_and_marks_those_to_check(seen: dict[str, Any]) -> None:
    (parotid, parotid_kind), (cord, cord_kind) = seen["list"]
    assert (parotid.split(), parotid_kind) == (["Parotid_L", "7.2", "mL"], "check")
    assert (cord.split(), cord_kind) == (["SpinalCord", "2.1", "mL"], "")
    assert [kind for _, kind in seen["doubts"]] == ["check", "off"]


def test_an_organ_in_the_table_leads_all_slices_to_it(seen: dict[str, Any]) -> None:
    x, y, z = (float(number) for number in re.findall(r"-?\d+", seen["place"])[:3])
    assert np.abs(np.subtract((x, y, z), (35, -12, 110))).max() <= 2
    assert "about 2" in seen["place"], "the parotid has 200 HU"
    assert seen["place"].endswith(" HU · Parotid_L")
    for pane in ("axial", "coronal", "sagittal"):
        assert seen["there"][pane]["coloured"] > 0.005, pane
    assert seen["none"]["coloured"] < 0.001


def test_the_wheel_turns_slices_only_once_the_pane_was_chosen(seen: dict[str, Any]) -> None:
    assert seen["unasked"] == seen["place"]
    assert seen["wheeled"] != seen["place"]
    assert seen["back"] == seen["place"]


def test_windows_fading_and_squares_change_what_is_shown(seen: dict[str, Any]) -> None:
    ct, bone, mr, squares = (seen[name]["gray"] for name in ("none", "bone", "mr", "squares"))
    assert bone < ct - 10, "soft tissue is darker in the bone window"
    assert mr > ct + 30, "this MR is white"
    assert ct + 10 < squares < mr - 10


def test_without_an_mr_there_is_nothing_to_fade(
    asked: Asked, ct: Volume, labels: Volume, record: RunRecord, tmp_path: Path
) -> None:
    alone = asked(write_run_report(tmp_path, record, ReportImages(ct, labels)), QUESTIONS)
    assert "mr" not in alone
    assert alone["loaded"]["axial"]["lit"] > 0.2
