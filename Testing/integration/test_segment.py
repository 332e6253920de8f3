"""`hnseg segment`, from files to files, with a model of random weights: what must hold for any model."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hnseg.cli.main import main
from hnseg.errors import Cancelled
from hnseg.image.files import read_transform, read_volume
from hnseg.image.segmentation import read_segmentation
from hnseg.image.volume import Volume
from hnseg.inference.segment import segment
from hnseg.jobs.client import Worker
from hnseg.jobs.request import SegmentRequest
from hnseg.jobs.segment import run_segment
from hnseg.models.bundle import open_bundle, write_bundle
from hnseg.organs import ORGANS
from hnseg.reporting.record import SCHEMA, read_record
from hnseg.terminology import TAUGHT_TAG
from hnseg.version import RESEARCH_USE

Say = pytest.CaptureFixture[str]


def request(images: Path, out: Path, **changes: object) -> SegmentRequest:
    given = {"ct": str(images / "ct.nrrd"), "mr": str(images / "mr.nrrd"), "transform": str(images / "identity.tfm")}
    return SegmentRequest(output=str(out), **{**given, "device": "cpu", **changes})  # type: ignore[arg-type]


def test_every_door_gives_the_same_voxels(images: Path, ct: Volume, mr: Volume, tmp_path: Path, capsys: Say) -> None:
    import SimpleITK as sitk

    asked = request(images, tmp_path / "job.nrrd")
    python = segment(ct, mr, bundle=open_bundle("hnseg-base"), ct_to_mr=sitk.Euler3DTransform()).labels
    run_segment(asked)
    with Worker() as worker:
        worker.run(request(images, tmp_path / "worker.nrrd"))
    words = ["segment", "--ct", asked.ct, "--mr", str(asked.mr), "--transform", str(asked.transform), "--device", "cpu"]
    assert main([*words, "-o", str(tmp_path / "cli.nrrd")]) == 0
    assert main([*words, "-o", str(tmp_path / "cli.seg.nrrd")]) == 0
    labels = [read_volume(tmp_path / name) for name in ("job.nrrd", "worker.nrrd", "cli.nrrd")]
    labels.append(read_segmentation(tmp_path / "cli.seg.nrrd").to_labels())
    assert len(np.unique(python.array_kji)) > 5, "random weights give several organs, else nothing is compared"
    for other in labels:
        np.testing.assert_array_equal(other.array_kji, python.array_kji)
        assert other.grid.is_close(ct.grid)


def test_the_segmentation_carries_every_organ_by_name_and_colour(images: Path, tmp_path: Path, capsys: Say) -> None:
    out = tmp_path / "new" / "folder" / "organs.seg.nrrd"
    assert main(["segment", "--ct", str(images / "ct.nrrd"), "-o", str(out), "--device", "cpu"]) == 0
    segments = read_segmentation(out).segments
    assert [(s.name, s.label, s.rgb) for s in segments] == [(o.name, o.label, o.rgb) for o in ORGANS]
    shown = capsys.readouterr()
    assert RESEARCH_USE in shown.out
    assert "Parotid_L" in shown.out
    taught = {segment.name: segment.tags.get(TAUGHT_TAG) for segment in segments}
    assert (taught["Lips"], taught["Parotid_L"], taught["SpinalCord"]) == ("phantoms only", "patients", None)
    assert shown.out.count("phantoms only") == 1


def test_only_the_organs_asked_for_come_out(images: Path, tmp_path: Path) -> None:
    outcome = run_segment(request(images, tmp_path / "o.nrrd", organs=("brain stem", "Mandible", "Lips")))
    names = [organ.name for organ in outcome.record.organs]
    assert names == ["Bone_Mandible", "Brainstem", "Lips"]
    assert set(np.unique(read_volume(tmp_path / "o.nrrd").array_kji)) <= {0, 4, 5, 23}


def test_the_run_report_says_what_was_done(images: Path, ct: Volume, tmp_path: Path) -> None:
    asked = request(images, tmp_path / "o.seg.nrrd", report_json=str(tmp_path / "run.json"))
    outcome = run_segment(asked)
    record = read_record(tmp_path / "run.json")
    assert record == outcome.record
    assert (record.schema, record.notice, record.device) == (SCHEMA, RESEARCH_USE, "cpu")
    assert record.model.name == "hnseg-base"
    assert len(record.model.sha256) == 64
    assert record.inputs["ct"].size_ijk == (40, 44, 36)
    assert set(record.inputs) == {"ct", "mr"}
    assert {"hnseg", "python", "torch", "numpy", "SimpleITK"} <= set(record.versions)
    assert record.seconds["prediction"] > 0
    labels = read_segmentation(tmp_path / "o.seg.nrrd").to_labels().array_kji
    for organ in record.organs:
        assert organ.volume_ml == pytest.approx(np.count_nonzero(labels == organ.label) * 0.08, abs=1e-4)


def test_a_model_of_ct_alone_gives_the_same_with_and_without_an_mr_and_says_that_it_took_none(
    images: Path, tmp_path: Path, capsys: Say
) -> None:
    shown = open_bundle("hnseg-base")
    alone = replace(shown.metadata, name="ct-alone", preprocess=replace(shown.metadata.preprocess, takes_mr=False))
    state = shown.load_network().state_dict()
    write_bundle(tmp_path / "ct-alone", metadata=alone, state_dict=state, card="-", licence_text="-")
    words = ["segment", "--ct", str(images / "ct.nrrd"), "--model", str(tmp_path / "ct-alone"), "--device", "cpu", "-o"]
    with_mr = ["--mr", str(images / "mr.nrrd"), "--json", str(tmp_path / "run.json")]
    assert main([*words, str(tmp_path / "a.nrrd"), *with_mr]) == 0
    assert "The MR was left out, since the model ct-alone was trained on CT alone." in capsys.readouterr().err
    assert main([*words, str(tmp_path / "b.nrrd")]) == 0
    assert (tmp_path / "a.nrrd").read_bytes() == (tmp_path / "b.nrrd").read_bytes()
    assert set(read_record(tmp_path / "run.json").inputs) == {"ct"}


def test_the_transform_that_was_used_is_written_when_asked_for(images: Path, tmp_path: Path) -> None:
    asked = request(images, tmp_path / "o.seg.nrrd", transform_output=str(tmp_path / "used.h5"))
    run_segment(asked)
    used = read_transform(tmp_path / "used.h5")
    given = read_transform(asked.transform)
    assert used.TransformPoint((1.0, 2.0, 3.0)) == pytest.approx(given.TransformPoint((1.0, 2.0, 3.0)))


def test_precision_mirror_and_uncertainty_are_written_down(images: Path, tmp_path: Path, capsys: Say) -> None:
    words = ["segment", "--ct", str(images / "ct.nrrd"), "--device", "cpu", "-o", str(tmp_path / "o.nrrd")]
    words += ["--precision", "full", "--mirror", "--uncertainty", str(tmp_path / "u.nrrd")]
    assert main([*words, "--json", str(tmp_path / "run.json")]) == 0
    options = read_record(tmp_path / "run.json").options
    assert (options["precision"], options["mirror"]) == ("float32", True)
    uncertainty = read_volume(tmp_path / "u.nrrd")
    assert uncertainty.grid.spacing_mm == pytest.approx((8.0, 8.0, 8.0))
    assert 0 <= uncertainty.array_kji.min() < uncertainty.array_kji.max() < 31 / 32
    plain = run_segment(request(images, tmp_path / "p.nrrd", mr=None, transform=None, precision="full"))
    assert plain.record.options["mirror"] is False
    assert (read_volume(tmp_path / "p.nrrd").array_kji != read_volume(tmp_path / "o.nrrd").array_kji).any()


def test_a_reference_is_scored_and_a_result_against_itself_is_perfect(images: Path, tmp_path: Path) -> None:
    run_segment(request(images, tmp_path / "first.seg.nrrd"))
    record = run_segment(
        request(images, tmp_path / "second.seg.nrrd", reference=str(tmp_path / "first.seg.nrrd"))
    ).record
    assert record.scores
    assert {(score.dsc, score.hd95_mm) for score in record.scores} == {(1.0, 0.0)}


def test_the_report_is_one_page_that_needs_nothing_from_elsewhere(images: Path, tmp_path: Path, capsys: Say) -> None:
    words = ["segment", "--ct", str(images / "ct.nrrd"), "--mr", str(images / "mr.nrrd"), "--device", "cpu"]
    words += ["--transform", str(images / "identity.tfm"), "-o", str(tmp_path / "o.seg.nrrd")]
    assert main([*words, "--report", str(tmp_path / "report"), "--json", str(tmp_path / "run.json")]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert RESEARCH_USE in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    for picture in ("slices-1.png", "slices-2.png", "fusion-1.png", "surfaces-1.png"):
        assert f'src="{picture}"' in page
        assert (tmp_path / "report" / picture).stat().st_size > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.seg.nrrd", "report", "run.json"]


def test_a_cancelled_job_leaves_nothing_new_and_keeps_what_was_there(images: Path, tmp_path: Path) -> None:
    (tmp_path / "o.seg.nrrd").write_text("older result")

    def stop(fraction: float, text: str) -> None:
        if text.startswith("Drawing"):
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        run_segment(request(images, tmp_path / "o.seg.nrrd", report=str(tmp_path / "deep" / "report")), stop)
    assert [path.name for path in tmp_path.rglob("*")] == ["o.seg.nrrd"]
    assert (tmp_path / "o.seg.nrrd").read_text() == "older result"


SLOWLY = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit it ignored
import hnseg.inference.segment as engine
real = engine.segment
def slow(*args, on_progress, **kwargs):
    def tell(fraction, text):
        on_progress(fraction, text)
        time.sleep(0.2)
    return real(*args, on_progress=tell, **kwargs)
engine.segment = slow
from hnseg.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def wait_for(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_control_c_ends_with_130_and_leaves_nothing(images: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "made" / "o.seg.nrrd"
    words = [
        "segment",
        "--ct",
        str(images / "ct.nrrd"),
        "-o",
        str(out),
        "--device",
        "cpu",
        "--json",
        str(out) + ".json",
    ]
    with (tmp_path / "log").open("w") as log:
        child = subprocess.Popen([sys.executable, "-c", SLOWLY, *words], stderr=log, stdout=log)
        wait_for(lambda: "Finding the organs" in (tmp_path / "log").read_text() or child.poll() is not None)
        os.kill(child.pid, number)
        code = child.wait(timeout=120)
    said = (tmp_path / "log").read_text()
    assert code == 130, said
    assert "Interrupted; nothing was written." in said.splitlines()
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_the_worker_loads_the_model_once_and_gives_the_record(images: Path, tmp_path: Path) -> None:
    with Worker() as worker:
        first = worker.run(request(images, tmp_path / "a.nrrd"))
        second = worker.run(request(images, tmp_path / "b.nrrd"))
    assert first.output == str(tmp_path / "a.nrrd")
    assert first.record.organs == second.record.organs
    assert json.loads(json.dumps(first.to_json())) == first.to_json()
