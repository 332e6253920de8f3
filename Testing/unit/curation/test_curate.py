"""`hnseg curate` from folder to data set, on a tiny HaN-Seg cohort with every oddity planted."""

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_cohort import bytes_of

from hnseg.cli.main import main
from hnseg.curation.bias import N4Settings
from hnseg.curation.intensity import NyulStandard
from hnseg.curation.layouts import find_cases
from hnseg.curation.record import read_case
from hnseg.curation.settings import CurationSettings
from hnseg.curation.sources import has_sources
from hnseg.errors import Cancelled, ConfigError, InputError, OutputError
from hnseg.image.files import read_volume, write_volume
from hnseg.image.grid import Grid
from hnseg.image.segmentation import read_segmentation
from hnseg.image.volume import Volume
from hnseg.jobs.curate import CurateRequest, run_curate
from hnseg.organs import find_organ
from hnseg.plain import from_plain

CENTRES = {
    "Brainstem": (2, -20, 390), "Parotid_L": (44, -30, 380), "Parotid_R": (-40, -30, 380), "Pituitary": (2, -45, 400),
    "Larynx_SG": (2, -40, 345), "Arytenoid": (2, -40, 341), "OpticChiasm": (2, -50, 410),
}  # fmt: skip
"""LPS mm."""
TILT = np.radians(7.0)
CT_GRID = Grid(
    (40, 44, 36),
    (4.0, 4.0, 5.0),
    (-80.0, -120.0, 300.0),
    (1, 0, 0, 0, np.cos(TILT), -np.sin(TILT), 0, np.sin(TILT), np.cos(TILT)),
)
MR_GRID = Grid((30, 34, 22), (4.5, 4.5, 6.0), (-66.0, -105.0, 330.0))
SETTINGS = CurationSettings(registration="none", n4=N4Settings(levels=1, iterations=3), seed=1)
"""CT and MR of the tiny head share one frame; the registration has tests of its own."""


def head(grid, *, air, tissue, bone):
    """An egg of tissue with a skull and an airway off its middle, the same in the patient's space on any grid."""
    k, j, i = np.indices(grid.shape_kji)
    x, y, z = np.moveaxis(grid.to_lps(np.stack([i, j, k], axis=-1)) - (2.0, -30.0, 385.0), -1, 0)
    radius = np.sqrt((x / 60) ** 2 + (y / 70) ** 2 + (z / 80) ** 2)
    values = np.where(radius < 1, tissue, air)
    values[(radius > 0.8) & (radius < 0.92) & (z > -10)] = bone
    values[((x - 8) ** 2 + (y + 15) ** 2 < 100) & (z < 0) & (radius < 0.8)] = air
    values = values + np.random.default_rng(1).normal(0, 12, values.shape)
    return Volume(np.round(values).astype(np.int16), grid)


@pytest.fixture(scope="session")
def ct():
    return head(CT_GRID, air=-1000, tissue=40, bone=900)


@pytest.fixture(scope="session")
def mr():
    return head(MR_GRID, air=15, tissue=420, bone=60)


def block(centre, grid=CT_GRID, half=(3, 2, 1)):
    """A mask of 7 × 5 × 3 voxels; the arytenoid's lies within the larynx's."""
    i, j, k = np.rint(grid.to_ijk(np.array(centre, float))).astype(int)
    array = np.zeros(grid.shape_kji, np.uint8)
    array[k - half[2] : k + half[2] + 1, j - half[1] : j + half[1] + 1, i - half[0] : i + half[0] + 1] = 1
    return Volume(array, grid)


def write_hanseg(folder, name, ct, mr, masks):
    place = folder / name
    place.mkdir(parents=True)
    write_volume(ct, place / f"{name}_IMG_CT.nrrd")
    if mr is not None:
        write_volume(mr, place / f"{name}_IMG_MR_T1.nrrd")
    for organ, mask in masks.items():
        write_volume(mask, place / f"{name}_OAR_{organ}.seg.nrrd")


