"""Cohorts on disk: what was drawn, where the MR reaches, and what a table says about masks."""

import dataclasses
import json
from typing import get_args

import numpy as np
import pytest

from hnseg.curation.case import curate_case, write_case
from hnseg.curation.record import CaseRecord, read_case, write_json
from hnseg.curation.settings import CurationSettings
from hnseg.curation.sources import CaseSource, MaskFiles
from hnseg.errors import ConfigError, InputError
from hnseg.image.files import write_volume
from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segmentation, read_segmentation, write_segmentation
from hnseg.image.volume import Volume
from hnseg.organs import find_organ
from hnseg.preprocessing import PreprocessSettings
from hnseg_training import sources
from hnseg_training.cases import open_case, prepare
from hnseg_training.config import CohortConfig, Part, TrainConfig
from hnseg_training.sources import RawCase, case_loaders, merge_of, with_unions

GRID = Grid((20, 24, 16), (4.0, 4.0, 5.0), (-40.0, -48.0, -40.0))
COARSE = PreprocessSettings(spacing_mm=(4.0, 4.0, 5.0))
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


def write_petct(folder):
    """A PET/CT with a drawn organ and a target, as `hnseg curate` writes it."""
    ct = np.full(GRID.shape_kji, -1000, np.int16)
    ct[1:15, 3:21, 2:18] = 40
    masks = {name: np.zeros(GRID.shape_kji, np.uint8) for name in ("Parotid_L", "GTVp")}
    masks["Parotid_L"][4:8, 6:12, 10:15], masks["GTVp"][9:12, 6:12, 4:8] = 1, 1
    (folder / "in").mkdir()
    for name, array in (("ct", ct), ("pet", np.where(masks["GTVp"] > 0, 9, 1).astype(np.float32)), *masks.items()):
        write_volume(Volume(array, GRID), folder / "in" / f"{name}.nrrd")
    files = MaskFiles(tuple((name, folder / "in" / f"{name}.nrrd") for name in masks))
    source = CaseSource(
        "case_01", folder / "in" / "ct.nrrd", pet=folder / "in" / "pet.nrrd", structures=files, targets=("GTVp",)
    )
    (folder / "cases" / "case_01").mkdir(parents=True)
    write_case(curate_case(source, CurationSettings(), root=folder), folder / "cases" / "case_01")
    return masks


def test_a_curated_case_trains_what_it_calls_annotated(tmp_path):
    write_curated(tmp_path)
    (load,) = case_loaders(CohortConfig(source="curated", path=str(tmp_path))).values()
    case = load()
    assert case.annotated == (PAROTID,)
    assert set(np.unique(case.labels.array_kji)) == {0, PAROTID}
    assert case.mr is None


def test_a_curated_pet_ct_trains_its_organs_with_the_pet_beside_the_ct(tmp_path):
    masks = write_petct(tmp_path)
    assert "GTVp" in read_case(tmp_path / "cases" / "case_01").annotated
    cohort = CohortConfig(source="curated", path=str(tmp_path), registered=True)
    (load,) = case_loaders(cohort).values()
    case = load()
    assert case.annotated == (PAROTID,)
    assert np.array_equal(case.labels.array_kji, PAROTID * masks["Parotid_L"])
    assert case.mr.array_kji[masks["GTVp"] > 0] == pytest.approx(9)
    assert case.ct_to_mr is None, "the PET lies on the CT's grid"
    (load,) = case_loaders(dataclasses.replace(cohort, registered=False)).values()
    assert load().mr is None


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


def prepared(cohort, folder, settings=COARSE):
    config = TrainConfig(name="x", cohorts=(cohort,), preprocess=settings)
    (folders,) = prepare(config, folder, on_progress=lambda _fraction, _text: None)
    return [open_case(folder) for folder in folders]


def test_a_prepared_case_is_made_anew_when_settings_cohort_or_files_differ_and_kept_otherwise(tmp_path, write_patient):
    write_patient(tmp_path / "one" / "case_01", organs=("Parotid_L",), mr=False)
    write_patient(tmp_path / "two" / "case_01", organs=("Arytenoid",), mr=False)
    one, two = (CohortConfig(source="hanseg", path=str(tmp_path / name)) for name in ("one", "two"))
    runs = tmp_path / "cases"
    (before,) = prepared(one, runs)
    assert set(before.points) == {0, PAROTID}
    made = (runs / "0-hanseg" / "case_01" / "case.json").stat().st_mtime_ns
    prepared(dataclasses.replace(one, share=2.0, cases=7, fold=(1, 2)), runs)
    assert (runs / "0-hanseg" / "case_01" / "case.json").stat().st_mtime_ns == made
    (finer,) = prepared(one, runs, dataclasses.replace(COARSE, spacing_mm=(2.0, 2.0, 2.5)))
    assert np.all(np.divide(finer.image.shape[1:], before.image.shape[1:]) > 1.8)
    (other,) = prepared(two, runs)
    assert set(other.points) == {0, find_organ("Arytenoid").label}
    (tmp_path / "two" / "OAR_data.csv").write_text("case;Arytenoid\ncase_01;0\n")
    (undrawn,) = prepared(two, runs)
    assert set(undrawn.points) == {0}
    write_volume(
        Volume(np.full(GRID.shape_kji, 30, np.int16), GRID), tmp_path / "two" / "case_01" / "case_01_IMG_CT.nrrd"
    )
    (redrawn,) = prepared(two, runs)
    assert redrawn.image.shape != undrawn.image.shape


