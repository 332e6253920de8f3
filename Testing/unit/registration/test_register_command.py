"""`hnseg register`, with a registration whose outcome is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from hnseg import registration
from hnseg.cli.main import main
from hnseg.image.files import read_transform, write_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.registration import Bending, DeformableRegistration, Quality, Registration
from hnseg.registration.poses import from_transform, pose, rotation, to_transform

TRUTH = pose(rotation((3, -2, 178)), (1100, -20, 7))
QUALITY = Quality(1.0, 0.9, 140.0, 0.3, 0.7, 0.7, 0.9, 0.2, 0.2, 1.0, 178.0)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    ct = np.where(rng.random((12, 14, 16)) < 0.5, -1000, 40) + rng.integers(-9, 9, (12, 14, 16))
    write_volume(Volume(ct.astype(np.int16), Grid((16, 14, 12), (9.0, 9.0, 12.0))), tmp_path / "ct.nrrd")
    mr = rng.integers(0, 900, (12, 14, 16)).astype(np.int16)
    write_volume(Volume(mr, Grid((16, 14, 12), (9.0, 9.0, 12.0), (900.0, 0.0, 0.0))), tmp_path / "mr.nrrd")
    return tmp_path


def outcome(monkeypatch: pytest.MonkeyPatch, verdict: Any) -> None:
    def register(ct: Volume, mr: Volume, *, on_progress: Any = None) -> Registration:
        on_progress(0.5, "Halfway")
        return Registration(to_transform(TRUTH, (1, 2, 3)), verdict, f"It is {verdict}.", QUALITY, 12.3456)

    monkeypatch.setattr(registration, "register_rigid", register)


def command(images: Path, *more: str) -> int:
    paths = ("--fixed", images / "ct.nrrd", "--moving", images / "mr.nrrd", "-o", images / "t.tfm")
    return main(["register", *map(str, paths), "--json", str(images / "t.json"), *more])


@pytest.mark.parametrize("verdict", ["good", "doubtful"])
def test_a_pose_that_is_not_refused_is_written_with_its_verdict(
    images: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome(monkeypatch, verdict)
    assert command(images) == 0
    assert from_transform(read_transform(images / "t.tfm")) == pytest.approx(TRUTH, abs=1e-6)
    record = json.loads((images / "t.json").read_text())
    assert (record["verdict"], record["reason"], record["seconds"]) == (verdict, f"It is {verdict}.", 12.346)
    assert record["metrics"]["turn_degrees"] == 178
    assert np.array(record["ct_to_mr"]) == pytest.approx(TRUTH, abs=1e-9)
    assert f"It is {verdict}." in capsys.readouterr().out


def test_a_bent_transform_is_written_with_its_rigid_pose_in_the_record(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rigid = to_transform(TRUTH)
    both = sitk.CompositeTransform([rigid, sitk.TranslationTransform(3, (0.0, 0.0, 4.0))])

    def register(ct: Volume, mr: Volume, *, on_progress: Any = None) -> DeformableRegistration:
        bending = Bending(True, "It bends.", 0.2, 4.0, 0.8)
        return DeformableRegistration(both, "good", "It is good.", QUALITY, 20.0, rigid, bending)

    monkeypatch.setattr(registration, "register_deformable", register)
    assert command(images, "--deformable") == 0
    written = read_transform(images / "t.tfm")
    assert written.TransformPoint((1.0, 2.0, 3.0)) == pytest.approx(both.TransformPoint((1.0, 2.0, 3.0)), abs=1e-6)
    record = json.loads((images / "t.json").read_text())
    assert record["bending"]["largest_mm"] == 4.0
    assert np.array(record["ct_to_mr"]) == pytest.approx(TRUTH, abs=1e-9)
    assert "It bends." in capsys.readouterr().out


def test_a_refused_pose_is_not_written_but_its_record_is(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome(monkeypatch, "failed")
    assert command(images) == 1
    assert not (images / "t.tfm").exists()
    record = json.loads((images / "t.json").read_text())
    assert (record["verdict"], record["transform"]) == ("failed", None)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "It is failed." in last
    assert "not written" in last


def test_force_writes_a_refused_pose_and_still_says_no(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome(monkeypatch, "failed")
    assert command(images, "--force") == 1
    assert from_transform(read_transform(images / "t.tfm")) == pytest.approx(TRUTH, abs=1e-6)


def test_a_transform_kind_that_cannot_be_written_leaves_nothing(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome(monkeypatch, "good")
    before = sorted(images.iterdir())
    words = ["register", "--fixed", "ct.nrrd", "--moving", "mr.nrrd", "-o", "t.png"]
    assert main([str(images / w) if "." in w else w for w in words]) == 1
    assert ".tfm" in capsys.readouterr().err
    assert sorted(images.iterdir()) == before


def test_ct_and_mr_in_each_others_place_are_refused(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["register", "--fixed", "mr.nrrd", "--moving", "ct.nrrd", "-o", "t.tfm"]
    assert main([str(images / w) if "." in w else w for w in words]) == 1
    assert "swap" in capsys.readouterr().err
    assert not (images / "t.tfm").exists()
