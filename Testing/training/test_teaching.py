"""What taught an organ is read off the training cases, and a bundle keeps it."""

import dataclasses

import numpy as np
import pytest

from hnseg.curation.record import CaseRecord, write_json
from hnseg.errors import ConfigError, InputError, UnreadableFile
from hnseg.image.files import write_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.organs import ORGANS
from hnseg.preprocessing import PreprocessSettings
from hnseg_training import sources
from hnseg_training.cases import prepare
from hnseg_training.config import CohortConfig, OptimisationConfig, TrainConfig
from hnseg_training.data import PatchData
from hnseg_training.export import fine_stage
from hnseg_training.sources import RawCase
from hnseg_training.teaching import Taught, read_taught, taught, write_taught

PATIENTS, PHANTOMS, UNION = ("patient",), ("phantom",), ("patient union",)
GRID = Grid((20, 24, 16), (4.0, 4.0, 5.0), (-40.0, -48.0, -40.0))
SETTINGS = PreprocessSettings(spacing_mm=GRID.spacing_mm)


def silent(_fraction, _text):
    pass


def drawn(*labels):
    """CT and labels: blocks of tissue side by side."""
    ct, array = np.full(GRID.shape_kji, 30, np.int16), np.zeros(GRID.shape_kji, np.uint8)
    for n, label in enumerate(labels):
        array[5:9, 5:9, 2 + 3 * n : 4 + 3 * n] = label
    return Volume(ct, GRID), Volume(array, GRID)


def taught_in(folder, *cohorts, **settings):
    config = TrainConfig(name="x", cohorts=cohorts, preprocess=SETTINGS, **settings)
    return taught(config, prepare(config, folder, on_progress=silent))


@pytest.fixture
def phantoms(monkeypatch):
    """Phantoms that claim all organs, of which these labels are left in the image."""

    def show(*labels):
        monkeypatch.setattr(sources, "phantom_case", lambda *_: RawCase("p", *drawn(*labels)))
        return CohortConfig(cases=1)

    return show


@pytest.fixture
def openkbp(tmp_path):
    """Three patients; the second shows a larynx (their 6) and the brainstem (1), the others the brainstem alone."""
    columns = ("Brainstem", "SpinalCord", "Parotid_R", "Parotid_L", "Esophagus", "Larynx", "Bone_Mandible")
    rows = [("a", "1;0;0;0;0;0;0"), ("b", "1;0;0;0;0;1;0"), ("c", "1;0;0;0;0;0;0")]
    (tmp_path / "availability.csv").write_text(
        "\n".join((f"case;{';'.join(columns)}", *(f"{name};{marks}" for name, marks in rows)))
    )
    for name, marks in rows:
        ct, labels = drawn(*[n for n, mark in enumerate(marks.split(";"), 1) if mark == "1"])
        write_volume(ct, tmp_path / f"{name}_ct.nii.gz")
        write_volume(labels, tmp_path / f"{name}_oar.nii.gz")
    return CohortConfig(source="openkbp", path=str(tmp_path))


def test_phantoms_teach_what_their_cut_images_still_show(phantoms, tmp_path):
    found = taught_in(tmp_path, phantoms(3, 7))
    assert found.taught_by == dict.fromkeys((ORGANS[2].name, ORGANS[6].name), PHANTOMS)


def test_only_the_patients_of_the_training_part_teach(openkbp, tmp_path):
    everyone = taught_in(tmp_path / "all", openkbp)
    larynx = ("Larynx_SG", "Glottis", "Arytenoid")
    assert everyone.taught_by == {"Brainstem": PATIENTS, **dict.fromkeys(larynx, UNION)}
    assert everyone.joined == (larynx,)
    held_out = taught_in(tmp_path / "fold", dataclasses.replace(openkbp, fold=(1, 3)))
    assert held_out == Taught(("Brainstem",), {"Brainstem": PATIENTS})
    few = taught_in(tmp_path / "few", dataclasses.replace(openkbp, cases=1))
    assert few.trained == ("Brainstem",)


