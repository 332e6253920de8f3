"""The .ui files name only what Slicer's widgets have: Qt ignores a property that does not exist, without a word."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

EXTENSION = Path(__file__).parents[2] / "HNSegExtension"
FILES = [EXTENSION / "HNSegLib" / "SegmentationPanel.ui", EXTENSION / "HNSeg" / "Resources" / "UI" / "HNSeg.ui"]
CODE = ["HNSeg/HNSeg.py", "HNSegLib/panel.py", "HNSegLib/review_panel.py"]

PROPERTIES = {
    "qMRMLNodeComboBox": {
        "nodeTypes", "showHidden", "showChildNodeTypes", "hideChildNodeTypes", "baseName", "noneEnabled", "addEnabled",
        "removeEnabled", "editEnabled", "renameEnabled", "selectNodeUponCreation", "noneDisplay", "sizeAdjustPolicy",
        "interactionNodeSingletonTag", "toolTip", "enabled",
    },
    "ctkCollapsibleButton": {"text", "collapsed", "collapsedHeight", "flat", "toolTip"},
    "ctkCollapsibleGroupBox": {"title", "collapsed", "collapsedHeight", "toolTip"},
    "qMRMLWidget": set(),
}  # fmt: skip
"""Read in the headers of Slicer 5.10 and its CTK."""


def widgets():
    for path in FILES:
        yield from ET.parse(path).iter("widget")


@pytest.mark.parametrize("kind", PROPERTIES)
def test_slicers_widgets_get_only_properties_that_they_have(kind):
    named = {entry.get("name") for one in widgets() if one.get("class") == kind for entry in one.findall("property")}
    assert named <= PROPERTIES[kind]


def test_every_class_of_slicer_is_declared_in_its_file():
    for path in FILES:
        tree = ET.parse(path)
        used = {one.get("class") for one in tree.iter("widget")} & set(PROPERTIES)
        assert used == {one.text for one in tree.iter("class") if one.text in PROPERTIES}


def test_names_are_unique_across_the_two_files_that_are_shown_together():
    names = [one.get("name") for one in widgets()]
    assert len(names) == len(set(names))


def test_every_widget_that_the_code_names_is_in_a_ui_file():
    named = {name for file in CODE for name in re.findall(r"\bui\.(\w+)", (EXTENSION / file).read_text())}
    assert named <= {one.get("name") for one in widgets()}


def test_volume_selectors_do_not_offer_label_maps():
    for one in widgets():
        properties = {entry.get("name"): entry for entry in one.findall("property")}
        if one.get("class") == "qMRMLNodeComboBox" and "ScalarVolume" in properties["nodeTypes"].find(".//string").text:
            assert properties["showChildNodeTypes"].find("bool").text == "false"
