"""Files that are read whole or refused in one sentence, and written whole or not at all."""

import errno
import gzip
import os
import shutil
import stat

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from hnseg.errors import GeometryMismatch, OutputError, UnreadableFile, UnsupportedImage
from hnseg.image.files import atomic_write, read_image, read_transform, read_volume, write_transform, write_volume
from hnseg.image.grid import Grid
from hnseg.image.itk import to_sitk
from hnseg.image.volume import Volume

ENDINGS = (".nrrd", ".mha", ".nii", ".nii.gz")
NIFTI_MM = 1e-5  # single-precision offsets of this phantom, |x| < 60 mm


def one_sentence(error):
    """What, got, remedy: one line that ends with a full stop and tells no trace of ITK."""
    text = str(error.value)
    assert "\n" not in text
    assert "itk" not in text.lower().replace("simpleitk", "")
    assert text.endswith(".")
    return text


@pytest.fixture
def nothing_partial(tmp_path):
    """After the test, its folder holds what it is told and nothing else."""
    expected = []
    yield expected
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_values_type_and_place_survive_a_file(oblique, tmp_path, ending, dtype):
    volume = oblique.with_array(oblique.array_kji.astype(dtype))
    write_volume(volume, tmp_path / f"image{ending}")
    again = read_volume(tmp_path / f"image{ending}")
    assert again.array_kji.dtype == dtype
    assert np.array_equal(again.array_kji, volume.array_kji)
    assert again.grid.is_close(oblique.grid, tolerance_mm=NIFTI_MM if ".nii" in ending else 1e-9)


def test_booleans_are_written_as_bytes(oblique, tmp_path):
    mask = oblique.with_array(oblique.array_kji > 0)
    write_volume(mask, tmp_path / "mask.nrrd")
    assert np.array_equal(read_volume(tmp_path / "mask.nrrd").array_kji, mask.array_kji.astype(np.uint8))


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii.gz"])
def test_images_are_compressed(tmp_path, ending):
    flat = Volume(np.zeros((30, 20, 10), np.int16), Grid((10, 20, 30)))
    write_volume(flat, tmp_path / f"image{ending}")
    assert (tmp_path / f"image{ending}").stat().st_size < flat.array_kji.nbytes / 5


@pytest.mark.parametrize("ending", [".nhdr", ".mhd"])
def test_detached_headers_are_read(oblique, tmp_path, ending):
    sitk.WriteImage(to_sitk(oblique), str(tmp_path / f"image{ending}"))
    assert np.array_equal(read_volume(tmp_path / f"image{ending}").array_kji, oblique.array_kji)


@pytest.mark.parametrize("ending", [".nhdr", ".mhd"])
def test_a_detached_header_without_its_data_is_refused(oblique, tmp_path, ending):
    sitk.WriteImage(to_sitk(oblique), str(tmp_path / f"image{ending}"))
    for path in tmp_path.iterdir():
        if path.suffix != ending:
            path.unlink()
    with pytest.raises(UnreadableFile) as error:
        read_volume(tmp_path / f"image{ending}")
    one_sentence(error)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableFile, match=r"There is no file .*none\.nrrd; check") as error:
        read_volume(tmp_path / "none.nrrd")
    one_sentence(error)