@pytest.fixture(scope="session")
def cohort(tmp_path_factory, ct, mr):
    """Semicolons, an alias as header, 0 and 0.5, masks without names inside, overlaps, a swap, a mask off the grid, a
    case without MR, and one whose CT is no CT.
    """
    folder = tmp_path_factory.mktemp("cohort") / "set_1"
    masks = {name: block(centre) for name, centre in CENTRES.items()}
    write_hanseg(folder, "case_01", ct, mr, masks)
    odd = {name: mask for name, mask in masks.items() if name != "OpticChiasm"}
    odd["Parotid_L"], odd["Parotid_R"] = odd["Parotid_R"], odd["Parotid_L"]
    odd["Brainstem"] = block(CENTRES["Brainstem"], Grid((60, 60, 30), (3.0, 3.0, 6.0), (-90.0, -110.0, 310.0)))
    write_hanseg(folder, "case_02", ct, None, odd)
    write_hanseg(folder, "case_03", ct, mr, masks)
    write_hanseg(folder, "case_04", mr, None, masks)
    header = "case;brainstem;ParotidL;Parotid R;Pituitary;Larynx_SG;Arytenoids;Optic Chiasm"
    rows = ["case_01;1;1;1;0,5;1;1;1", "case_02;1;1;1;1;1;1;0", "case_03;1;1;1;1;1;1;1", "case_04;1;1;1;1;1;1;1"]
    (folder / "OAR_data.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def request(cohort, out, **changes):
    return CurateRequest(str(cohort), str(out), **{"settings": SETTINGS, **changes})


@pytest.fixture(scope="session")
def curated(cohort, tmp_path_factory):
    """The cohort, curated once."""
    out = tmp_path_factory.mktemp("curated") / "out"
    return out, run_curate(request(cohort, out))


def manifest_of(out):
    return json.loads((out / "manifest.json").read_text())


def test_every_case_ends_with_a_verdict_and_the_bad_one_with_its_reason(curated):
    _, outcome = curated
    assert outcome.good == ()
    assert outcome.doubtful == ("case_01", "case_02", "case_03")  # nobody checked the MR's place; case_02 is swapped
    assert list(outcome.failed) == ["case_04"]
    assert "not in HU" in outcome.failed["case_04"]


def test_the_images_of_a_case_share_the_cts_grid_and_the_ct_is_untouched(curated, ct):
    case = curated[0] / "cases" / "case_01"
    assert np.array_equal(read_volume(case / "ct.nrrd").array_kji, ct.array_kji)
    for name in ("ct.nrrd", "mr.nrrd", "mr_valid.nrrd", "labels.nrrd"):
        assert read_volume(case / name).grid.is_close(CT_GRID)
    assert read_segmentation(case / "segmentation.seg.nrrd").grid.is_close(CT_GRID)
    assert (case / "ct_to_mr.tfm").is_file()


def test_the_mr_reaches_only_where_it_was_scanned(curated):
    case = curated[0] / "cases" / "case_01"
    mr, valid = read_volume(case / "mr.nrrd").array_kji, read_volume(case / "mr_valid.nrrd").array_kji > 0
    k, j, i = np.indices(CT_GRID.shape_kji)
    at = MR_GRID.to_ijk(CT_GRID.to_lps(np.stack([i, j, k], axis=-1)))
    seen = ((at > -0.5) & (at < np.array(MR_GRID.size_ijk) - 0.5)).all(axis=-1)  # to the voxels' outer edges
    assert 0.1 < seen.mean() < 0.9
    assert (valid == seen).mean() > 0.999
    assert (mr[~valid] == 0).all()
    assert read_case(case).mr.coverage == pytest.approx(valid.mean(), abs=1e-4)


def test_overlaps_are_kept_in_the_segmentation_decided_in_the_labels_and_written_down(curated):
    case = curated[0] / "cases" / "case_01"
    masks = read_segmentation(case / "segmentation.seg.nrrd")
    for name in ("Larynx_SG", "Arytenoid"):
        assert np.array_equal(masks.mask(name).array_kji, block(CENTRES[name]).array_kji > 0)
    shared = masks.mask("Larynx_SG").array_kji & masks.mask("Arytenoid").array_kji
    labels = read_volume(case / "labels.nrrd").array_kji
    assert shared.any()
    assert (labels[shared] == find_organ("Arytenoid").label).all()
    conflicts = {(c.winner, c.loser): c.voxels for c in read_case(case).conflicts}
    assert conflicts["Arytenoid", "Larynx_SG"] == shared.sum()
    rows = (case / "overlaps.csv").read_text().splitlines()
    assert (len(rows), len(rows[0].split(","))) == (31, 31)


def test_marks_of_the_availability_table_are_honoured_under_its_aliases(curated):
    first, second = (read_case(curated[0] / "cases" / name) for name in ("case_01", "case_02"))
    assert first.ignored == ("Pituitary",)
    assert "Pituitary" not in first.annotated
    assert "OpticChiasm" not in second.annotated
    assert not any(remark.structure == "OpticChiasm" for remark in second.remarks)


def test_oddities_of_a_case_are_told_with_their_kind(curated):
    kinds = {(remark.kind, remark.structure) for remark in read_case(curated[0] / "cases" / "case_02").remarks}
    assert {("swapped", "Parotid_L"), ("off-grid", "Brainstem"), ("overlap", "Arytenoid")} <= kinds


def test_every_scale_is_fitted_and_kept_with_the_case(curated):
    scales = read_case(curated[0] / "cases" / "case_01").mr.scales
    assert 300 < scales.z_score.mean < 500  # the head's tissue is 420, its bone 60
    assert scales.match_ct.to_low < scales.match_ct.to_high
    standard = from_plain(NyulStandard, manifest_of(curated[0])["nyul"], where="manifest")
    assert standard.scale(scales.landmarks).apply(np.array(scales.landmarks))[[0, -1]] == pytest.approx(
        [0, 100], abs=0.01
    )


def test_the_manifest_vouches_for_every_source_with_its_digest(curated, cohort):
    manifest = manifest_of(curated[0])
    sources = manifest["cases"]["case_01"]["sources"]
    assert len(sources) == 2 + len(CENTRES)
    for source in sources:
        assert hashlib.sha256((cohort / source["path"]).read_bytes()).hexdigest() == source["sha256"]
    assert manifest["settings"]["seed"] == 1
    assert manifest["versions"]["SimpleITK"]
    assert manifest["cases"]["case_01"]["registration"]["verdict"] == "doubtful"


def test_the_report_shows_every_case_and_the_table_beside_it_too(curated):
    out, _ = curated
    page = (out / "report.html").read_text()
    for name in ("case_01", "case_02", "case_03"):
        assert f'id="{name}"' in page
        assert f"cases/{name}/organs.jpg" in page
        assert (out / "cases" / name / "organs.jpg").is_file()
    assert "cases/case_01/fusion.jpg" in page
    assert "cases/case_02/fusion.jpg" not in page
    assert "case_04 failed" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    rows = [line.split(",") for line in (out / "report.csv").read_text().splitlines()]
    assert [row[:2] for row in rows[1:]] == [
        ["case_01", "doubtful"], ["case_02", "doubtful"], ["case_03", "doubtful"], ["case_04", "failed"],
    ]  # fmt: skip


def test_the_nnunet_export_keeps_the_rules_of_its_format(curated):
    """Consecutive labels, every channel of every case, one geometry per case, only labels that are announced."""
    root = curated[0] / "nnunet" / "Dataset501_HNSeg"
    dataset = json.loads((root / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "CT", "1": "MR"}
    assert sorted(dataset["labels"].values()) == list(range(len(CENTRES) + 2))
    assert dataset["labels"]["ignore"] == len(CENTRES) + 1
    train = sorted(path.name.removesuffix(".nrrd") for path in (root / "labelsTr").iterdir())
    assert len(train) == dataset["numTraining"]
    for kind in ("Tr", "Ts"):
        for labels_path in (root / f"labels{kind}").iterdir():
            labels = read_volume(labels_path)
            assert set(np.unique(labels.array_kji)) <= set(dataset["labels"].values())
            for channel in range(2):
                image = read_volume(root / f"images{kind}" / labels_path.name.replace(".nrrd", f"_{channel:04d}.nrrd"))
                assert image.grid.is_close(labels.grid)
                assert np.isfinite(image.array_kji).all()
    folds = json.loads((root / "splits_final.json").read_text())
    assert sorted(name for fold in folds for name in fold["val"]) == train


CHECK = """
import sys
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
if __name__ == "__main__":
    verify_dataset_integrity(sys.argv[1], num_processes=1)
"""


@pytest.fixture
def checked_by_nnunet(tmp_path):
    """What nnU-Net's own integrity check says of a raw data set. It may live in an environment of its own."""
    python = os.environ.get("HNSEG_NNUNET_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import nnunetv2"], capture_output=True, check=False).returncode:
        assert python == sys.executable, f"HNSEG_NNUNET_PYTHON names {python}, which has no nnunetv2."
        pytest.skip("nnU-Net v2 is not installed; HNSEG_NNUNET_PYTHON may name a Python that has it.")
    script = tmp_path / "check.py"  # a file, as its worker processes start from it
    script.write_text(CHECK)
    return lambda dataset: subprocess.run([python, script, dataset], capture_output=True, text=True, check=False)


def test_the_nnunet_export_passes_nnunets_own_integrity_check(checked_by_nnunet, cohort, tmp_path):
    """It looks at training cases alone, so all are; one has ignored voxels, one has no MR."""
    out = tmp_path / "out"
    run_curate(request(cohort, out, settings=replace(SETTINGS, test_share=0.0)))
    dataset = out / "nnunet" / "Dataset501_HNSeg"
    assert len(list((dataset / "labelsTr").iterdir())) == 3
    said = checked_by_nnunet(dataset)
    assert said.returncode == 0, said.stderr
    assert "verify_dataset_integrity Done" in said.stdout
    assert not re.search("error:|warning:|mismatch", said.stdout, re.IGNORECASE), said.stdout


def test_nnunets_check_refuses_an_export_with_a_label_that_was_not_announced(checked_by_nnunet, curated, tmp_path):
    """So that passing it means something."""
    dataset = shutil.copytree(curated[0] / "nnunet" / "Dataset501_HNSeg", tmp_path / "Dataset501_HNSeg")
    labels = next((dataset / "labelsTr").iterdir())
    volume = read_volume(labels)
    write_volume(volume.with_array(np.where(volume.array_kji == 1, 99, volume.array_kji).astype(np.uint8)), labels)
    said = checked_by_nnunet(dataset)
    assert said.returncode != 0
    assert "unexpected labels" in said.stderr


def test_ignored_masks_become_nnunets_ignore_label_unless_an_organ_is_there(curated):
    root = curated[0] / "nnunet" / "Dataset501_HNSeg"
    labels = read_volume(next(root.glob("labels*/case_01.nrrd"))).array_kji
    pituitary = block(CENTRES["Pituitary"]).array_kji > 0
    ignore = json.loads((root / "dataset.json").read_text())["labels"]["ignore"]
    assert (labels[pituitary] == ignore).any()
    assert set(np.unique(labels[~pituitary])).isdisjoint({ignore})


def test_monai_reads_the_data_list(curated):
    from monai.data import load_decathlon_datalist

    out, _ = curated
    training = load_decathlon_datalist(str(out / "datalist.json"), data_list_key="training", base_dir=str(out))
    testing = load_decathlon_datalist(str(out / "datalist.json"), data_list_key="testing", base_dir=str(out))
    assert len(training) + len(testing) == 3
    for item in training:
        assert [Path(path).exists() for path in (*item["image"], item["label"])] == [True] * 3


def test_a_finished_curation_is_left_as_it_is(cohort, curated):
    out, outcome = curated
    before = {path: path.stat().st_mtime_ns for path in (out / "cases").rglob("*")}
    assert run_curate(request(cohort, out)) == outcome
    assert {path: path.stat().st_mtime_ns for path in (out / "cases").rglob("*")} == before


def test_cases_of_another_input_under_the_same_names_are_done_again(cohort, curated, tmp_path):
    """The second hospital's case_01 has another CT and its case_03 other masks; it has no case_02."""
    out, theirs = copied(curated, tmp_path), tmp_path / "theirs"
    shutil.copytree(cohort, theirs)
    shutil.rmtree(theirs / "case_02")
    image = theirs / "case_01" / "case_01_IMG_CT.nrrd"
    ct = read_volume(image)
    write_volume(ct.with_array(np.where(ct.array_kji > 500, ct.array_kji + 100, ct.array_kji)), image)
    (theirs / "case_03" / "case_03_OAR_Pituitary.seg.nrrd").unlink()
    outcome = run_curate(request(theirs, out))
    assert {*outcome.good, *outcome.doubtful} == {"case_01", "case_03"}
    assert any("still holds case_02, not in the input now" in note for note in outcome.notes)
    assert read_volume(out / "cases" / "case_01" / "ct.nrrd").array_kji.max() > ct.array_kji.max()
    assert "Pituitary" not in read_case(out / "cases" / "case_03").annotated
    assert "case_02" not in manifest_of(out)["cases"]
    run_curate(request(cohort, out))
    assert bytes_of(out) == bytes_of(curated[0])


@pytest.mark.parametrize("same_size", [True, False])
def test_a_ct_that_has_changed_is_noticed_whatever_its_size(cohort, tmp_path, same_size):
    source = shutil.copytree(cohort / "case_02", tmp_path / "in" / "case_02")
    image = source / "case_02_IMG_CT.nrrd"
    run_curate(request(tmp_path / "in", tmp_path / "out"))
    (case,) = find_cases(tmp_path / "in").cases
    records = read_case(tmp_path / "out" / "cases" / "case_02").sources
    assert has_sources(case, tmp_path / "in", records)
    content = bytearray(image.read_bytes())
    content[-9] ^= 1
    image.write_bytes(content if same_size else content + b"0")
    assert not has_sources(case, tmp_path / "in", records)


def test_a_file_that_the_disk_does_not_give_fails_its_case_alone(cohort, tmp_path, monkeypatch):
    from hnseg.curation import case as case_module

    real = case_module.read_volume

    def broken(path):
        if "case_02" in str(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path)

    monkeypatch.setattr("hnseg.curation.masks.read_volume", broken)
    outcome = run_curate(request(cohort, tmp_path / "out"))
    assert "A file of case_02 cannot be read" in outcome.failed["case_02"]
    assert "case_01" in outcome.doubtful


def test_of_two_masks_of_one_organ_the_first_is_kept_and_the_second_told(cohort, tmp_path):
    source = shutil.copytree(cohort / "case_03", tmp_path / "in" / "case_03")
    shutil.copyfile(source / "case_03_OAR_Pituitary.seg.nrrd", source / "case_03_OAR_Optic Chiasm.seg.nrrd")
    run_curate(request(tmp_path / "in", tmp_path / "out"))
    case = tmp_path / "out" / "cases" / "case_03"
    texts = [remark.text for remark in read_case(case).remarks if remark.structure == "OpticChiasm"]
    assert any("has a second mask" in text for text in texts)
    kept = read_segmentation(case / "segmentation.seg.nrrd").mask("OpticChiasm").array_kji
    assert np.array_equal(kept, block(CENTRES["Pituitary"]).array_kji > 0), "the space sorts before the letter"


def copied(curated, tmp_path):
    return shutil.copytree(curated[0], tmp_path / "out", copy_function=shutil.copyfile)


def test_what_is_missing_or_half_done_is_done_again_to_the_same_bytes(cohort, curated, tmp_path):
    out = copied(curated, tmp_path)
    shutil.rmtree(out / "cases" / "case_02")
    (out / "manifest.json").unlink()
    half = out / "cases" / ".case_02.partial"
    half.mkdir()
    (half / "ct.nrrd").write_bytes(b"half")
    run_curate(request(cohort, out))
    assert bytes_of(out) == bytes_of(curated[0])


def test_killed_at_any_moment_the_same_command_ends_with_the_same_bytes(cohort, curated, tmp_path):
    out = tmp_path / "out"
    code = (
        "import sys\nfrom hnseg.jobs.curate import CurateRequest, run_curate\nimport json\n"
        "run_curate(CurateRequest.from_json(json.loads(sys.argv[1])))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, json.dumps(request(cohort, out).to_json())])
    while process.poll() is None and not (out / "cases" / "case_01").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "manifest.json").exists()
    run_curate(request(cohort, out))
    assert bytes_of(out) == bytes_of(curated[0])


def test_two_dask_workers_give_the_same_bytes_as_this_process(cohort, curated, tmp_path):
    said = []
    out = tmp_path / "out"
    environment = dict(os.environ)
    outcome = run_curate(request(cohort, out, workers=2), lambda fraction, text: said.append((fraction, text)))
    assert dict(os.environ) == environment, "processes started later are not to be Dask's"
    assert bytes_of(out) == bytes_of(curated[0])
    assert outcome.failed == curated[1].failed
    assert any("of 4 done" in text for _, text in said)


def test_a_full_disk_stops_with_a_sentence_loses_nothing_and_can_be_gone_on_with(
    cohort, curated, tmp_path, monkeypatch
):
    from hnseg.curation import case as case_module

    real, out = case_module.write_volume, tmp_path / "out"

    def full(volume, path):
        if "case_02" in str(path) and path.name == "labels.nrrd":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(volume, path)

    monkeypatch.setattr(case_module, "write_volume", full)
    with pytest.raises(OutputError, match="No space left on device"):
        run_curate(request(cohort, out))
    assert [path.name for path in (out / "cases").iterdir()] == ["case_01"]
    monkeypatch.undo()
    run_curate(request(cohort, out))
    assert bytes_of(out) == bytes_of(curated[0])


def test_cancelling_leaves_finished_cases_and_nothing_half_done(cohort, tmp_path):
    def cancel(fraction, text):
        if "case_02" in text and "masks" in text:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        run_curate(request(cohort, tmp_path / "out"), cancel)
    assert [path.name for path in (tmp_path / "out" / "cases").iterdir()] == ["case_01"]


def test_a_persons_word_on_the_mr_is_kept_and_the_case_done_again(cohort, curated, tmp_path):
    out = copied(curated, tmp_path)
    run_curate(request(cohort, out, reject_mr=("case_03",)))
    rejected = read_case(out / "cases" / "case_03")
    assert (rejected.alignment.overruled, rejected.mr, rejected.alignment.used) == ("rejected", None, False)
    assert not (out / "cases" / "case_03" / "mr.nrrd").exists()
    run_curate(request(cohort, out, accept_mr=("case_03",)))
    accepted = read_case(out / "cases" / "case_03")
    assert accepted.alignment.overruled == "accepted"
    assert accepted.status == "good"


def test_another_curations_folder_and_a_strangers_are_not_touched(cohort, curated, tmp_path):
    with pytest.raises(OutputError, match=r'a curation with n4 \{.*"levels": 1, .*\} \(now null\); give'):
        run_curate(request(cohort, curated[0], settings=replace(SETTINGS, n4=None)))
    (tmp_path / "letter.txt").write_text("keep me")
    with pytest.raises(OutputError, match="other files"):
        run_curate(request(cohort, tmp_path))
    assert [path.name for path in tmp_path.iterdir() if path.name != "cases"] == ["letter.txt"]


def test_an_output_within_the_input_and_a_case_that_is_not_there_are_refused(cohort, tmp_path):
    with pytest.raises(ConfigError, match="beside the input"):
        request(cohort, cohort / "out")
    with pytest.raises(ConfigError, match="did you mean 'case_01'"):
        run_curate(request(cohort, tmp_path / "out", accept_mr=("case_011",)))


def test_a_cohort_of_which_no_case_can_be_used_is_an_error_that_leaves_its_report(cohort, tmp_path):
    shutil.copytree(cohort / "case_04", tmp_path / "in" / "case_04")
    with pytest.raises(InputError, match="None of the 1 cases could be curated; case_04"):
        run_curate(request(tmp_path / "in", tmp_path / "out"))
    assert "case_04 failed" in (tmp_path / "out" / "report.html").read_text()


def test_the_command_crops_scales_and_tells_what_failed(cohort, tmp_path, capsys):
    out = tmp_path / "out"
    source = tmp_path / "in"
    for name in ("case_01", "case_04"):
        shutil.copytree(cohort / name, source / name)
    options = [
        "--registration",
        "none",
        "--no-bias-correction",
        "--mr-scale",
        "nyul",
        "--shape",
        "512",
        "--test-share",
        "0",
    ]
    assert main(["curate", str(source), str(out), *options]) == 0
    said = capsys.readouterr()
    assert "case_04 failed: The CT" in said.err
    assert "0 good, 1 doubtful, 1 failed" in said.out
    record = read_case(out / "cases" / "case_01")
    assert record.grid.size_ijk[:2] == (512, 512)
    assert [row.after_ml for row in record.kept] == pytest.approx([row.before_ml for row in record.kept])
    assert len(record.kept) == len(CENTRES)
    exported = read_volume(out / "nnunet" / "Dataset501_HNSeg" / "imagesTr" / "case_01_0001.nrrd").array_kji
    valid = read_volume(out / "cases" / "case_01" / "mr_valid.nrrd").array_kji > 0
    assert (exported[~valid] == 0).all()
    assert 0 <= np.median(exported[valid & (exported > 20)]) <= 100


def test_mrs_are_brought_to_the_scale_that_another_curation_kept(cohort, curated, tmp_path, capsys):
    shutil.copytree(cohort / "case_01", tmp_path / "in" / "case_01")
    kept = manifest_of(curated[0])
    kept["nyul"]["landmarks"] = [10 * value for value in kept["nyul"]["landmarks"]]
    (tmp_path / "manifest.json").write_text(json.dumps(kept))
    options = ["--registration", "none", "--no-bias-correction", "--test-share", "0", "--mr-scale", "nyul"]
    command = ["curate", str(tmp_path / "in"), str(tmp_path / "out"), *options]
    assert main([*command, "--nyul-standard", str(tmp_path / "manifest.json")]) == 0
    assert manifest_of(tmp_path / "out")["nyul"] == kept["nyul"]
    exported = tmp_path / "out" / "nnunet" / "Dataset501_HNSeg" / "imagesTr" / "case_01_0001.nrrd"
    mr, valid = (read_volume(tmp_path / "out" / "cases" / "case_01" / name) for name in ("mr.nrrd", "mr_valid.nrrd"))
    scale = from_plain(NyulStandard, kept["nyul"], where="manifest").scale(
        read_case(tmp_path / "out" / "cases" / "case_01").mr.scales.landmarks
    )
    expected = np.where(valid.array_kji > 0, scale.apply(mr.array_kji), 0)
    np.testing.assert_allclose(read_volume(exported).array_kji, expected, rtol=1e-5)
    before = (tmp_path / "out" / "cases" / "case_01" / "case.json").stat().st_mtime_ns
    assert main([*command, "--ct-window", "brain"]) == 0, "what only the exports depend on may change"
    assert (tmp_path / "out" / "cases" / "case_01" / "case.json").stat().st_mtime_ns == before
    assert manifest_of(tmp_path / "out")["nyul"] != kept["nyul"]
    assert manifest_of(tmp_path / "out")["exports"]["channels"] == ["CT 0..80 HU", "MR"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"nyul": null}', "no training case there had an MR"),
        ("{}", "No Nyúl standard can be read from"),
        ('{"nyul": {"percentiles": [1.0, 99.0], "landmarks": [0.0, 100.0]}}', "needs the percentiles"),
        ('{"nyul": {"percentiles": [1.0, 99.0], "landmarks": [0.0]}}', "as many landmarks as percentiles"),
        ('{"nyul": {"percentiles": [1.0, 99.0], "landmarks": [9.0, 1.0]}}', "must rise strictly"),
    ],
)
def test_a_standard_that_cannot_be_is_refused_before_anything_is_written(cohort, tmp_path, capsys, content, words):
    (tmp_path / "manifest.json").write_text(content)
    options = ["--mr-scale", "nyul", "--nyul-standard", str(tmp_path / "manifest.json")]
    assert main(["curate", str(cohort), str(tmp_path / "out"), *options]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_standard_without_its_scale_is_refused(cohort, curated, tmp_path, capsys):
    options = ["--nyul-standard", str(curated[0] / "manifest.json")]
    assert main(["curate", str(cohort), str(tmp_path / "out"), *options]) == 1
    assert "needs the scale 'nyul', got 'scanner'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--workers", "0"], 2, "at least 1"),
        (["--ct-window", "soft"], 2, "expected soft-tissue, brain, bone"),
        (["--ct-window", "5:3"], 2, "low before high"),
        (["--ct-window=-inf:240"], 2, "low before high"),
        (["--ct-window", "bone", "--ct-window=-500:1800"], 1, "given twice"),
        (["--spacing", "1,2"], 2, "three numbers"),
        (["--workers", "2", "--scheduler", "tcp://x:1"], 2, "not allowed"),
        (["--scheduler", "nowhere"], 1, "No Dask scheduler answers at nowhere"),
    ],
)
def test_wrong_usage_and_a_scheduler_that_is_not_there_are_told(cohort, tmp_path, capsys, options, code, words):
    assert main(["curate", str(cohort), str(tmp_path / "out"), *options]) == code
    assert words in capsys.readouterr().err