def test_a_phantom_is_made_anew_when_its_variation_differs(tmp_path, monkeypatch):
    made = []

    def phantom(seed, cohort):
        made.append(cohort.variation)
        return RawCase(
            "p", Volume(np.full(GRID.shape_kji, 30, np.int16), GRID), Volume(np.zeros(GRID.shape_kji, np.uint8), GRID)
        )

    monkeypatch.setattr(sources, "phantom_case", phantom)
    for variation in (1.0, 1.0, 1.5):
        prepared(CohortConfig(cases=1, variation=variation), tmp_path)
    assert made == [1.0, 1.5]


def write_larynx(folder):
    """Beside the two organs a larynx of 5 × 6 × 4 voxels, part of which the parotid claims, too."""
    write_curated(folder)
    larynx, parotid = (np.zeros(GRID.shape_kji, np.uint8) for _ in range(2))
    larynx[5:10, 6:12, 8:12], parotid[4:8, 6:12, 10:15] = 1, 1
    masks = Segmentation.from_masks({"Parotid_L": Volume(parotid, GRID), "Larynx": Volume(larynx, GRID)})
    write_segmentation(masks, folder / "cases" / "case_01" / "segmentation.seg.nrrd")
    return larynx > 0, parotid > 0


LARYNX = {"Larynx": ("Larynx_SG", "Glottis", "Arytenoid")}
PARTS = tuple(sorted(find_organ(name).label for name in LARYNX["Larynx"]))


def test_a_structure_of_a_curated_case_stands_for_the_union_of_its_organs(tmp_path):
    larynx, parotid = write_larynx(tmp_path)
    (load,) = case_loaders(CohortConfig(source="curated", path=str(tmp_path), unions=LARYNX)).values()
    case = load()
    assert case.annotated == (PAROTID,)
    assert case.unions == (PARTS,)
    assert np.array_equal(case.labels.array_kji == PARTS[0], larynx & ~parotid), "an organ of its own keeps its voxels"
    assert np.array_equal(case.labels.array_kji == PAROTID, parotid)
    assert merge_of(case.annotated, case.unions)[list(PARTS)].tolist() == [PARTS[0]] * 3


def test_an_organ_that_was_drawn_on_its_own_stays_out_of_its_union(tmp_path):
    larynx, _ = write_larynx(tmp_path)
    arytenoid = find_organ("Arytenoid").label
    labels = np.where(larynx & (np.indices(GRID.shape_kji)[0] == 5), arytenoid, 0).astype(np.uint8)
    image = Volume(labels, GRID)
    drawn = read_segmentation(tmp_path / "cases" / "case_01" / "segmentation.seg.nrrd")
    joined = with_unions(RawCase("x", image, image, annotated=(arytenoid,)), drawn, LARYNX)
    assert joined.unions == (tuple(label for label in PARTS if label != arytenoid),)
    assert int((joined.labels.array_kji == arytenoid).sum()) == 24
    assert int((joined.labels.array_kji == joined.unions[0][0]).sum()) == 96
    assert int((labels > 0).sum()) == 24, "the input is never changed"


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"unions": {"Larinx": ("Glottis",)}}, InputError, "has a structure 'Larinx'; did you mean 'Larynx'"),
        ({"unions": {"A": ("Glottis",), "B": ("Glottis",)}}, ConfigError, "name every organ once"),
        ({"unions": {"Larynx": ()}}, ConfigError, "organs of its own"),
        ({"unions": LARYNX, "source": "hanseg"}, ConfigError, "not from source 'hanseg'"),
    ],
)
def test_unions_that_cannot_be_read_are_refused(tmp_path, change, kind, said):
    write_larynx(tmp_path)
    with pytest.raises(kind, match=said):
        case_loaders(CohortConfig(**{"source": "curated", "path": str(tmp_path), **change}))


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