def test_a_union_teaches_only_a_network_that_knows_all_of_it(openkbp, tmp_path):
    found = taught_in(tmp_path / "cases", openkbp, organs=("Brainstem", "Glottis"))
    assert found == Taught(("Brainstem",), {"Brainstem": PATIENTS})


def test_several_cohorts_teach_together_and_phantoms_on_disk_are_no_patients(openkbp, phantoms, tiny_cohort, tmp_path):
    found = taught_in(tmp_path, openkbp, phantoms(5, 30), dataclasses.replace(tiny_cohort, patients=False))
    assert found.taught_by["Brainstem"] == ("phantom", "patient")
    assert found.taught_by["SpinalCord"] == found.taught_by["Parotid_L"] == PHANTOMS
    assert found.taught_by["Arytenoid"] == ("phantom", "patient union")


def test_curated_cases_teach_what_they_call_annotated(tmp_path):
    for name, organs in (("a", ("Lips",)), ("b", ("Lips", "SpinalCord", "GTVp"))):
        folder = tmp_path / "in" / "cases" / name
        folder.mkdir(parents=True)
        record = CaseRecord(name, "good", (), GRID, GRID, organs, ("Glottis",), (), {}, (), (), (), ())
        write_json(record, folder / "case.json")
        for file, volume in zip(("ct", "labels"), drawn(21, 23, 30), strict=True):
            write_volume(volume, folder / f"{file}.nrrd")
    found = taught_in(tmp_path / "out", CohortConfig(source="curated", path=str(tmp_path / "in")))
    assert found.taught_by == dict.fromkeys(("Lips", "SpinalCord"), PATIENTS)


def test_what_the_cases_do_not_show_is_known_from_where_training_started(tiny_cohort, tmp_path):
    write_taught(tmp_path, Taught(("Arytenoid", "Brainstem"), {"Arytenoid": PATIENTS, "Brainstem": UNION}))
    phantoms = dataclasses.replace(tiny_cohort, patients=False)
    found = taught_in(tmp_path / "cases", phantoms, start_from=str(tmp_path))
    assert found.taught_by["Brainstem"] == UNION
    assert found.taught_by["Arytenoid"] == PHANTOMS, "the last teacher counts"
    assert set(found.trained) == {"Brainstem", "Arytenoid", "Parotid_L", "Parotid_R"}


def test_a_run_that_does_not_say_what_taught_it_is_refused(tmp_path):
    with pytest.raises(UnreadableFile, match="does not say what taught it"):
        read_taught(tmp_path)


def data_of(config, folder, said):
    folder.mkdir(exist_ok=True)
    PatchData(config, folder, done=0, on_progress=lambda _fraction, text: said.append(text)).prepare_data()


def test_organs_that_no_case_shows_are_named_and_training_on_nothing_is_refused(tiny_cohort, tmp_path):
    settings = OptimisationConfig(loader_workers=0)
    config = TrainConfig(
        name="x", organs=("Parotid_L", "Lips"), cohorts=(tiny_cohort,), preprocess=SETTINGS, optimisation=settings
    )
    said = []
    data_of(config, tmp_path / "some", said)
    assert said[-1] == "No training case shows Lips; the network will not find them."
    assert read_taught(tmp_path / "some").trained == ("Parotid_L",)
    with pytest.raises(InputError, match="shows an organ that x is to find"):
        data_of(dataclasses.replace(config, organs=("Lips",)), tmp_path / "none", said)


def test_a_second_look_decides_what_it_was_taught_and_leaves_what_patients_taught_the_first():
    config = TrainConfig(name="fine", organs=("Lips", "Glottis", "Pituitary"))
    own = Taught(("Glottis", "Lips"), {"Glottis": PHANTOMS, "Lips": PHANTOMS})
    first = Taught(("Glottis", "Lips"), {"Glottis": UNION, "Lips": PHANTOMS})
    assert fine_stage(config, own, first).decides == ("Lips",)
    with pytest.raises(ConfigError, match="second look fine knows no organ better"):
        fine_stage(config, Taught(("Glottis",), {"Glottis": PHANTOMS}), first)
