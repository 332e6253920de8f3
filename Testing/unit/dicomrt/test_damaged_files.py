"""Damaged DICOM of every kind that is read: one sentence, never a traceback, and originals stay as they were."""

import random
import shutil

import numpy as np
import pytest

from hnseg.dicomrt.dose import read_dose
from hnseg.dicomrt.read import read_structure_set
from hnseg.dicomrt.segmentation_object import read_segmentation_object, write_segmentation_object
from hnseg.dicomrt.series import open_series
from hnseg.dicomrt.structure_set import write_structure_set
from hnseg.errors import HNSegError
from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segmentation
from hnseg.image.volume import Volume

HEADER_BYTES = 1500


@pytest.fixture(scope="module")
def intact(series_maker, write_dose, tmp_path_factory):
    """A small series, an RTSTRUCT and a SEG on it, and a dose: each kind's file and the function that reads it."""
    folder = tmp_path_factory.mktemp("intact")
    made = series_maker(folder / "ct", "oblique", size=(24, 22, 6))
    series = open_series(made.folder)
    mask = np.zeros(series.grid.shape_kji, bool)
    mask[1:4, 5:12, 6:13] = True
    organs = Segmentation.from_masks({"Parotid_L": Volume(mask, series.grid)})
    write_structure_set(folder / "RT.dcm", series, organs)
    write_segmentation_object(folder / "SEG.dcm", series, organs)
    dose = np.random.default_rng(1).random((5, 6, 7)).astype(np.float32)
    write_dose(folder / "RD.dcm", Volume(dose, Grid((7, 6, 5), (4.0, 4.0, 5.0), (-50.0, -70.0, 295.0))))

    def export_on_series_with(path):
        shutil.copytree(made.folder, folder / "copy", dirs_exist_ok=True)
        shutil.copy(path, folder / "copy" / made.files[2].name)
        write_structure_set(folder / "out.dcm", open_series(folder / "copy"), organs)

    return {
        "RTSTRUCT": (folder / "RT.dcm", lambda path: read_structure_set(path, series.grid)),
        "SEG": (folder / "SEG.dcm", lambda path: read_segmentation_object(path, grid=series.grid)),
        "RTDOSE": (folder / "RD.dcm", read_dose),
        "series": (made.files[2], export_on_series_with),
    }


def damaged(whole, rng, trial):
    """Every third one cut short; a few bytes changed, in every other one near the start, where the header is."""
    content = bytearray(whole[: rng.randrange(1, len(whole))] if trial % 3 == 0 else whole)
    end = len(content) if trial % 2 else min(len(content), HEADER_BYTES)
    for _ in range(rng.choice([0, 1, 4, 30])):
        content[rng.randrange(end)] = rng.randrange(256)
    return bytes(content)


@pytest.mark.parametrize("kind", ["RTSTRUCT", "SEG", "RTDOSE", "series"])
def test_fuzzed_and_truncated_files_are_read_or_refused_in_a_sentence(intact, tmp_path, kind):
    source, read = intact[kind]
    whole = source.read_bytes()
    rng = random.Random(7)
    said = []
    for trial in range(45):
        path = tmp_path / "broken.dcm"
        path.write_bytes(damaged(whole, rng, trial))
        try:
            read(path)
        except HNSegError as error:
            said.append(str(error))
    assert len(said) > 10
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in said)
    assert source.read_bytes() == whole


def test_a_series_with_odd_uids_is_referred_to_as_it_is_and_what_is_not_needed_is_not_judged(series_maker, tmp_path):
    made = series_maker(tmp_path / "ct", size=(24, 22, 4))
    acquisition_number = b"\x20\x00\x12\x00IS\x02\x00"
    for file in made.files:
        content = file.read_bytes().replace(b".8.498.", b".8.098.")  # a component must not begin with 0
        file.write_bytes(content.replace(acquisition_number + b"1 ", acquisition_number + b"x "))
    series = open_series(made.folder)
    mask = np.ones(series.grid.shape_kji, bool)
    write_structure_set(tmp_path / "RT.dcm", series, Segmentation.from_masks({"Lips": Volume(mask, series.grid)}))
    assert ".8.098." in series.study_uid
    assert read_structure_set(tmp_path / "RT.dcm", series.grid, series=series).warnings == ()
