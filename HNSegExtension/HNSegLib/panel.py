"""The widgets from MR to Apply, shared by the Segment Editor effect and the planner's module.

Nothing third-party is imported at file scope, so that whoever shows the panel is always listed and can say what is
missing. Slots are short: the work is ``effect_logic``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import qt
import slicer

from hnseg.models.places import bundle_folders
from hnseg.organs import BY_NAME, ORGANS
from hnseg.version import RESEARCH_USE
from HNSegLib import setting_up
from HNSegLib.choices import DEVICES, MR_REFERENCE, Choices
from HNSegLib.merging import MergePolicy

_UI = Path(__file__).with_name("SegmentationPanel.ui")
_CHOOSE_CT = "Choose the CT first."
_APPLY = "Segment the organs in the background; Slicer stays usable."
_FAILED = "color: #e53935; font-weight: bold;"  # readable on a light and on a dark background
_POLICIES = {
    MergePolicy.REPLACE: "Replace the organs' segments",
    MergePolicy.ONLY_EMPTY: "Fill empty segments only",
}


class Host(Protocol):
    """Who shows the panel: where choices are kept, what is segmented, and how a change is made undoable."""

    def parameter(self, name: str) -> str:
        """A saved choice."""

    def setParameter(self, name: str, value: str) -> None:
        """Save a choice."""

    def nodeReference(self, name: str) -> Any:
        """A saved node; None when there is none."""

    def setNodeReference(self, name: str, node: Any) -> None:
        """Save a node."""

    def ct(self) -> Any:
        """The volume to segment; None while none is chosen."""

    def segmentation(self) -> Any:
        """Where the result goes; None while none is chosen."""

    def shown(self) -> bool:
        """Whether the user sees the panel: else its widgets say nothing and results wait."""

    def prepare(self) -> None:
        """Called when the user clicks Apply, before anything is read."""

    def saveStateForUndo(self) -> None:
        """Called once, right before a result is written."""


class SegmentationPanel:
    """``widget`` is to be put into a layout; call ``refresh`` when it is shown and ``cleanup`` before it goes."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.logic: Any = None
        self.onFinished: Callable[[], None] = lambda: None
        self.onChoice: Callable[[], None] = lambda: None
        self._connections: list[tuple[Any, str, Any]] = []
        self.widget = slicer.util.loadUI(str(_UI))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.ui.researchUseLabel.setText(f"<small>{RESEARCH_USE}</small>")
        self.ui.mrSelector.setMRMLScene(slicer.mrmlScene)
        self._absent = setting_up.missing()
        self._fill()
        self._connectAll()
        self.timer = qt.QTimer(self.widget)  # a timer without a parent may outlive PythonQt when Slicer ends
        self.timer.setInterval(100)
        self.connect(self.timer, "timeout()", self.onTimer)
        self._showIdle()

    def cleanup(self) -> None:
        """Let go of signals, timer and job before Slicer deletes the widgets."""
        if self.ui is None:
            return
        self.timer.stop()
        if self.logic is not None:
            self.logic.cancel()
        for sender, signal, slot in self._connections:
            sender.disconnect(signal, slot)
        self._connections, self.logic, self.ui = [], None, None

    def connect(self, sender: Any, signal: str, slot: Callable[..., None]) -> None:
        """Connect until ``cleanup``."""
        sender.connect(signal, slot)
        self._connections.append((sender, signal, slot))

    @property
    def busy(self) -> bool:
        """Whether a job runs or its result waits to be taken over."""
        return self.logic is not None and self.logic.busy

    # Scene ↔ widgets

    def refresh(self) -> None:
        """The user came to the panel: look again for models and for what is missing."""
        self._listModels()
        self._showSetUp()
        self.updateFromScene()

    def updateFromScene(self) -> None:
        """Show what the scene holds, without writing it back."""
        if self.ui is None:
            return
        ui, choices = self.ui, Choices.from_parameters(self.host.parameter)
        widgets = (ui.mrSelector, ui.mrRegisteredCheckBox, ui.modelComboBox, ui.allOrgansCheckBox, ui.organsList,
                   ui.policyComboBox, ui.protectCheckBox, ui.deviceComboBox)  # fmt: skip
        blocked = [(widget, widget.blockSignals(True)) for widget in widgets]
        ui.mrSelector.setCurrentNode(self.host.nodeReference(MR_REFERENCE))
        ui.mrRegisteredCheckBox.setChecked(choices.mr_registered)
        ui.modelComboBox.setCurrentIndex(max(ui.modelComboBox.findData(choices.model), 0))
        ui.allOrgansCheckBox.setChecked(not choices.organs)
        for name in BY_NAME:
            chosen = not choices.organs or name in choices.organs
            self._row(name).setCheckState(qt.Qt.Checked if chosen else qt.Qt.Unchecked)
        ui.policyComboBox.setCurrentIndex(ui.policyComboBox.findData(choices.policy.value))
        ui.protectCheckBox.setChecked(choices.protect)
        ui.deviceComboBox.setCurrentIndex(ui.deviceComboBox.findData(choices.device))
        for widget, before in blocked:
            widget.blockSignals(before)
        self.showAvailability()

    def updateToScene(self, *_: Any) -> None:
        """Keep what the widgets say; while the panel is not shown they say nothing."""
        if self.ui is None or not self.host.shown():
            return
        # Each setting may call updateFromScene at once, so read every widget before the first.
        mr, chosen = self.ui.mrSelector.currentNode(), self._chosen()
        self.host.setNodeReference(MR_REFERENCE, mr)
        for name, value in chosen.to_parameters().items():
            self.host.setParameter(name, value)
        self.showAvailability()
        self.onChoice()

    def hideCt(self) -> None:
        """For a host that shows the CT itself."""
        self.ui.ctCaption.setVisible(False)
        self.ui.ctLabel.setVisible(False)

    def showAvailability(self) -> None:
        """What can be clicked now."""
        if self.ui is None:
            return
        ct = self.host.ct()
        self.ui.ctLabel.setText(ct.GetName() if ct is not None else _CHOOSE_CT)
        self.ui.mrRegisteredCheckBox.setEnabled(self.ui.mrSelector.currentNode() is not None)
        self.ui.organsList.setVisible(not self.ui.allOrgansCheckBox.checked)
        obstacle = self._obstacle()
        self.ui.applyButton.setEnabled(not obstacle and not self.busy)
        self.ui.applyButton.setToolTip(obstacle or _APPLY)

    # Slots

    def onInstall(self) -> None:
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
        self.showAvailability()

    def onApply(self) -> None:
        """Hand the images to the worker; the timer shows how it goes."""
        self.host.prepare()
        mr, choices = self.host.nodeReference(MR_REFERENCE), Choices.from_parameters(self.host.parameter)
        self._logicNow().apply(self.host.ct(), mr, self.host.segmentation(), choices)
        self.timer.start()

    def onCancel(self) -> None:
        """Stop the job."""
        self.logic.cancel()

    def onTimer(self) -> None:
        """Take in progress, or the result."""
        self.logic.tick(self.host.segmentation() if self.host.shown() else None)
        if not self.logic.busy:
            self.timer.stop()
            self.onFinished()

    def show(self, view: Any) -> None:
        """Put a view of the logic into the widgets."""
        ui = self.ui
        if not self.host.shown() and view.text != ui.statusLabel.text:
            slicer.util.showStatusMessage(f"HNSeg: {view.text}", 5000)  # the user is elsewhere
        ui.progressBar.setVisible(view.busy)
        ui.progressBar.setValue(round(1000 * view.fraction))
        ui.cancelButton.setEnabled(view.busy)
        ui.statusLabel.setText(view.text)
        ui.statusLabel.setStyleSheet(_FAILED if view.failed else "")
        ui.detailsText.setPlainText("\n".join(view.details))
        ui.detailsBox.setVisible(bool(view.details))
        self.showAvailability()

    # Parts

    def _logicNow(self) -> Any:
        if self.logic is None:
            from HNSegLib.desk import shared_desk
            from HNSegLib.effect_logic import EffectLogic
            from HNSegLib.segmenting import SegmentJob

            self.logic = EffectLogic(
                SegmentJob(shared_desk()), show=self.show, save_state_for_undo=self.host.saveStateForUndo
            )
        return self.logic

    def _fill(self) -> None:
        for policy, text in _POLICIES.items():
            self.ui.policyComboBox.addItem(text, policy.value)
        for device in DEVICES:
            self.ui.deviceComboBox.addItem(device, device)
        for organ in ORGANS:
            self.ui.organsList.addItem(f"{organ.name}  ({organ.english})")
            self._row(organ.name).setCheckState(qt.Qt.Checked)

    def _row(self, name: str) -> Any:
        """The list's row of that organ, borrowed from Qt: Python must not own it."""
        return self.ui.organsList.item(BY_NAME[name].label - 1)

    def _connectAll(self) -> None:
        ui = self.ui
        self.connect(ui.installButton, "clicked()", self.onInstall)
        self.connect(ui.applyButton, "clicked()", self.onApply)
        self.connect(ui.cancelButton, "clicked()", self.onCancel)
        self.connect(ui.mrSelector, "currentNodeChanged(vtkMRMLNode*)", self.updateToScene)
        self.connect(ui.organsList, "itemChanged(QListWidgetItem*)", self.updateToScene)
        for box in (ui.mrRegisteredCheckBox, ui.allOrgansCheckBox, ui.protectCheckBox):
            self.connect(box, "toggled(bool)", self.updateToScene)
        for box in (ui.modelComboBox, ui.policyComboBox, ui.deviceComboBox):
            self.connect(box, "currentIndexChanged(int)", self.updateToScene)

    def _chosen(self) -> Choices:
        ui = self.ui
        checked = tuple(name for name in BY_NAME if self._row(name).checkState() == qt.Qt.Checked)
        return Choices(
            model=_data(ui.modelComboBox) or "",
            organs=() if ui.allOrgansCheckBox.checked or len(checked) == len(ORGANS) else checked,
            policy=MergePolicy(_data(ui.policyComboBox)),
            protect=ui.protectCheckBox.checked,
            device=_data(ui.deviceComboBox),
            mr_registered=ui.mrRegisteredCheckBox.checked,
        )

    def _listModels(self) -> None:
        blocked = self.ui.modelComboBox.blockSignals(True)
        self.ui.modelComboBox.clear()
        self.ui.modelComboBox.addItem("Default", "")
        for name in bundle_folders():
            self.ui.modelComboBox.addItem(name, name)
        self.ui.modelComboBox.blockSignals(blocked)

    def _showSetUp(self) -> None:
        self._absent = absent = setting_up.missing()
        self.ui.setUpBox.setVisible(bool(absent))
        self.ui.setUpLabel.setText(f"HNSeg still needs: {', '.join(map(str, absent))}." if absent else "")

    def _obstacle(self) -> str:
        """Why Apply is off, and what to do; empty when nothing is in the way."""
        if self._absent:
            return "Packages are missing; install them first."
        return "" if self.host.ct() is not None else _CHOOSE_CT

    def _showIdle(self) -> None:
        self.ui.progressBar.setVisible(False)
        self.ui.cancelButton.setEnabled(False)
        self.ui.detailsBox.setVisible(False)


def _data(comboBox: Any) -> Any:
    return comboBox.itemData(comboBox.currentIndex)
