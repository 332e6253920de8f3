"""What taught an organ is read off the cohorts, and a bundle keeps it."""

import dataclasses

import yaml

from hnseg.curation.record import CaseRecord, write_json
from hnseg.image.grid import Grid
from hnseg.plain import to_plain
from hnseg_training.config import CohortConfig, TrainConfig
from hnseg_training.teaching import taught_by

PHANTOMS = CohortConfig()
OPENKBP = CohortConfig(source="openkbp", path="somewhere")


def test_phantoms_teach_all_organs_and_openkbp_seven_of_which_two_are_joined():
    taught = taught_by(TrainConfig(name="x", cohorts=(PHANTOMS, OPENKBP)))
    assert len(taught) == 30
    assert taught["Parotid_L"] == taught["Brainstem"] == ("phantom", "patient")
    assert taught["Glottis"] == taught["Cricopharyngeus"] == ("phantom", "patient union")
    assert sum(kinds == ("phantom",) for kinds in taught.values()) == 20


def test_hanseg_s_layout_teaches_what_is_drawn_and_not_called_partial(tiny_cohort, tmp_path):
    assert taught_by(TrainConfig(name="x", cohorts=(tiny_cohort,))) == dict.fromkeys(
        ("Arytenoid", "Parotid_L", "Parotid_R"), ("patient",)
    )
    marked = tmp_path / "set_1"
    (marked / "case_01").mkdir(parents=True)
    for organ in ("Lips", "Glottis"):
        (marked / "case_01" / f"case_01_OAR_{organ}.seg.nrrd").touch()
    (marked / "OAR_data.csv").write_text("case;Lips;Glottis\ncase_01;1;0.5\n")
    assert list(taught_by(TrainConfig(name="x", cohorts=(dataclasses.replace(tiny_cohort, path=str(marked)),)))) == [
        "Lips"
    ]


def test_phantoms_on_disk_are_no_patients(tiny_cohort):
    phantoms = dataclasses.replace(tiny_cohort, patients=False)
    assert set(taught_by(TrainConfig(name="x", cohorts=(phantoms,))).values()) == {("phantom",)}


def test_curated_cases_teach_what_they_call_annotated(tmp_path):
    grid = Grid((4, 4, 4), (1.0, 1.0, 1.0))
    for name, organs in (("a", ("Lips",)), ("b", ("Lips", "SpinalCord"))):
        (tmp_path / "cases" / name).mkdir(parents=True)
        record = CaseRecord(name, "good", (), grid, grid, organs, ("Glottis",), (), {}, (), (), (), ())
        write_json(record, tmp_path / "cases" / name / "case.json")
    curated = CohortConfig(source="curated", path=str(tmp_path))
    assert taught_by(TrainConfig(name="x", cohorts=(curated,))) == dict.fromkeys(("Lips", "SpinalCord"), ("patient",))


def test_what_the_cohorts_do_not_show_is_known_from_where_training_started(tiny_cohort, tmp_path):
    before = TrainConfig(name="before", cohorts=(PHANTOMS, OPENKBP))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_plain(before)))
    phantoms = dataclasses.replace(tiny_cohort, patients=False)
    taught = taught_by(TrainConfig(name="after", start_from=str(tmp_path), cohorts=(phantoms,)))
    assert taught["Brainstem"] == ("phantom", "patient")
    assert taught["Arytenoid"] == ("phantom",), "the last teacher counts"


def test_a_network_for_some_organs_says_nothing_of_others():
    taught = taught_by(TrainConfig(name="x", organs=("Lips", "Parotid_L"), cohorts=(PHANTOMS,)))
    assert list(taught) == ["Lips", "Parotid_L"] or list(taught) == ["Parotid_L", "Lips"]
