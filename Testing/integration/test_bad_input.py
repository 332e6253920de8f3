"""What cannot work is refused in one sentence (what, got, remedy), with an exit code, and no trace on the disk."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from hnseg.cli.main import main
from hnseg.image.files import write_volume
from hnseg.image.grid import Grid
from hnseg.image.itk import to_sitk
from hnseg.image.segmentation import Segmentation, write_segmentation
from hnseg.image.volume import Volume
from hnseg.reporting.record import read_record

Say = pytest.CaptureFixture[str]
Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: Say) -> Refused:
    """Run `hnseg segment` with these words; it must fail with one sentence, which is returned, and write nothing."""
    out = tmp_path / "out"

    def run(*words: object, code: int = 1, output: Path | None = None) -> str:
        before = sorted(tmp_path.rglob("*"))
        given = ["segment", *map(str, words), "-o", str(output or out / "organs.seg.nrrd"), "--device", "cpu"]
        assert main([*given, "--json", str(out / "run.json"), "--report", str(out / "report")]) == code
        said = capsys.readouterr()
        lines = said.err.splitlines()
        assert len(lines) == 1, said.err
        assert lines[0].endswith((".", "?", ")")), lines[0]
        assert "Traceback" not in said.err
        assert "defect" not in lines[0]
        assert all(re.match(r" *\d+% ", line) for line in said.out.splitlines()), said.out
        assert sorted(tmp_path.rglob("*")) == before, "nothing may be left behind"
        return lines[0]

    return run


def saved(image: sitk.Image | Volume, path: Path) -> Path:
    sitk.WriteImage(to_sitk(image) if isinstance(image, Volume) else image, str(path))
    return path


def test_an_empty_ct_is_refused(refused: Refused, ct: Volume, tmp_path: Path) -> None:
    nothing = ct.with_array(np.full_like(ct.array_kji, -1000))
    assert "is -1000 everywhere" in refused("--ct", saved(nothing, tmp_path / "empty.nrrd"))


def test_a_file_of_no_bytes_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "none.nrrd").write_bytes(b"")
    assert "none.nrrd is empty (0 bytes)" in refused("--ct", tmp_path / "none.nrrd")


def test_nan_voxels_are_refused_with_their_number(refused: Refused, ct: Volume, tmp_path: Path) -> None:
    values = ct.array_kji.astype(np.float32)
    values[3, 5, 7:10] = np.nan
    assert "holds 3 NaN or infinite voxels" in refused("--ct", saved(ct.with_array(values), tmp_path / "nan.nrrd"))


def test_nan_voxels_of_the_mr_are_refused_with_their_number(
    refused: Refused, images: Path, mr: Volume, tmp_path: Path
) -> None:
    values = mr.array_kji.astype(np.float32)
    values[2, 3, 4] = np.inf
    path = saved(mr.with_array(values), tmp_path / "inf.nrrd")
    assert "The MR holds 1 NaN or infinite voxels" in refused("--ct", images / "ct.nrrd", "--mr", path)


def test_a_4d_image_is_refused(refused: Refused, tmp_path: Path) -> None:
    frames = sitk.JoinSeries([sitk.Image(9, 10, 11, sitk.sitkInt16)] * 3)
    assert "is 4D, of size (9, 10, 11, 3)" in refused("--ct", saved(frames, tmp_path / "movie.nii.gz"))


def test_a_2d_image_is_refused(refused: Refused, tmp_path: Path) -> None:
    assert "is 2D; give a 3D volume" in refused("--ct", saved(sitk.Image(9, 10, sitk.sitkInt16), tmp_path / "x.mha"))


def test_an_rgb_image_is_refused(refused: Refused, tmp_path: Path) -> None:
    colour = sitk.Image([9, 10, 11], sitk.sitkVectorUInt8, 3)
    assert "3 values per voxel, as RGB" in refused("--ct", saved(colour, tmp_path / "rgb.nrrd"))


def test_a_photograph_is_refused(refused: Refused, tmp_path: Path) -> None:
    picture = saved(sitk.Image([9, 10], sitk.sitkVectorUInt8, 3), tmp_path / "scan.png")
    assert "scan.png: its name does not end in .nrrd" in refused("--ct", picture)


@pytest.mark.parametrize(
    "directions", ["(0,0,0) (0,4,0) (0,0,5)", "(nan,0,0) (0,4,0) (0,0,5)", "(4,0,0) (4,0,0) (0,0,5)"]
)
def test_a_header_without_sane_axes_is_refused(refused: Refused, ct: Volume, tmp_path: Path, directions: str) -> None:
    path = saved(ct, tmp_path / "axes.nrrd")
    header, voxels = path.read_bytes().split(b"\n\n", 1)
    path.write_bytes(
        re.sub(rb"space directions:.*", b"space directions: " + directions.encode(), header) + b"\n\n" + voxels
    )
    assert "axes.nrrd" in refused("--ct", path)


def test_voxels_of_micrometres_are_refused(refused: Refused, ct: Volume, tmp_path: Path) -> None:
    tiny = Volume(ct.array_kji, Grid(ct.grid.size_ijk, (0.004, 0.004, 0.005)))
    assert "its spacing must be wrong" in refused("--ct", saved(tiny, tmp_path / "tiny.nrrd"))


def test_a_ct_without_its_rescale_intercept_is_refused(refused: Refused, ct: Volume, tmp_path: Path) -> None:
    raw = ct.with_array((ct.array_kji + 1024).astype(np.int16))
    assert "not in HU but lacks its rescale intercept" in refused("--ct", saved(raw, tmp_path / "raw.nrrd"))


def test_a_ct_in_grey_levels_is_refused(refused: Refused, ct: Volume, tmp_path: Path) -> None:
    gray = ct.with_array(np.clip((ct.array_kji + 1000) / 8, 0, 255).astype(np.uint8))
    assert "not in HU but in grey levels" in refused("--ct", saved(gray, tmp_path / "gray.nrrd"))


def test_an_mr_as_ct_is_refused(refused: Refused, images: Path) -> None:
    assert "The CT is not in HU" in refused("--ct", images / "mr.nrrd")


def test_swapped_ct_and_mr_are_named_as_such(refused: Refused, images: Path) -> None:
    assert refused("--ct", images / "mr.nrrd", "--mr", images / "ct.nrrd") == (
        "The CT looks like an MR, and the MR like a CT; swap --ct and --mr."
    )


def test_two_cts_are_refused(refused: Refused, images: Path) -> None:
    assert "The MR looks like a CT" in refused("--ct", images / "ct.nrrd", "--mr", images / "ct.nrrd")


@pytest.mark.parametrize("role", ["--ct", "--mr"])
def test_three_slices_are_refused(refused: Refused, images: Path, ct: Volume, tmp_path: Path, role: str) -> None:
    thin = saved(ct.cropped((0, 0, 16), (40, 44, 3)), tmp_path / "thin.nrrd")
    words = (role, thin) if role == "--ct" else ("--ct", images / "ct.nrrd", role, thin)
    assert f"The {role[2:].upper()} has only 3 slices" in refused(*words)


def test_a_label_map_as_ct_is_refused(refused: Refused, ct: Volume, tmp_path: Path) -> None:
    labels = ct.with_array((ct.array_kji > 0).astype(np.uint8))
    assert "as label maps do; give the image" in refused("--ct", saved(labels, tmp_path / "labels.nrrd"))


def test_a_segmentation_as_ct_is_refused(refused: Refused, ct: Volume, tmp_path: Path) -> None:
    labels = ct.with_array((ct.array_kji > 0).astype(np.uint8) * 3)
    write_segmentation(Segmentation.from_labels(labels), tmp_path / "organs.seg.nrrd")
    assert "as label maps do; give the image" in refused("--ct", tmp_path / "organs.seg.nrrd")


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz", ".mha"])
def test_a_truncated_file_is_refused(refused: Refused, ct: Volume, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"cut{ending}"
    write_volume(ct, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert f"cut{ending} " in refused("--ct", path)


def test_a_file_that_is_no_image_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "letter.nrrd").write_text("Dear Sir or Madam,\n")
    assert "letter.nrrd cannot be read as nrrd" in refused("--ct", tmp_path / "letter.nrrd")
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam,\n")
    assert "letter.txt" in refused("--ct", tmp_path / "letter.txt")


@pytest.mark.parametrize("role", ["--ct", "--mr", "--transform", "--reference"])
def test_a_missing_file_is_refused(refused: Refused, images: Path, tmp_path: Path, role: str) -> None:
    words: dict[str, object] = {"--ct": images / "ct.nrrd", "--mr": images / "mr.nrrd"}
    words[role] = tmp_path / "gone.tfm"
    assert "There is no file" in refused(*(word for pair in words.items() for word in pair))


def test_links_in_a_circle_are_refused(refused: Refused, images: Path, tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").symlink_to(tmp_path / "b.nrrd")
    (tmp_path / "b.nrrd").symlink_to(tmp_path / "a.nrrd")
    assert "a.nrrd: Too many levels of symbolic links" in refused("--ct", tmp_path / "a.nrrd")
    words = ("--ct", images / "ct.nrrd")
    assert "cannot be written" in refused(*words, output=tmp_path / "a.nrrd" / "organs.nrrd")


def test_a_folder_without_dicom_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "notes.txt").write_text("nothing here")
    assert "dicom" in refused("--ct", tmp_path / "dicom")


def test_a_transform_without_mr_is_refused(refused: Refused, images: Path) -> None:
    assert "without an MR" in refused("--ct", images / "ct.nrrd", "--transform", images / "identity.tfm")


def test_a_broken_transform_is_refused(refused: Refused, images: Path, tmp_path: Path) -> None:
    (tmp_path / "t.tfm").write_text("#Insight Transform File V1.0\n#Transform 0\nTransform: ")
    words = ("--ct", images / "ct.nrrd", "--mr", images / "mr.nrrd", "--transform", tmp_path / "t.tfm")
    assert "t.tfm does not hold an ITK transform" in refused(*words)


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    refused: Refused, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hnseg.inference.segment.segment", lambda *_, **__: pytest.fail("the work must not begin"))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.nrrd").mkdir()
    ct = images / "ct.nrrd"
    assert "cannot be written" in refused("--ct", ct, output=tmp_path / "file" / "organs.seg.nrrd")
    assert "it is a folder; give a file name" in refused("--ct", ct, output=tmp_path / "folder.nrrd")
    assert "has no known ending" in refused("--ct", ct, output=tmp_path / "organs.docx")


def test_an_output_that_is_an_input_is_refused_and_the_input_kept(
    refused: Refused, images: Path, tmp_path: Path
) -> None:
    ct = shutil.copy(images / "ct.nrrd", tmp_path / "ct.nrrd")
    before = ct.read_bytes()
    (tmp_path / "other_name.nrrd").symlink_to(ct)
    for same in ("ct.nrrd", "other_name.nrrd"):
        assert "is one of the inputs and would be overwritten" in refused("--ct", ct, output=tmp_path / same)
    assert ct.read_bytes() == before


def test_an_unknown_organ_is_refused_with_the_nearest_known_one(refused: Refused, images: Path) -> None:
    assert refused("--ct", images / "ct.nrrd", "--organs", "Parotid_L,Brainstump") == (
        "No organ is called 'Brainstump'; did you mean Brainstem?"
    )


def test_two_outputs_in_one_place_are_refused(images: Path, tmp_path: Path, capsys: Say) -> None:
    words = [
        "segment",
        "--ct",
        str(images / "ct.nrrd"),
        "-o",
        str(tmp_path / "a.nrrd"),
        "--json",
        str(tmp_path / "a.nrrd"),
    ]
    assert main(words) == 1
    assert capsys.readouterr().err == "Two outputs have the same path; give each its own.\n"


def test_an_unknown_device_is_refused(refused: Refused, images: Path, capsys: Say, tmp_path: Path) -> None:
    words = ["segment", "--ct", str(images / "ct.nrrd"), "-o", str(tmp_path / "o.nrrd"), "--device", "abacus"]
    assert main(words) == 1
    assert "'abacus'; use auto, cpu, cuda, cuda:N or mps." in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_model_is_refused_with_the_nearest_known_one(refused: Refused, images: Path) -> None:
    said = refused("--ct", images / "ct.nrrd", "--model", "hnseg-bas")
    assert said == "There is no model 'hnseg-bas'; did you mean 'hnseg-base'?"


def broken(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models / "hnseg-base", tmp_path / "broken"))


def test_a_model_with_altered_weights_is_refused(refused: Refused, models: Path, images: Path, tmp_path: Path) -> None:
    folder = broken(models, tmp_path)
    weights = folder / "models" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert "is not the file that was published" in refused("--ct", images / "ct.nrrd", "--model", folder)


def test_a_model_with_a_missing_file_is_refused(refused: Refused, models: Path, images: Path, tmp_path: Path) -> None:
    folder = broken(models, tmp_path)
    (folder / "docs" / "README.md").unlink()
    assert "docs/README.md" in refused("--ct", images / "ct.nrrd", "--model", folder)


def test_a_model_with_a_pickle_is_refused(refused: Refused, models: Path, images: Path, tmp_path: Path) -> None:
    folder = broken(models, tmp_path)
    (folder / "models" / "model.pt").write_bytes(b"\x80\x04N.")
    assert "model.pt" in refused("--ct", images / "ct.nrrd", "--model", folder)


def test_a_folder_that_is_no_model_is_refused(refused: Refused, images: Path, tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    assert "is no model bundle" in refused("--ct", images / "ct.nrrd", "--model", tmp_path / "holiday")


def test_an_mr_that_shows_something_else_is_left_out_with_a_warning(
    images: Path, mr: Volume, tmp_path: Path, capsys: Say
) -> None:
    noise = np.random.default_rng(3).integers(0, 900, mr.array_kji.shape).astype(np.int16)
    elsewhere = Grid(mr.grid.size_ijk, mr.grid.spacing_mm, (900.0, -700.0, -400.0), mr.grid.direction)
    stranger = saved(Volume(noise, elsewhere), tmp_path / "stranger.nrrd")
    words = ["segment", "--ct", str(images / "ct.nrrd"), "--mr", str(stranger), "--device", "cpu"]
    assert main([*words, "-o", str(tmp_path / "o.nrrd"), "--json", str(tmp_path / "run.json")]) == 0
    assert "Warning: The MR was not used, since it could not be registered to the CT" in capsys.readouterr().err
    record = read_record(tmp_path / "run.json")
    assert record.registration is not None
    assert (record.registration.verdict, record.registration.used) == ("failed", False)
    assert main([*words[:3], "--device", "cpu", "-o", str(tmp_path / "alone.nrrd")]) == 0
    both, alone = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name))) for name in ("o.nrrd", "alone.nrrd"))
    np.testing.assert_array_equal(both, alone)


def test_an_mr_without_overlap_under_the_given_transform_is_said_to_have_no_part(
    images: Path, tmp_path: Path, capsys: Say
) -> None:
    far = sitk.Euler3DTransform()
    far.SetTranslation((4000.0, 0.0, 0.0))
    sitk.WriteTransform(far, str(tmp_path / "far.tfm"))
    words = ["segment", "--ct", str(images / "ct.nrrd"), "--mr", str(images / "mr.nrrd"), "--device", "cpu"]
    assert main([*words, "--transform", str(tmp_path / "far.tfm"), "-o", str(tmp_path / "o.seg.nrrd")]) == 0
    assert "Warning: The MR shows nothing of the body" in capsys.readouterr().err


def test_a_request_with_an_unknown_key_is_refused_with_the_nearest_known_one(images: Path) -> None:
    from hnseg.errors import ConfigError
    from hnseg.jobs.request import SegmentRequest

    data = json.loads(json.dumps(SegmentRequest(ct="a.nrrd", output="o.nrrd").to_json()))
    assert SegmentRequest.from_json(data).ct == "a.nrrd"
    with pytest.raises(ConfigError, match=r"The request has no setting 'organ'; did you mean 'organs'\?"):
        SegmentRequest.from_json({**data, "organ": ["Lips"]})
