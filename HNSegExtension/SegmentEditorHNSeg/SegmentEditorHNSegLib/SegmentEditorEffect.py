"""The HNSeg effect of the Segment Editor: what Slicer calls, handed on to ``HNSegLib.panel``.

Nothing third-party is imported at file scope, so that the effect is always listed and can say what is missing.
"""

from pathlib import Path

import qt
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect

from hnseg.version import RESEARCH_USE
from HNSegLib.choices import Choices
from HNSegLib.panel import SegmentationPanel

_ICON = Path(__file__).resolve().with_name("SegmentEditorEffect.png")


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect):
    """Segments the 30 organs at risk of the head and neck from the source CT and, if there is one, a T1 MR."""

    def __init__(self, scriptedEffect):
        scriptedEffect.name = "HNSeg"
        scriptedEffect.title = "Head-neck organs"
        scriptedEffect.perSegment = False
        scriptedEffect.requireSegments = False
        scriptedEffect.showEffectCursorInSliceView = False
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self.panel = None

    def clone(self):
        """A new effect from this file, as Slicer wants it."""
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        clonedEffect = effects.qSlicerSegmentEditorScriptedEffect(None)
        clonedEffect.setPythonSource(Path(__file__).as_posix())
        return clonedEffect

    def icon(self):
        """The picture beside this file."""
        return qt.QIcon(str(_ICON))

    def helpText(self):
        """What the effect does, in the editor's help box."""
        return (
            "<html>Segments 30 organs at risk of the head and neck from the source CT and, optionally, a T1 MR."
            "<p>Apply works in the background and can be cancelled. One undo takes the whole result back. "
            "Segments that you edited, completed or flagged stay as they are."
            f"<p><b>{RESEARCH_USE}</b></html>"
        )

    def setupOptionsFrame(self):
        """The panel, on this effect's parameters."""
        self.panel = SegmentationPanel(_EffectHost(self.scriptedEffect))
        self.scriptedEffect.addOptionsWidget(self.panel.widget)

    def cleanup(self):
        """Let go of everything before Slicer deletes the effect."""
        if self.panel is not None:
            self.panel.cleanup()

    def setMRMLDefaults(self):
        """A new scene begins with all organs, the model that ships, and protection of edited segments."""
        for name, value in Choices().to_parameters().items():
            self.scriptedEffect.setParameterDefault(name, value)

    def updateGUIFromMRML(self):
        """The scene changed."""
        self.panel.updateFromScene()

    def updateMRMLFromGUI(self):
        """The user chose something."""
        self.panel.updateToScene()

    def sourceVolumeNodeChanged(self):
        """Another CT."""
        if self.panel is not None:
            self.panel.showAvailability()

    def referenceGeometryChanged(self):
        """Labels come on the CT's own grid, whatever the segmentation's geometry is."""

    def activate(self):
        """The user chose this effect."""
        self.panel.refresh()

    def deactivate(self):
        """The job goes on; its result waits until the user is back."""


class _EffectHost:
    """The effect's adaptor as the panel sees it."""

    def __init__(self, scriptedEffect):
        self.parameter = scriptedEffect.parameter
        self.setParameter = scriptedEffect.setParameter
        self.nodeReference = scriptedEffect.nodeReference
        self.setNodeReference = scriptedEffect.setNodeReference
        self.saveStateForUndo = scriptedEffect.saveStateForUndo
        self._scriptedEffect = scriptedEffect

    def ct(self):
        """The editor's source volume."""
        parameters = self._scriptedEffect.parameterSetNode()
        return parameters.GetSourceVolumeNode() if parameters is not None else None

    def segmentation(self):
        """What the editor edits."""
        parameters = self._scriptedEffect.parameterSetNode()
        return parameters.GetSegmentationNode() if parameters is not None else None

    def shown(self):
        """Whether this is the editor's effect now."""
        return self._scriptedEffect.parameterSetNode() is not None and self._scriptedEffect.active()

    def prepare(self):
        """The editor has made the segmentation already."""
