"""Cohorts on disk: what was drawn, where the MR reaches, and what a table says about masks."""

import dataclasses
import json
from typing import get_args

import numpy as np
import pytest

from hnseg.curation.record import CaseRecord, write_json
from hnseg.errors import InputError
from hnseg.image.files import write_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.organs import find_organ
from hnseg.preprocessing import PreprocessSettings
from hnseg_training.cases import prepare
from hnseg_training.config import CohortConfig, Part, TrainConfig
from hnseg_training.sources import case_loaders

GRID = Grid((20, 24, 16), (4.0, 4.0, 5.0), (-40.0, -48.0, -40.0))
PAROTID, CORD = find_organ("Parotid_L").label, find_organ("SpinalCord").label


def write_curated(folder):
    """Two organs of which one is annotated, a tumour, and an MR that reaches a slanted part of the image."""
    case = folder / "cases" / "case_01"
    case.mkdir(parents=True)
    ct = np.full(GRID.shape_kji, -1000, np.int16)
    ct[1:15, 3:21, 2:18] = 40
    labels = np.zeros(GRID.shape_kji, np.uint8)
    labels[4:8, 6:12, 10:15], labels[4:8, 6:12, 4:8], labels[9:12, 6:12, 4:8] = PAROTID, CORD, 31
    k, j, i = np.indices(GRID.shape_kji)
    valid = ((i + k > 8) & (k > 2)).astype(np.uint8)
    mr = np.where(valid, 100 + 5 * j, 0).astype(np.float32)
    for name, array in (("ct", ct), ("labels", labels), ("mr", mr), ("mr_valid", valid)):
        write_volume(Volume(array, GRID), case / f"{name}.nrrd")
    record = CaseRecord(
        "case_01", "good", (), GRID, GRID, ("Parotid_L",), ("SpinalCord",), ("GTVp",), {}, (), (), (), ()
    )
    write_json(dataclasses.replace(record, mr=None), case / "case.json")
    return valid


def test_a_curated_case_trains_what_it_calls_annotated(tmp_path):
    write_curated(tmp_path)
    (load,) = case_loaders(CohortConfig(source="curated", path=str(tmp_path))).values()
    case = load()
    assert case.annotated == (PAROTID,)
    assert set(np.unique(case.labels.array_kji)) == {0, PAROTID}
    assert case.mr is None


def test_the_mr_of_a_curated_case_is_valid_where_it_reached_and_nowhere_else(tmp_path, monkeypatch):
    valid = write_curated(tmp_path)
    monkeypatch.setattr(CaseRecord, "has_mr", property(lambda record: True))
    cohort = CohortConfig(source="curated", path=str(tmp_path))
    settings = PreprocessSettings(spacing_mm=GRID.spacing_mm, ct_windows_hu=((-200.0, 200.0),), margin_mm=500.0)
    config = TrainConfig(name="x", cohorts=(cohort,), preprocess=settings)
    ((folder,),) = prepare(config, tmp_path / "prepared", on_progress=lambda _fraction, _text: None)
    image = np.load(folder / "image.npy").astype(np.float32)
    assert np.array_equal(image[-1] > 0, valid > 0)
    assert not image[-2][valid == 0].any()
    assert image[-2][valid > 0].std() > 0.5
    assert json.loads((folder / "case.json").read_text())["annotated"] == [PAROTID]


def test_the_cases_of_one_patient_are_in_one_part(tmp_path):
    subjects = {"a": "X", "b": "", "c": "X", "d": "", "e": "Y", "f": "Y"}
    for name, subject in subjects.items():
        (tmp_path / "cases" / name).mkdir(parents=True)
        record = CaseRecord(name, "good", (), GRID, GRID, ("Lips",), (), (), {}, (), (), (), (), subject=subject)
        write_json(record, tmp_path / "cases" / name / "case.json")
    cohort = CohortConfig(source="curated", path=str(tmp_path), fold=(0, 4), inner_fold=(0, 2))
    parts = {part: list(case_loaders(dataclasses.replace(cohort, part=part))) for part in get_args(Part)}
    assert parts == {"held-out": ["a", "c"], "selection": ["b", "e", "f"], "training": ["d"]}


def test_a_folder_without_curated_cases_is_refused(tmp_path):
    with pytest.raises(InputError, match="no curated cases; give the output folder of `hnseg curate`"):
        case_loaders(CohortConfig(source="curated", path=str(tmp_path)))


def test_masks_that_the_table_calls_partial_or_missing_are_not_annotated(tmp_path, write_patient):
    write_patient(tmp_path / "case_01", organs=("Parotid_R", "Arytenoid", "Parotid_L"), mr=False)
    (tmp_path / "OAR_data.csv").write_text("case;Parotid R;Arytenoid;Parotid_L\ncase_01;1;0.5;0\n")
    (load,) = case_loaders(CohortConfig(source="hanseg", path=str(tmp_path))).values()
    right = find_organ("Parotid_R").label
    assert load().annotated == (right,)
    assert set(np.unique(load().labels.array_kji)) == {0, right}