def test_a_folder_is_not_an_image_file(tmp_path):
    with pytest.raises(UnreadableFile, match="is a folder") as error:
        read_volume(tmp_path)
    one_sentence(error)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "image.nrrd").touch()
    with pytest.raises(UnreadableFile, match="0 bytes") as error:
        read_volume(tmp_path / "image.nrrd")
    one_sentence(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(oblique, tmp_path):
    write_volume(oblique, tmp_path / "image.nrrd")
    (tmp_path / "image.nrrd").chmod(0)
    with pytest.raises(UnreadableFile, match="permission"):
        read_volume(tmp_path / "image.nrrd")


@pytest.mark.parametrize("ending", [*ENDINGS, ".nhdr", ".mhd"])
def test_text_under_an_images_name_is_refused(tmp_path, ending):
    (tmp_path / f"image{ending}").write_text("not an image at all\n" * 40)
    with pytest.raises(UnreadableFile) as error:
        read_volume(tmp_path / f"image{ending}")
    assert "image" in one_sentence(error)


@pytest.mark.parametrize("name", ["image.png", "image", "image.nrrd.txt"])
def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(UnreadableFile, match=r"does not end in \.nrrd") as error:
        read_volume(tmp_path / name)
    one_sentence(error)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_a_file_that_is_cut_short_is_refused_and_never_filled_up(oblique, tmp_path, ending, share, capfd):
    noise = oblique.with_array(np.random.default_rng(1).integers(-9999, 9999, oblique.array_kji.shape, dtype=np.int16))
    path = tmp_path / f"image{ending}"
    write_volume(noise, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UnreadableFile) as error:
        read_volume(path)
    one_sentence(error)
    assert capfd.readouterr() == ("", "")  # ITK has nothing to say either


def test_a_nifti_whose_checksum_is_wrong_is_refused(oblique, tmp_path):
    path = tmp_path / "image.nii.gz"
    write_volume(oblique, path)
    raw = bytearray(path.read_bytes())
    raw[-8] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(UnreadableFile, match="corrupt"):
        read_volume(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_in_either_byte_order_is_read(oblique, tmp_path, order):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ oblique.grid.ijk_to_lps
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(np.int16).newbyteorder(order))
    nibabel.save(nibabel.Nifti1Image(oblique.array_kji.transpose(2, 1, 0), affine, header), tmp_path / "image.nii.gz")
    again = read_volume(tmp_path / "image.nii.gz")
    assert np.array_equal(again.array_kji, oblique.array_kji)
    assert again.grid.is_close(oblique.grid, tolerance_mm=NIFTI_MM)


def test_a_4d_file_with_one_frame_is_taken_as_3d(oblique, tmp_path):
    sitk.WriteImage(sitk.JoinSeries([to_sitk(oblique)]), str(tmp_path / "one.mha"))
    again = read_volume(tmp_path / "one.mha")
    assert np.array_equal(again.array_kji, oblique.array_kji)
    assert again.grid.is_close(oblique.grid, tolerance_mm=1e-9)


@pytest.mark.parametrize("ending", [".mha", ".nii.gz"])
def test_a_4d_file_with_several_frames_is_refused(oblique, tmp_path, ending):
    sitk.WriteImage(sitk.JoinSeries([to_sitk(oblique)] * 2), str(tmp_path / f"two{ending}"))
    with pytest.raises(UnsupportedImage, match=r"4D, of size .*save the one frame") as error:
        read_volume(tmp_path / f"two{ending}")
    one_sentence(error)


def test_a_2d_file_is_refused(tmp_path):
    sitk.WriteImage(sitk.Image([7, 5], sitk.sitkInt16), str(tmp_path / "flat.mha"))
    with pytest.raises(UnsupportedImage, match="2D"):
        read_volume(tmp_path / "flat.mha")


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii.gz"])
def test_an_rgb_image_is_refused(tmp_path, ending):
    sitk.WriteImage(sitk.Image([7, 5, 3], sitk.sitkVectorUInt8, 3), str(tmp_path / f"rgb{ending}"))
    with pytest.raises(UnsupportedImage, match="3 values per voxel, as RGB") as error:
        read_volume(tmp_path / f"rgb{ending}")
    one_sentence(error)


def test_complex_numbers_are_refused(tmp_path):
    sitk.WriteImage(sitk.Image([7, 5, 3], sitk.sitkComplexFloat32), str(tmp_path / "complex.nii"))
    with pytest.raises(UnsupportedImage, match="magnitude"):
        read_volume(tmp_path / "complex.nii")


def test_sheared_nifti_axes_are_refused_by_name(tmp_path):
    sheared = np.array([[2, 0.5, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])
    picture = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), sheared)
    picture.set_qform(None, 0)
    nibabel.save(picture, tmp_path / "sheared.nii")
    with pytest.raises(GeometryMismatch, match=r"^sheared\.nii has sheared") as error:
        read_volume(tmp_path / "sheared.nii")
    one_sentence(error)


