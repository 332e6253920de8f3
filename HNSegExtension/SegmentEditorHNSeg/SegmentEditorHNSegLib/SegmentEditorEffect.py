"""The HNSeg effect of the Segment Editor: its widgets, wired to ``HNSegLib.effect_logic``.

Nothing third-party is imported at file scope, so that the effect is always listed and can say what is missing.
"""

from pathlib import Path

import qt
import slicer
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect

from hnseg.models.places import bundle_folders
from hnseg.organs import BY_NAME, ORGANS
from hnseg.version import RESEARCH_USE
from HNSegLib import setting_up
from HNSegLib.choices import DEVICES, MR_REFERENCE, Choices
from HNSegLib.merging import MergePolicy

_POLICIES = {
    MergePolicy.REPLACE: "Replace the organs' segments",
    MergePolicy.ONLY_EMPTY: "Fill empty segments only",
}
_FOLDER = Path(__file__).resolve().parent
_UI = _FOLDER.parent / "Resources" / "UI" / "SegmentEditorHNSeg.ui"


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect):
    """Segments the 30 organs at risk of the head and neck from the source CT and, if there is one, a T1 MR."""

    def __init__(self, scriptedEffect):
        scriptedEffect.name = "HNSeg"
        scriptedEffect.title = "Head-neck organs"
        scriptedEffect.perSegment = False
        scriptedEffect.requireSegments = False
        scriptedEffect.showEffectCursorInSliceView = False
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self.ui = None
        self.logic = None
        self.timer = None
        self._connections = []

    def clone(self):
        """A new effect from this file, as Slicer wants it."""
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        clonedEffect = effects.qSlicerSegmentEditorScriptedEffect(None)
        clonedEffect.setPythonSource(Path(__file__).as_posix())
        return clonedEffect

    def icon(self):
        """The picture beside this file."""
        return qt.QIcon(str(_FOLDER / "SegmentEditorEffect.png"))

    def helpText(self):
        """What the effect does, in the editor's help box."""
        return (
            "<html>Segments 30 organs at risk of the head and neck from the source CT and, optionally, a T1 MR."
            "<p>Apply works in the background and can be cancelled. One undo takes the whole result back. "
            "Segments that you edited, completed or flagged stay as they are."
            f"<p><b>{RESEARCH_USE}</b></html>"
        )

    # Widgets

    def setupOptionsFrame(self):
        """Load the widgets, fill the fixed choices, connect."""
        panel = slicer.util.loadUI(str(_UI))
        self.ui = slicer.util.childWidgetVariables(panel)
        self.scriptedEffect.addOptionsWidget(panel)
        self.ui.researchUseLabel.setText(f"<b>{RESEARCH_USE}</b>")
        self.ui.mrSelector.setMRMLScene(slicer.mrmlScene)
        self._fillChoices()
        self._connectAll()
        self.timer = qt.QTimer()
        self.timer.setInterval(100)
        self._connect(self.timer, "timeout()", self.onTimer)
        self._showIdle("")

    def cleanup(self):
        """Let go of signals, timer and job before Slicer deletes the effect."""
        if self.timer is not None:
            self.timer.stop()
        if self.logic is not None:
            self.logic.cancel()
        for sender, signal, slot in self._connections:
            sender.disconnect(signal, slot)
        self._connections, self.logic, self.ui, self.timer = [], None, None, None

    def _fillChoices(self):
        for policy, text in _POLICIES.items():
            self.ui.policyComboBox.addItem(text, policy.value)
        for device in DEVICES:
            self.ui.deviceComboBox.addItem(device, device)
        for organ in ORGANS:
            self.ui.organsList.addItem(f"{organ.name}  ({organ.english})")
            self._organItem(organ.name).setCheckState(qt.Qt.Checked)

    def _organItem(self, name):
        """The list's row of that organ, borrowed from Qt: Python must not own it."""
        return self.ui.organsList.item(BY_NAME[name].label - 1)

    def _connectAll(self):
        ui = self.ui
        for sender, signal, slot in (
            (ui.installButton, "clicked()", self.onInstall),
            (ui.applyButton, "clicked()", self.onApply),
            (ui.cancelButton, "clicked()", self.onCancel),
            (ui.mrSelector, "currentNodeChanged(vtkMRMLNode*)", self.updateMRMLFromGUI),
            (ui.mrRegisteredCheckBox, "toggled(bool)", self.updateMRMLFromGUI),
            (ui.modelComboBox, "currentIndexChanged(int)", self.updateMRMLFromGUI),
            (ui.allOrgansCheckBox, "toggled(bool)", self.updateMRMLFromGUI),
            (ui.organsList, "itemChanged(QListWidgetItem*)", self.updateMRMLFromGUI),
            (ui.policyComboBox, "currentIndexChanged(int)", self.updateMRMLFromGUI),
            (ui.protectCheckBox, "toggled(bool)", self.updateMRMLFromGUI),
            (ui.deviceComboBox, "currentIndexChanged(int)", self.updateMRMLFromGUI),
        ):
            self._connect(sender, signal, slot)

    def _connect(self, sender, signal, slot):
        sender.connect(signal, slot)
        self._connections.append((sender, signal, slot))

    # Scene ↔ widgets

    def setMRMLDefaults(self):
        """A new scene begins with all organs, the model that ships, and protection of edited segments."""
        for name, value in Choices().to_parameters().items():
            self.scriptedEffect.setParameterDefault(name, value)

    def updateGUIFromMRML(self):
        """Show what the scene holds, without writing it back."""
        if self.ui is None:
            return
        choices = self._choices()
        selected = choices.organs or tuple(BY_NAME)
        ui = self.ui
        widgets = (ui.mrSelector, ui.mrRegisteredCheckBox, ui.modelComboBox, ui.allOrgansCheckBox, ui.organsList,
                   ui.policyComboBox, ui.protectCheckBox, ui.deviceComboBox)  # fmt: skip
        blocked = [(widget, widget.blockSignals(True)) for widget in widgets]
        ui.mrSelector.setCurrentNode(self.scriptedEffect.nodeReference(MR_REFERENCE))
        ui.mrRegisteredCheckBox.setChecked(choices.mr_registered)
        ui.modelComboBox.setCurrentIndex(max(ui.modelComboBox.findData(choices.model), 0))
        ui.allOrgansCheckBox.setChecked(not choices.organs)
        for name in BY_NAME:
            self._organItem(name).setCheckState(qt.Qt.Checked if name in selected else qt.Qt.Unchecked)
        ui.policyComboBox.setCurrentIndex(ui.policyComboBox.findData(choices.policy.value))
        ui.protectCheckBox.setChecked(choices.protect)
        ui.deviceComboBox.setCurrentIndex(ui.deviceComboBox.findData(choices.device))
        for widget, before in blocked:
            widget.blockSignals(before)
        self._showAvailability()

    def updateMRMLFromGUI(self, *_):
        """Keep what the widgets say in the scene; while the effect is not chosen they say nothing."""
        if self.ui is None or self.scriptedEffect.parameterSetNode() is None or not self.scriptedEffect.active():
            return
        # Each setting calls updateGUIFromMRML at once, so read every widget before the first.
        mr, chosen = self.ui.mrSelector.currentNode(), self._chosen()
        self.scriptedEffect.setNodeReference(MR_REFERENCE, mr)
        for name, value in chosen.to_parameters().items():
            self.scriptedEffect.setParameter(name, value)
        self._showAvailability()

    def sourceVolumeNodeChanged(self):
        """Another CT."""
        self._showAvailability()

    def referenceGeometryChanged(self):
        """Labels come on the CT's own grid, whatever the segmentation's geometry is."""

    def activate(self):
        """The user chose this effect: look again for models and for what is missing."""
        self._listModels()
        self._showSetUp()
        self.updateGUIFromMRML()

    def deactivate(self):
        """The job goes on; its result waits until the user is back."""

    def _choices(self):
        return Choices.from_parameters(self.scriptedEffect.parameter)

    def _chosen(self):
        ui = self.ui
        checked = tuple(name for name in BY_NAME if self._organItem(name).checkState() == qt.Qt.Checked)
        return Choices(
            model=_data(ui.modelComboBox) or "",
            organs=() if ui.allOrgansCheckBox.checked or len(checked) == len(ORGANS) else checked,
            policy=MergePolicy(_data(ui.policyComboBox)),
            protect=ui.protectCheckBox.checked,
            device=_data(ui.deviceComboBox),
            mr_registered=ui.mrRegisteredCheckBox.checked,
        )

    def _listModels(self):
        blocked = self.ui.modelComboBox.blockSignals(True)
        self.ui.modelComboBox.clear()
        self.ui.modelComboBox.addItem("Default", "")
        for name in bundle_folders():
            self.ui.modelComboBox.addItem(name, name)
        self.ui.modelComboBox.blockSignals(blocked)

    # Set-up

    def _showSetUp(self):
        absent = setting_up.missing()
        self.ui.setUpBox.setVisible(bool(absent))
        self.ui.setUpLabel.setText(f"HNSeg still needs: {', '.join(map(str, absent))}." if absent else "")

    def onInstall(self):
        """Install what is missing; asked for by the user, never at import."""
        qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            setting_up.install(
                setting_up.missing(),
                torch_installer=setting_up.torch_installer_of_slicer,
                pip_install=setting_up.pip_install_of_slicer,
            )
        except setting_up.SetUpFailed as error:
            self.ui.setUpLabel.setText(str(error))
        else:
            self._showSetUp()
        finally:
            qt.QApplication.restoreOverrideCursor()
        self._showAvailability()

    # Apply

    def onApply(self):
        """Hand the images to the worker; the timer shows how it goes."""
        parameters = self.scriptedEffect.parameterSetNode()
        mr = self.scriptedEffect.nodeReference(MR_REFERENCE)
        self._logicNow().apply(parameters.GetSourceVolumeNode(), mr, parameters.GetSegmentationNode(), self._choices())
        self.timer.start()

    def onCancel(self):
        """Stop the job."""
        self.logic.cancel()

    def onTimer(self):
        """Take in progress, or the result."""
        self.logic.tick(self._segmentationShown())
        if not self.logic.busy:
            self.timer.stop()

    def _segmentationShown(self):
        parameters = self.scriptedEffect.parameterSetNode()
        return parameters.GetSegmentationNode() if parameters is not None and self.scriptedEffect.active() else None

    def _logicNow(self):
        if self.logic is None:
            from HNSegLib.desk import shared_desk
            from HNSegLib.effect_logic import EffectLogic
            from HNSegLib.segmenting import SegmentJob

            undo = self.scriptedEffect.saveStateForUndo
            self.logic = EffectLogic(SegmentJob(shared_desk()), show=self.show, save_state_for_undo=undo)
        return self.logic

    def show(self, view):
        """Put a view of the logic into the widgets."""
        self.ui.progressBar.setVisible(view.busy)
        self.ui.progressBar.setValue(round(1000 * view.fraction))
        self.ui.cancelButton.setEnabled(view.busy)
        self.ui.statusLabel.setText(view.text)
        self.ui.statusLabel.setStyleSheet("color: #c62828;" if view.failed else "")
        self.ui.detailsText.setPlainText("\n".join(view.details))
        self.ui.detailsText.setVisible(bool(view.details))
        self._showAvailability()

    def _showIdle(self, text):
        self.ui.progressBar.setVisible(False)
        self.ui.cancelButton.setEnabled(False)
        self.ui.statusLabel.setText(text)
        self.ui.detailsText.setVisible(False)

    def _showAvailability(self):
        if self.ui is None:
            return
        parameters = self.scriptedEffect.parameterSetNode()
        ct = parameters.GetSourceVolumeNode() if parameters is not None else None
        busy = self.logic is not None and self.logic.busy
        self.ui.ctLabel.setText(ct.GetName() if ct is not None else "Choose the CT as the editor's source volume.")
        self.ui.mrRegisteredCheckBox.setEnabled(self.ui.mrSelector.currentNode() is not None)
        self.ui.organsList.setVisible(not self.ui.allOrgansCheckBox.checked)
        self.ui.applyButton.setEnabled(ct is not None and not busy and not setting_up.missing())


def _data(comboBox):
    return comboBox.itemData(comboBox.currentIndex)
