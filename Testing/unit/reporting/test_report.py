import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hnseg.errors import ConfigError, OutputError, UnreadableFile
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.reporting.meshes import organ_meshes
from hnseg.reporting.page import page
from hnseg.reporting.payload import LABEL_STEP, MR_FLOOR, companded, tiled, viewer_data
from hnseg.reporting.record import RunRecord, read_record, write_record
from hnseg.reporting.report import ReportImages, write_run_report
from hnseg.reporting.views import Views, make_views
from hnseg.version import RESEARCH_USE


def test_a_record_survives_its_file(record: RunRecord, tmp_path: Path) -> None:
    write_record(record, tmp_path / "run.json")
    assert read_record(tmp_path / "run.json") == record
    assert json.loads((tmp_path / "run.json").read_text())["notice"] == RESEARCH_USE


def test_other_files_are_refused_as_records(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UnreadableFile, match=r"a\.json is not a readable JSON file"):
        read_record(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{"creatd": 1}')
    with pytest.raises(ConfigError, match=r"b\.json has no setting 'creatd'; did you mean 'created'"):
        read_record(tmp_path / "b.json")


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_tiles_run_in_rows_from_the_lowest_slice() -> None:
    array = np.arange(3 * 2 * 2, dtype=np.uint8).reshape(3, 2, 2)
    assert tiled(array, 2).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 0, 0], [10, 11, 0, 0]]


def test_the_viewer_gets_exactly_the_labels_and_every_organ_at_a_voxel_of_its_own(ct: Volume, labels: Volume) -> None:
    views = make_views(ct, labels)
    data = json.loads(json.dumps(viewer_data(views, organ_meshes(labels), None)))
    columns, (i, j, k) = data["columns"], data["size"]
    sheet = decoded(data["sheets"]["labels"]).reshape(-1, j, columns, i).transpose(0, 2, 1, 3).reshape(-1, j, i)[:k]
    np.testing.assert_array_equal(sheet, views.labels * LABEL_STEP)
    assert set(data["sheets"]) == {"ct", "labels"}
    assert [organ["name"] for organ in data["organs"]] == ["Parotid_L", "SpinalCord"]
    for organ in data["organs"]:
        x, y, z = organ["centre"]
        assert views.labels[z, y, x] == organ["label"]
    assert data["start"] in [organ["centre"] for organ in data["organs"]], "something is to be seen at once"


def test_the_viewer_gets_the_ct_in_hu_finest_in_soft_tissue() -> None:
    hu = np.array([[[-3000, -1000, -600, -160, 37, 240, 1500, 2000, 30_000]]], np.int16)
    data = viewer_data(Views(Grid((9, 1, 1), (1, 1, 1), (0, 0, 0)), hu, np.zeros(hu.shape, np.uint8)), (), None)
    back = np.array(data["hu_of_gray"])[companded(hu)].ravel()
    assert np.abs(back - np.clip(hu.ravel(), -1000, 2000)).max() <= 22
    assert np.abs(back - hu.ravel())[3:6].max() <= 2


def test_the_viewers_mr_is_black_only_where_it_does_not_reach(ct: Volume, labels: Volume) -> None:
    upper = Volume(ct.array_kji[:20], ct.grid.cropped((0, 0, 0), (*ct.grid.size_ijk[:2], 20)))
    views = make_views(ct, labels, mr=upper)
    sheet = decoded(viewer_data(views, (), None)["sheets"]["mr"])
    assert views.mr_valid is not None
    assert 0.1 < views.mr_valid.mean() < 0.9
    there = tiled(views.mr_valid.astype(np.uint8), sheet.shape[1] // views.grid.size_ijk[0]) == 1
    assert ((sheet >= MR_FLOOR / 2) == there).mean() > 0.99


def test_the_viewers_surfaces_are_the_meshes_to_a_fraction_of_a_millimetre(ct: Volume, labels: Volume) -> None:
    meshes = organ_meshes(labels)
    data = viewer_data(make_views(ct, labels), meshes, None)
    low, high = (np.array(side) for side in data["mesh_box"])
    for mesh, sent in zip(meshes, data["meshes"], strict=True):
        share = np.frombuffer(base64.b64decode(sent["points"]), "<u2").reshape(-1, 4)[:, :3] / 65535
        assert np.abs(low + share * (high - low) - mesh.points_lps).max() < 0.01
        triangles = np.frombuffer(base64.b64decode(sent["triangles"]), "<u2").reshape(-1, 3)
        np.testing.assert_array_equal(triangles, mesh.triangles)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "input", "link"):
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_names_what_matters_and_asks_nothing_of_the_network(record: RunRecord) -> None:
    text = page(record, {"slices": [("slices-1.png", "A & B")]}, {"note": "</script>"})
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.addresses == ["slices-1.png", "#viewer", "#viewer"], "two organs were found"
    assert not re.search(r"https?://|@import|url\(", text)
    for shown in (
        "2 of 3",
        "It is small.",
        "apart from the organ",
        "Phantoms only.",
        "No overlap.",
        "NOT used",
        "0.900",
    ):
        assert shown in text
    assert RESEARCH_USE in text
    assert "<b>ct</b>" not in text
    assert "Beware of &lt;/script&gt;" in text


def test_an_organ_that_phantoms_alone_taught_stands_out(record: RunRecord) -> None:
    text = page(record, {}, {})
    assert text.count('<span class="tag check">phantoms only</span>') == 1
    assert '<td class="text">patients</td>' in text
    assert "<td>0.87</td>" in text


def test_warnings_come_before_the_pictures(record: RunRecord) -> None:
    text = page(record, {"slices": [("slices-1.png", "")]}, {})
    assert text.index("Read this first") < text.index("slices-1.png")
    assert "Read this first" not in page(replace(record, warnings=()), {}, {})


def test_the_report_is_a_folder_with_a_page_and_its_pictures(
    ct: Volume, labels: Volume, record: RunRecord, tmp_path: Path
) -> None:
    said: list[float] = []
    images = ReportImages(ct, labels, mr=ct, reference=labels)
    path = write_run_report(tmp_path / "r", record, images, on_progress=lambda f, _: said.append(f))
    names = sorted(entry.name for entry in path.parent.iterdir())
    assert names == ["fusion-1.png", "report.html", "slices-1.png", "slices-2.png", "surfaces-1.png"]
    assert said == sorted(said)
    assert said[-1] == 1.0
    assert np.asarray(Image.open(path.parent / "slices-1.png")).std() > 10


def test_a_report_without_any_organ_is_still_a_report(ct: Volume, record: RunRecord, tmp_path: Path) -> None:
    nothing = ct.with_array(np.zeros(ct.array_kji.shape, np.uint8))
    assert write_run_report(tmp_path, record, ReportImages(ct, nothing)).exists()


def test_a_place_that_cannot_be_written_is_refused(
    ct: Volume, labels: Volume, record: RunRecord, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="The report cannot be written"):
        write_run_report(tmp_path / "file" / "r", record, ReportImages(ct, labels))