def test_an_image_that_leaves_open_which_way_is_left_is_read_with_a_note(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), None), tmp_path / "lost.nii.gz")
    (tmp_path / "lost.nrrd").write_bytes(
        b"NRRD0001\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n\n" + bytes(8)
    )
    for name in ("lost.nii.gz", "lost.nrrd"):
        notes = []
        read_image(tmp_path / name, modality="CT", on_note=notes.append)
        assert len(notes) == 1
        assert notes[0].startswith(f"{name} does not say how the patient lies in it")


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_image_that_we_wrote_is_read_without_a_note(oblique, tmp_path, ending):
    notes = []
    write_volume(oblique, tmp_path / f"image{ending}")
    read_image(tmp_path / f"image{ending}", modality="CT", on_note=notes.append)
    assert notes == []


def test_sheared_axes_are_refused_by_name(tmp_path):
    (tmp_path / "sheared.nrrd").write_bytes(
        b"NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2\n"
        b"space directions: (1,0,0) (0.4,1,0) (0,0,1)\nencoding: raw\nspace origin: (0,0,0)\n\n" + bytes(8)
    )
    with pytest.raises(GeometryMismatch, match=r"sheared\.nrrd.* sheared"):
        read_volume(tmp_path / "sheared.nrrd")


def test_ras_nrrd_is_turned_to_lps(tmp_path):
    (tmp_path / "ras.nrrd").write_bytes(
        b"NRRD0004\ntype: uint8\ndimension: 3\nspace: right-anterior-superior\nsizes: 2 2 2\n"
        b"space directions: (1,0,0) (0,2,0) (0,0,3)\nencoding: raw\nspace origin: (10,20,30)\n\n" + bytes(range(8))
    )
    volume = read_volume(tmp_path / "ras.nrrd")
    assert volume.grid.to_lps((0, 0, 0)) == pytest.approx((-10, -20, 30))
    assert volume.grid.to_lps((1, 1, 1)) == pytest.approx((-11, -22, 33))
    assert volume.array_kji[1, 0, 1] == 5


def test_reading_an_image_by_role_takes_files_too(oblique, tmp_path):
    write_volume(oblique, tmp_path / "ct.nrrd")
    assert np.array_equal(read_image(tmp_path / "ct.nrrd", modality="CT").array_kji, oblique.array_kji)


# Writing


@pytest.mark.parametrize("name", ["image.nrrd", "image.mha", "image.nii.gz", "case.01 a.seg.nrrd"])
def test_only_the_target_is_left_after_writing(oblique, tmp_path, nothing_partial, name):
    write_volume(oblique, tmp_path / name)
    nothing_partial.append(name)


@pytest.mark.parametrize("name", ["image.png", "image", "image.mhd", "image.nhdr"])
def test_an_ending_that_cannot_be_written_is_refused(oblique, tmp_path, name, nothing_partial):
    with pytest.raises(OutputError, match=f"Cannot write {name}"):
        write_volume(oblique, tmp_path / name)


def test_a_missing_folder_is_refused(oblique, tmp_path, nothing_partial):
    with pytest.raises(OutputError, match=r"no folder .*create it first") as error:
        write_volume(oblique, tmp_path / "nowhere" / "image.nrrd")
    one_sentence(error)


def test_a_target_that_is_a_folder_is_refused(oblique, tmp_path, nothing_partial):
    (tmp_path / "image.nrrd").mkdir()
    nothing_partial.append("image.nrrd")
    with pytest.raises(OutputError, match="is a folder"):
        write_volume(oblique, tmp_path / "image.nrrd")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(oblique, tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OutputError, match="Cannot write"):
        write_volume(oblique, tmp_path / "image.nrrd")
    tmp_path.chmod(stat.S_IRWXU)


def write_half(target, interruption):
    with atomic_write(target) as temporary:
        temporary.write_text("half")
        raise interruption


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_write_keeps_the_earlier_file_and_leaves_nothing(tmp_path, nothing_partial, interruption):
    target = tmp_path / "result.txt"
    target.write_text("earlier")
    nothing_partial.append("result.txt")
    with pytest.raises(interruption):
        write_half(target, interruption)
    assert target.read_text() == "earlier"


