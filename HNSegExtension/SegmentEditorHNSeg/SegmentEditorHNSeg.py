"""The hidden module that registers the HNSeg effect with the Segment Editor, and its self-test."""

import sys
from pathlib import Path

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

_FOLDER = Path(__file__).resolve().parent


def _findPackages():
    """In a source tree hnseg and HNSegLib lie one folder up; installed, they lie beside this file and are found."""
    for folder in (_FOLDER, _FOLDER.parent):
        if (folder / "HNSegLib").is_dir() and str(folder) not in sys.path:
            sys.path.append(str(folder))


class SegmentEditorHNSeg(ScriptedLoadableModule):
    """Registers the effect when Slicer has started."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        _findPackages()
        self.parent.title = "SegmentEditorHNSeg"
        self.parent.categories = ["Segmentation"]
        self.parent.dependencies = ["Segmentations"]
        self.parent.contributors = ["HNSeg contributors"]
        self.parent.hidden = True
        self.parent.helpText = "This hidden module registers the Segment Editor effect of HNSeg."
        self.parent.acknowledgementText = "Research use only, not a medical device."
        slicer.app.connect("startupCompleted()", self.registerEditorEffect)

    def registerEditorEffect(self):
        """Slicer's way: an adaptor of C++, given the path of the Python file."""
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        instance = effects.qSlicerSegmentEditorScriptedEffect(None)
        instance.setPythonSource((_FOLDER / "SegmentEditorHNSegLib" / "SegmentEditorEffect.py").as_posix())
        instance.self().register()