def test_tumours_and_pet_of_a_hecktor_cohort_reach_the_exports(tmp_path, ct):
    """Primary tumour and nodes get labels 31 and 32, and 1 and 2 in the export; a case without PET has zeros for it."""
    images, labels = tmp_path / "in" / "imagesTr", tmp_path / "in" / "labelsTr"
    images.mkdir(parents=True)
    labels.mkdir()
    coarse = CT_GRID.respaced((8.0, 8.0, 10.0))
    for name in ("CHUM-001", "CHUP-002"):
        write_volume(ct, images / f"{name}__CT.nii.gz")
        drawn = block(CENTRES["Larynx_SG"]).array_kji + 2 * block(CENTRES["Parotid_L"]).array_kji
        write_volume(ct.with_array(drawn.astype(np.uint8)), labels / f"{name}.nii.gz")
    uptake = np.full(coarse.shape_kji, 2.5, np.float32)
    write_volume(Volume(uptake, coarse), images / "CHUM-001__PT.nii.gz")
    out = tmp_path / "out"
    assert run_curate(request(tmp_path / "in", out)).good == ("CHUM-001", "CHUP-002")
    case = out / "cases" / "CHUM-001"
    assert set(np.unique(read_volume(case / "labels.nrrd").array_kji)) == {0, 31, 32}
    pet = read_volume(case / "pet.nrrd")
    assert pet.grid.is_close(CT_GRID)
    assert np.median(pet.array_kji) == 2.5
    root = out / "nnunet" / "Dataset501_HNSeg"
    dataset = json.loads((root / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "CT", "1": "PET"}
    assert dataset["labels"] == {"background": 0, "GTVp": 1, "GTVn": 2}
    exported = next(root.glob("labels*/CHUM-001.nrrd"))
    assert set(np.unique(read_volume(exported).array_kji)) == {0, 1, 2}
    assert not read_volume(next(root.glob("images*/CHUP-002_0001.nrrd"))).array_kji.any()


def test_structures_are_renumbered_for_nnunet_where_the_cohort_lacks_organs(tmp_path, ct):
    """PDDCA draws 9 organs under its own names: they become labels 1 to 9, here 1 and 2."""
    place = tmp_path / "in" / "0522c0001"
    (place / "structures").mkdir(parents=True)
    write_volume(ct, place / "img.nrrd")
    write_volume(block(CENTRES["Brainstem"]), place / "structures" / "BrainStem.nrrd")
    write_volume(block(CENTRES["Parotid_R"]), place / "structures" / "Parotid_R.nrrd")
    out = tmp_path / "out"
    assert run_curate(request(tmp_path / "in", out)).good == ("0522c0001",)
    root = out / "nnunet" / "Dataset501_HNSeg"
    assert json.loads((root / "dataset.json").read_text())["labels"] == {
        "background": 0,
        "Brainstem": 1,
        "Parotid_R": 2,
    }
    labels = read_volume(root / "labelsTr" / "0522c0001.nrrd").array_kji
    assert np.array_equal(labels == 2, block(CENTRES["Parotid_R"]).array_kji > 0)