def test_a_full_disk_is_an_output_error_and_keeps_the_earlier_file(tmp_path, nothing_partial):
    target = tmp_path / "result.txt"
    target.write_text("earlier")
    nothing_partial.append("result.txt")
    with pytest.raises(OutputError, match="No space left"):
        write_half(target, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert target.read_text() == "earlier"


def test_the_temporary_path_has_the_targets_ending_and_lies_beside_it(tmp_path):
    with atomic_write(tmp_path / "case.seg.nrrd") as temporary:
        temporary.write_text("x")
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".seg.nrrd")
    assert (tmp_path / "case.seg.nrrd").read_text() == "x"


def test_the_written_file_has_ordinary_permissions(oblique, tmp_path):
    (tmp_path / "ordinary").touch()
    write_volume(oblique, tmp_path / "image.nrrd")
    assert (tmp_path / "image.nrrd").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


# Transforms


def oblique_rigid():
    return sitk.Euler3DTransform((10.5, -3.25, 1100.125), 0.1, -0.2, 1 / 3, (12.1, -7.7, 1 / 7))


@pytest.mark.parametrize("ending", [".tfm", ".h5"])
def test_a_transform_survives_a_file(tmp_path, ending):
    write_transform(oblique_rigid(), tmp_path / f"t{ending}")
    again = read_transform(tmp_path / f"t{ending}")
    for point in ((0, 0, 0), (-100.5, 33.3, 1200)):
        assert again.TransformPoint(point) == pytest.approx(oblique_rigid().TransformPoint(point), abs=1e-9)


@pytest.mark.parametrize("content", ["", "hello\n"])
def test_a_file_that_holds_no_transform_is_refused(tmp_path, content, capfd):
    (tmp_path / "t.tfm").write_text(content)
    with pytest.raises(UnreadableFile) as error:
        read_transform(tmp_path / "t.tfm")
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_2d_transform_is_refused(tmp_path):
    sitk.WriteTransform(sitk.Euler2DTransform(), str(tmp_path / "flat.tfm"))
    with pytest.raises(UnreadableFile, match="2D"):
        read_transform(tmp_path / "flat.tfm")


@pytest.mark.parametrize("name", ["t.nrrd", "t"])
def test_a_transform_under_another_ending_is_refused(tmp_path, name):
    with pytest.raises(OutputError, match=r"\.tfm"):
        write_transform(oblique_rigid(), tmp_path / name)


def test_a_compressed_nrrd_of_another_writer_is_read(oblique, tmp_path):
    """pynrrd and MITK write ``encoding: gz`` and other fields; only the values and the place count."""
    body = gzip.compress(oblique.array_kji.tobytes())
    (tmp_path / "other.nrrd").write_bytes(
        b"NRRD0005\ntype: short\ndimension: 3\nspace: LPS\nsizes: 7 5 3\nkinds: space space space\n"
        b"space directions: (0.8,0.6,0) (-1.2,1.6,0) (0,0,3)\nspace units: \"mm\" \"mm\" \"mm\"\nendian: little\n"
        b"encoding: gz\nspace origin: (10,-20,30)\nmodality:=CT\n\n" + body
    )  # fmt: skip
    again = read_volume(tmp_path / "other.nrrd")
    assert np.array_equal(again.array_kji, oblique.array_kji)
    assert again.grid.is_close(oblique.grid, tolerance_mm=1e-9)


@pytest.mark.real_data
def test_every_real_nifti_mha_and_nrrd_here_is_read(shared_data):
    for name, size in {
        "openkbp/pt_100_ct.nii.gz": (128, 128, 128),
        "cthead_cadaver/cthead_assumed_geometry.nrrd": (256, 256, 113),
        "small_head_volumes/mni_scct_ct_template_2mm.nii": (91, 109, 91),
        "small_head_volumes/rire_training_001_mr_T1.mha": (256, 256, 26),
    }.items():
        assert read_volume(shared_data / name).grid.size_ijk == size


@pytest.mark.real_data
def test_a_real_nifti_that_is_cut_short_is_refused(shared_data, tmp_path):
    path = tmp_path / "ct.nii.gz"
    shutil.copy(shared_data / "openkbp" / "pt_100_ct.nii.gz", path)
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UnreadableFile, match="cut short"):
        read_volume(path)
