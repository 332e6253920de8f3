"""Cases are found where the public data sets put them, and their structures are read under the right names."""

import hashlib

import numpy as np
import pytest

from hnseg.curation.layouts import OPENKBP, find_cases
from hnseg.curation.sources import CaseSource, LabelFile, MaskFiles, source_records
from hnseg.errors import InputError, UnreadableFile
from hnseg.image.files import write_volume
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume

GRID = Grid((5, 4, 3), (1.0, 2.0, 3.0), (10.0, 20.0, 30.0))


def touch(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def hanseg(root):
    touch(root / "OAR_data.csv", "case;Brainstem;Cavity Oral\ncase_02;0.5;1\ncase_10;1;0\n")
    touch(root / "patient_data.csv", "Case;Gender;Age\ncase_02;F;61\n")
    for name in ("case_10", "case_02"):
        touch(root / name / f"{name}_IMG_CT.nrrd")
        touch(root / name / f"{name}_OAR_Brainstem.seg.nrrd")
        touch(root / name / f"{name}_OAR_Cavity_Oral.seg.nrrd")
    touch(root / "case_02" / "case_02_IMG_MR_T1.nrrd")


@pytest.mark.parametrize("inner", ["", "set_1", "HaN-Seg/set_1"])
def test_hanseg_is_found_at_any_level_with_its_tables(tmp_path, inner):
    hanseg(tmp_path / inner)
    found = find_cases(tmp_path)
    assert found.layout == "HaN-Seg"
    assert [case.name for case in found.cases] == ["case_02", "case_10"]
    first, second = found.cases
    assert first.mr.name == "case_02_IMG_MR_T1.nrrd"
    assert second.mr is None
    assert [name for name, _ in first.structures.files] == ["Brainstem", "Cavity_Oral"]
    assert (first.marks, second.marks) == ({"Brainstem": 0.5, "Cavity_Oral": 1}, {"Brainstem": 1, "Cavity_Oral": 0})
    assert (first.patient, second.patient) == ({"sex": "F", "age": "61"}, {})


def test_a_hanseg_case_without_its_ct_is_still_a_case_and_names_the_file(tmp_path):
    hanseg(tmp_path)
    (tmp_path / "case_10" / "case_10_IMG_CT.nrrd").unlink()
    touch(tmp_path / "case_10" / "case_10_IMG_MR_T1.nrrd")
    assert find_cases(tmp_path).cases[1].ct.name == "case_10_IMG_CT.nrrd"


def test_a_missing_availability_table_is_noted(tmp_path):
    touch(tmp_path / "case_01" / "case_01_IMG_CT.nrrd")
    assert "OAR_data.csv" in find_cases(tmp_path).notes[0]


def test_pddca_is_found_and_its_names_become_the_tables(tmp_path):
    for part in ("img.nrrd", "structures/BrainStem.nrrd", "structures/Chiasm.nrrd", "structures/OpticNerve_L.nrrd"):
        touch(tmp_path / "training" / "0522c0001" / part)
    (case,) = find_cases(tmp_path).cases
    assert case.name == "0522c0001"
    assert [name for name, _ in case.structures.files] == ["Brainstem", "OpticChiasm", "OpticNrv_L"]


def test_hecktor_pairs_ct_pet_and_labels(tmp_path):
    touch(tmp_path / "imagesTr" / "CHUM-001__CT.nii.gz")
    touch(tmp_path / "imagesTr" / "CHUM-001__PT.nii.gz")
    touch(tmp_path / "labelsTr" / "CHUM-001.nii.gz")
    touch(tmp_path / "imagesTs" / "MDA-009__CT.nii.gz")
    labelled, unlabelled = find_cases(tmp_path).cases
    assert (labelled.name, labelled.pet.name) == ("CHUM-001", "CHUM-001__PT.nii.gz")
    assert labelled.structures.names == {1: "GTVp", 2: "GTVn"}
    assert labelled.targets == ("GTVp", "GTVn")
    assert (unlabelled.name, unlabelled.pet, unlabelled.structures) == ("MDA-009", None, None)


def test_openkbp_counts_what_was_contoured_and_keeps_its_own_larynx_apart(tmp_path):
    touch(tmp_path / "pt_7_ct.nii.gz")
    labels = np.zeros(GRID.shape_kji, np.uint8)
    labels.ravel()[:8] = range(8)
    write_volume(Volume(labels, GRID), tmp_path / "pt_7_oar.nii.gz")
    touch(tmp_path / "availability.csv", "case;Brainstem;Parotid_L;Larynx;Bone_Mandible\npt_7;1;0;1;1\n")
    (case,) = find_cases(tmp_path).cases
    masks, remarks = case.structures.read(GRID)
    read = {name: int(mask.array_kji.sum()) for name, mask in masks}
    assert read == {"Brainstem": 1, "Larynx (OpenKBP)": 1, "Bone_Mandible": 1}
    assert remarks == ()


def test_values_without_a_meaning_are_noted(tmp_path):
    write_volume(Volume(np.full(GRID.shape_kji, 9, np.uint8), GRID), tmp_path / "l.nrrd")
    _, (remark,) = LabelFile(tmp_path / "l.nrrd", OPENKBP).read(GRID)
    assert "[9]" in remark.text
    assert remark.is_grave


def test_a_folder_without_cases_says_what_is_known(tmp_path):
    touch(tmp_path / "notes.txt")
    with pytest.raises(InputError, match=r"HaN-Seg.*PDDCA.*HECKTOR.*OpenKBP.*DICOM"):
        find_cases(tmp_path)
    with pytest.raises(UnreadableFile, match="no folder"):
        find_cases(tmp_path / "absent")


def test_sources_carry_the_digests_of_their_bytes(tmp_path):
    ct, mask = touch(tmp_path / "a" / "ct.nrrd", "ct bytes"), touch(tmp_path / "a" / "m.nrrd", "mask bytes")
    records = source_records(CaseSource("a", ct, structures=MaskFiles((("Lips", mask),))), tmp_path)
    assert [(r.role, r.path, r.bytes) for r in records] == [("ct", "a/ct.nrrd", 8), ("structures", "a/m.nrrd", 10)]
    assert records[0].sha256 == hashlib.sha256(b"ct bytes").hexdigest()


def test_a_series_digest_changes_with_any_of_its_files(tmp_path):
    slices = tuple(touch(tmp_path / "s" / f"{n}.dcm", str(n)) for n in range(3))
    source = CaseSource("a", slices[0], series={"ct": slices})
    (before,) = source_records(source, tmp_path)
    assert (before.path, before.bytes) == ("s", 3)
    slices[2].write_text("9")
    assert source_records(source, tmp_path)[0].sha256 != before.sha256
