"""The colour tables and the terminology that we ship, in Slicer's own readers."""

from pathlib import Path

import pytest
import slicer

from hnseg.organs import ORGANS, find_organ
from hnseg.terminology import CONTEXT, terminology_entry

RESOURCES = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").is_file()) / "Resources"


def load_colours(scene, name):
    node = scene.AddNewNodeByClass("vtkMRMLColorTableNode")
    storage = scene.AddNewNodeByClass("vtkMRMLColorTableStorageNode")
    storage.SetFileName(str(RESOURCES / name))
    assert storage.ReadData(node) == 1
    return node


def colour(node, label):
    rgba = [0.0] * 4
    assert node.GetColor(label, rgba)
    return rgba


@pytest.mark.parametrize("name", ["HNSeg.ctbl", "HNSeg.csv"])
def test_slicer_reads_the_colour_of_every_label(scene, name):
    node = load_colours(scene, name)
    assert node.GetNumberOfColors() == 31
    assert colour(node, 0)[3] == 0
    for organ in ORGANS:
        assert find_organ(node.GetColorName(organ.label)) is organ
        assert colour(node, organ.label) == pytest.approx([*organ.rgb_unit, 1.0])


def test_the_table_with_codes_keeps_names_and_codes_whole(scene):
    node = load_colours(scene, "HNSeg.csv")
    for organ in ORGANS:
        assert node.GetColorName(organ.label) == organ.name
        assert node.GetTerminologyCategory(organ.label).GetCodeValue() == "123037004"
        assert node.GetTerminologyType(organ.label).GetCodeValue() == organ.sct_code
        assert node.GetTerminologyType(organ.label).GetCodeMeaning() == organ.sct_meaning
        if organ.side:
            assert node.GetTerminologyTypeModifier(organ.label).GetCodeMeaning() == organ.side.meaning


@pytest.fixture
def terminologies(scene):
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    logic.SetMRMLScene(scene)
    assert logic.LoadTerminologyFromFile(str(RESOURCES / "HNSeg.term.json")) == CONTEXT
    yield logic
    logic.SetMRMLScene(None)


def test_slicer_finds_every_organ_in_the_terminology_by_its_codes(terminologies):
    for organ in ORGANS:
        entry = slicer.vtkSlicerTerminologyEntry()
        assert terminologies.DeserializeTerminologyEntry(terminology_entry(organ), entry)
        # rebuilt from the loaded terminology: meanings and colours come from the file
        assert terminologies.UpdateEntryFromLoadedTerminologies(entry, [CONTEXT], [])
        shown = entry.GetTypeModifierObject() if organ.side else entry.GetTypeObject()
        assert shown.GetCodeValue() == (organ.side.code if organ.side else organ.sct_code)
        largest = max(
            (other for other in ORGANS if (other.sct_code, other.side) == (organ.sct_code, organ.side)),
            key=lambda other: other.typical_ml,
        )
        assert tuple(shown.GetRecommendedDisplayRGBValue()) == largest.rgb
        assert terminologies.SerializeTerminologyEntry(entry) == terminology_entry(organ)
