"""Real images through `hnseg curate`: planning CTs with contours, and folders as scanners leave them."""

import json
import shutil

import numpy as np
import pytest
from real_data import real_data, unpack

from hnseg.cli.main import main
from hnseg.curation.record import read_case
from hnseg.image.files import read_volume
from hnseg.image.segmentation import read_segmentation
from hnseg.organs import find_organ

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def planning_cts(tmp_path_factory):
    """Three patients of OpenKBP, curated: two with all contours, one without a brainstem's."""
    source, out = (tmp_path_factory.mktemp(name) for name in ("openkbp", "curated"))
    marks = (real_data() / "openkbp" / "availability.csv").read_text().splitlines()
    header = marks[0].split(";")
    rows = {row[0]: dict(zip(header, row, strict=True)) for row in (line.split(";") for line in marks[1:])}
    whole = [name for name, row in rows.items() if "0" not in row.values()][:2]
    without = next(name for name, row in rows.items() if row["Brainstem"] == "0")
    for name in (*whole, without):
        for kind in ("ct", "oar"):
            shutil.copy(real_data() / "openkbp" / f"{name}_{kind}.nii.gz", source)
    shutil.copy(real_data() / "openkbp" / "availability.csv", source)
    assert main(["curate", str(source), str(out), "--ct-window", "soft-tissue", "--ct-window=-500:1800"]) == 0
    return source, out, whole, without


def test_real_planning_cts_become_a_data_set_and_no_voxel_of_a_contour_is_lost(planning_cts):
    source, out, whole, without = planning_cts
    for name in (*whole, without):
        drawn = read_volume(source / f"{name}_oar.nii.gz")
        labels = read_volume(out / "cases" / name / "labels.nrrd")
        assert labels.grid.is_close(drawn.grid)
        for value, organ in ((2, "SpinalCord"), (3, "Parotid_R"), (4, "Parotid_L"), (7, "Bone_Mandible")):
            assert np.array_equal(labels.array_kji == find_organ(organ).label, drawn.array_kji == value), (name, organ)
        kinds = {remark.kind for remark in read_case(out / "cases" / name).remarks}
        assert not kinds & {"swapped", "two-sided"}


def test_an_organ_that_was_not_contoured_is_missing_and_no_background(planning_cts):
    _, out, whole, without = planning_cts
    manifest = json.loads((out / "manifest.json").read_text())
    assert "Brainstem" in manifest["cases"][without]["missing"]
    assert not any("Brainstem" in manifest["cases"][name]["missing"] for name in whole)
    masks = read_segmentation(out / "cases" / whole[0] / "segmentation.seg.nrrd")
    assert "Larynx (OpenKBP)" in [segment.name for segment in masks.segments]  # another structure than HaN-Seg's


def test_each_window_is_a_channel_of_the_export(planning_cts):
    _, out, whole, without = planning_cts
    root = out / "nnunet" / "Dataset501_HNSeg"
    dataset = json.loads((root / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "CT -160..240 HU", "1": "CT -500..1800 HU"}
    for name in (*whole, without):
        hu = read_volume(out / "cases" / name / "ct.nrrd").array_kji.astype(np.float32)
        for n, (low, high) in enumerate(((-160, 240), (-500, 1800))):
            channel = read_volume(next(root.glob(f"images*/{name}_{n:04d}.nrrd"))).array_kji
            np.testing.assert_allclose(channel, np.clip((hu - low) / (high - low), 0, 1) * 2 - 1, atol=1e-5)


def test_scanners_folders_end_with_a_case_a_doubt_or_a_reason(tmp_path, capsys):
    """A tilted gantry is put upright; contours drawn elsewhere make a case doubtful; an MR alone is no case."""
    for name, archive, parts in (
        ("tilted", "philips_head_phantom_tilt/philips_head_phantom.tar.xz", ()),
        ("half head", "dcpt_headphantom/dcpt_headphantom.tar.xz", ()),
        ("volunteer", "mr_t1_four_positions/mr_t1_four_positions.tar.xz", ("HFS",)),
    ):
        (tmp_path / "in" / name).mkdir(parents=True)
        unpack(real_data() / archive, tmp_path / "in" / name, *parts)
    out = tmp_path / "out"
    assert main(["curate", str(tmp_path / "in"), str(out)]) == 0
    said = capsys.readouterr()
    assert "1 good, 1 doubtful, 1 failed" in said.out
    assert "volunteer failed:" in said.err
    assert "holds no CT series" in said.err
    tilted, half = (read_case(out / "cases" / name) for name in ("tilted", "half head"))
    assert any("gantry tilt of" in remark.text for remark in tilted.remarks)
    assert half.status == "doubtful"
    assert {remark.kind for remark in half.remarks if remark.is_grave} == {"drawn-elsewhere"}
    assert "Brainstem" in half.annotated
