import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.organs import BY_NAME
from hnseg.reporting.record import (
    ImageRecord,
    ModelRecord,
    OrganRecord,
    RegistrationRecord,
    RemovalRecord,
    RunRecord,
    ScoreRecord,
)

LEFT, CORD = BY_NAME["Parotid_L"], BY_NAME["SpinalCord"]
LEFT_AT, CORD_AT = np.array([35.0, -12.0, 110.0]), np.array([0.0, 30.0, 85.0])


def oblique_grid() -> Grid:
    """Left-handed, tilted and anisotropic: i runs to the right, k downwards."""
    t = np.radians(12.0)
    axes = np.array([[-1, 0, 0], [0, np.cos(t), np.sin(t)], [0, np.sin(t), -np.cos(t)]])
    spacing, size = np.array([1.5, 1.5, 2.5]), np.array([80, 76, 52])
    origin = np.array([0.0, 5.0, 100.0]) - axes @ (spacing * (size - 1) / 2)
    return Grid(tuple(size.tolist()), tuple(spacing), tuple(origin), tuple(axes.ravel()))


def ball(grid: Grid, centre_lps: np.ndarray, radius_mm: float) -> np.ndarray:
    k, j, i = np.indices(grid.shape_kji)
    return np.linalg.norm(grid.to_lps(np.stack([i, j, k], axis=-1)) - centre_lps, axis=-1) <= radius_mm


@pytest.fixture(scope="session")
def labels() -> Volume:
    """A ball for the left parotid, left, in front and up; one for the cord, behind and down."""
    grid = oblique_grid()
    array = np.zeros(grid.shape_kji, np.uint8)
    array[ball(grid, LEFT_AT, 12.0)] = LEFT.label
    array[ball(grid, CORD_AT, 8.0)] = CORD.label
    return Volume(array, grid)


@pytest.fixture(scope="session")
def ct(labels: Volume) -> Volume:
    """Air, a ball of tissue, the left parotid brighter."""
    hu = np.where(ball(labels.grid, np.array([0.0, 5.0, 100.0]), 52.0), 20, -1000)
    return labels.with_array(np.where(labels.array_kji == LEFT.label, 200, hu).astype(np.int16))


@pytest.fixture(scope="session")
def record() -> RunRecord:
    return RunRecord(
        created="2026-01-02T03:04:05+00:00",
        versions={"hnseg": "0.1.0"},
        device="cpu",
        model=ModelRecord("tiny", "1.0", "ab" * 32, "Apache-2.0", "Phantoms only."),
        inputs={"ct": ImageRecord("<b>ct</b>.nrrd", (80, 76, 52), (1.5, 1.5, 2.5))},
        organs=(
            OrganRecord(
                LEFT.label, LEFT.name, 7.2, LEFT.range_ml, 0.91, 0.62, "check", ("It is small.",), ("phantom",)
            ),
            OrganRecord(CORD.label, CORD.name, 2.1, CORD.range_ml, taught_by=("phantom", "patient"), expected_dsc=0.87),
            OrganRecord(23, "Lips", 0.0, (5.0, 47.0), status="absent", notes=("The scan ends above the lips.",)),
        ),
        registration=RegistrationRecord("failed", "No overlap.", 3.5, used=False, metrics={"overlap": 0.0}),
        removals=(RemovalRecord("Parotid_L", 0.4, "apart from the organ"),),
        scores=(ScoreRecord("Parotid_L", 0.9, 1.5), ScoreRecord("Lips", 0.0, None)),
        warnings=("Beware of </script><b>tags</b>.",),
        seconds={"prediction": 61.5, "reading": 0.5},
    )


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ANSWER = """
function answer(value) {
  const said = document.createElement("pre");
  said.id = "seen"; said.textContent = JSON.stringify(value);
  document.body.append(said);
}
"""

Asked = Callable[[Path, str], Any]


@pytest.fixture(scope="session")
def asked() -> Asked:
    """What a real browser answers that opens a page and runs a script after the page's own; it calls ``answer``."""
    if not BROWSER:
        pytest.skip("The page was NOT tested: there is no Chromium on the PATH.")
    return ask


def ask(page: Path, script: str) -> Any:
    asking = page.with_name("asking.html")
    text = page.read_text(encoding="utf-8").replace("</body>", f"<script>{ANSWER}{script}</script></body>")
    asking.write_text(text, encoding="utf-8")
    words = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader",
        "--window-size=1300,1200", "--virtual-time-budget=5000", f"--user-data-dir={page.parent / 'profile'}",
        "--dump-dom", asking.as_uri(),
    ]  # fmt: skip
    found = subprocess.run(words, capture_output=True, text=True, timeout=240)
    match = re.search(r'<pre id="seen">(.*?)</pre>', found.stdout, re.DOTALL)
    assert match, found.stderr[-2000:]
    return json.loads(html.unescape(match[1]))
