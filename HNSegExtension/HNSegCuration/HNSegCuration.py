"""The curator's module: a folder of cases in, a data set to train on out, every case to look at."""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import qt
import slicer
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

_FOLDER = Path(__file__).resolve().parent
for _place in (
    _FOLDER,
    _FOLDER.parent,
):  # installed, the packages lie beside this file; in a source tree, one folder up
    if (_place / "HNSegLib").is_dir() and str(_place) not in sys.path:
        sys.path.append(str(_place))

_FAILED = "color: #e53935; font-weight: bold;"
_COLUMNS = ("name", "verdict", "registration", "organs")
_WORDS = {"accept": "used whatever the check says", "reject": "left out", "forget": "used if the check believes it"}


class HNSegCuration(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "Head-neck curation (HNSeg)"
        self.parent.categories = ["Segmentation", "Radiotherapy"]
        self.parent.dependencies = ["Segmentations"]
        self.parent.contributors = ["HNSeg contributors"]
        self.parent.helpText = (
            "Turns a folder of CT, MR and masks (HaN-Seg, PDDCA, HECKTOR, OpenKBP, DICOM) into a checked data set: MR "
            "registered to CT, masks stacked, overlaps and sides checked, splits, exports and a report."
        )
        self.parent.acknowledgementText = "Research use only, not a medical device."


class HNSegCurationLogic(ScriptedLoadableModuleLogic):
    """The module without its widgets: one job, the person's verdicts, the cases."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        from HNSegLib.curating import CaseTable, CurateJob, Decisions, curation_desk

        self.desk = curation_desk()
        self.job = CurateJob(self.desk)
        self.cases = CaseTable()
        self.decisions = Decisions()

    def request(self, source, target, **choices):
        """A request from what the widgets hold; ``ConfigError`` where that cannot be."""
        from hnseg.curation.bias import N4Settings
        from hnseg.curation.settings import CurationSettings
        from hnseg.curation.shape import ShapeSettings
        from hnseg.jobs.curate import CurateRequest

        settings = CurationSettings(
            partial=choices["partial"],
            registration=choices["registration"],
            n4=N4Settings() if choices["bias"] else None,
            mr_scale=choices["mr_scale"],
            shape=ShapeSettings(choices["shape"]),
        )
        decided = sorted(self.decisions.of(source, target).items())
        said = {word: [case for case, its in decided if its == word] for word in _WORDS}
        return CurateRequest(
            source, target, settings, choices["workers"], accept_mr=tuple(said["accept"]),
            reject_mr=tuple(said["reject"]), forget_mr=tuple(said["forget"]),
        )  # fmt: skip

    def settle(self):
        """The data set keeps what was decided, once it is whole."""
        if self.job.outcome is not None:
            self.decisions.clear()

    def close(self):
        """End the worker."""
        self.job.cancel()
        self.desk.close()


class HNSegCurationWidget(ScriptedLoadableModuleWidget):
    """Folders and choices, progress, the table of cases."""

    logic = ui = timer = None
    absent = rows = ()
    takenOver = ""

    def setup(self):
        """Called by Slicer once, when the module is first shown."""
        ScriptedLoadableModuleWidget.setup(self)
        from hnseg.version import RESEARCH_USE

        widget = slicer.util.loadUI(self.resourcePath("UI/HNSegCuration.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        self.logic = HNSegCurationLogic()
        self.ui.researchUseLabel.setText(f"<small>{RESEARCH_USE}</small>")
        self.ui.progressBar.setVisible(False)
        self.timer = qt.QTimer(widget)
        self.timer.setInterval(200)
        self._connections = []
        self._connectAll()
        self.enter()

    def cleanup(self):
        """The application closes, or the module is reloaded."""
        if self.ui is None:
            return
        self.timer.stop()
        for sender, signal, slot in self._connections:
            sender.disconnect(signal, slot)
        self.logic.close()
        self._connections, self.ui = [], None

    def enter(self):
        """The user came to this module."""
        self.showSetUp()
        self.showCases()

    def _connectAll(self):
        ui = self.ui
        self._connect(self.timer, "timeout()", self.onTimer)
        self._connect(ui.installButton, "clicked()", self.onInstall)
        self._connect(ui.inputButton, "clicked()", self.onChooseInput)
        self._connect(ui.outputButton, "clicked()", self.onChooseOutput)
        self._connect(ui.inputEdit, "textChanged(QString)", self.showAvailability)
        self._connect(ui.outputEdit, "textChanged(QString)", self.onOutputChanged)
        self._connect(ui.outputEdit, "editingFinished()", self.onOutputChosen)
        self._connect(ui.curateButton, "clicked()", self.onCurate)
        self._connect(ui.cancelButton, "clicked()", self.onCancel)
        self._connect(ui.casesTable, "itemSelectionChanged()", self.showAvailability)
        self._connect(ui.openButton, "clicked()", self.onOpen)
        self._connect(ui.acceptButton, "clicked()", self.onAccept)
        self._connect(ui.rejectButton, "clicked()", self.onReject)
        self._connect(ui.forgetButton, "clicked()", self.onForget)

    def _connect(self, sender, signal, slot):
        sender.connect(signal, slot)
        self._connections.append((sender, signal, slot))

    # Slots

    def onInstall(self):
        """Install what is missing, as the user asks."""
        from HNSegLib import setting_up

        qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            setting_up.install(
                _missing(),
                torch_installer=setting_up.torch_installer_of_slicer,
                pip_install=setting_up.pip_install_of_slicer,
            )
            self.showSetUp()
        except setting_up.SetUpFailed as error:
            self.ui.setUpLabel.setText(str(error))
        finally:
            qt.QApplication.restoreOverrideCursor()

    def onChooseInput(self):
        """Ask for the folder with the cases."""
        self._choose(self.ui.inputEdit, "Folder with the cases")

    def onChooseOutput(self):
        """Ask where the data set goes."""
        self._choose(self.ui.outputEdit, "Folder for the data set")
        self.onOutputChosen()

    def onOutputChosen(self):
        """Go on with a data set as it was begun; once, as the user may choose otherwise afterwards."""
        from HNSegLib.curating import choices_of

        if self.ui.outputEdit.text not in ("", self.takenOver):
            self.takenOver = self.ui.outputEdit.text
            self._takeOver(choices_of(Path(self.takenOver)))

    def onOutputChanged(self, *_):
        """Another data set: nothing of it is chosen."""
        self.ui.casesTable.clearSelection()
        self.showState()
        self.showCases()

    def onCurate(self):
        """Hand the folder to the worker; the timer shows how it goes."""
        from hnseg.errors import HNSegError

        try:
            self.logic.job.start(self._request())
        except HNSegError as error:
            self._say(str(error), failed=True)
        else:
            self.timer.start()
            self.showState()

    def onCancel(self):
        """Stop the worker; what is finished stays."""
        self.logic.job.cancel()
        self.onTimer()

    def onTimer(self):
        """Take in progress, and cases that have come."""
        if not self.logic.job.poll().busy:
            self.timer.stop()
            self.logic.settle()
        self.showState()
        self.showCases()

    def onOpen(self):
        """Show the chosen case in the scene, its MR over its CT."""
        from hnseg.errors import HNSegError
        from HNSegLib.curating import open_case

        qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            open_case(slicer.mrmlScene, Path(self.ui.outputEdit.text) / "cases" / self.chosen()[0])
            slicer.util.setSliceViewerLayers(fit=True)
        except HNSegError as error:
            self._say(str(error), failed=True)
        finally:
            qt.QApplication.restoreOverrideCursor()

    def onAccept(self):
        """The chosen cases' MRs are right, whatever the check says."""
        self._decide("accept")

    def onReject(self):
        """The chosen cases' MRs are to be left out."""
        self._decide("reject")

    def onForget(self):
        """The chosen cases' MRs are left to the check again."""
        self._decide("forget")

    # Views

    def showSetUp(self):
        """What is missing, if anything."""
        self.absent = absent = _missing()
        self.ui.setUpBox.setVisible(bool(absent))
        self.ui.setUpLabel.setText(f"Curation still needs: {', '.join(map(str, absent))}." if absent else "")
        self.showAvailability()

    def showAvailability(self, *_):
        """What can be clicked now."""
        ui, busy, chosen = self.ui, self.logic.job.state.busy, self.chosen()
        ui.curateButton.setEnabled(bool(ui.inputEdit.text and ui.outputEdit.text) and not busy and not self.absent)
        ui.cancelButton.setEnabled(busy)
        ui.openButton.setEnabled(len(chosen) == 1)
        for button in (ui.acceptButton, ui.rejectButton, ui.forgetButton):
            button.setEnabled(bool(chosen) and not busy)

    def showState(self):
        """Progress, or how it ended."""
        state = self.logic.job.state
        self.ui.progressBar.setVisible(state.busy)
        self.ui.progressBar.setValue(round(1000 * state.fraction))
        self._say(state.text, failed=state.failed)
        self.showAvailability()

    def showCases(self, *_):
        """The table as the output folder is now."""
        from hnseg.errors import HNSegError

        try:
            rows = self._rows()
        except HNSegError as error:
            rows = ()
            self._say(str(error), failed=True)
        if rows != self.rows:
            self.rows = rows
            self._fillTable(rows)
        self.showAvailability()

    def chosen(self):
        """Names of the chosen cases that are finished."""
        table = self.ui.casesTable
        return [name for row, name in self._selected() if table.item(row, 1).text() != "failed"]

    def _selected(self):
        table = self.ui.casesTable
        items = [(row, table.item(row, 0)) for row in range(table.rowCount)]
        return [(row, item.text()) for row, item in items if item.isSelected()]

    def _takeOver(self, choices):
        ui = self.ui
        for box, name in (
            (ui.partialComboBox, "partial"), (ui.registrationComboBox, "registration"),
            (ui.mrScaleComboBox, "mr_scale"), (ui.shapeComboBox, "shape"),
        ):  # fmt: skip
            box.setCurrentText(choices.get(name, box.currentText))
        ui.biasCheckBox.setChecked(choices.get("bias", ui.biasCheckBox.checked))

    def _fillTable(self, rows):
        table, selected = self.ui.casesTable, {name for _, name in self._selected()}
        blocked = table.blockSignals(True)
        table.clearSelection()
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, name in enumerate(_COLUMNS):
                item = qt.QTableWidgetItem(getattr(row, name))
                item.setToolTip("\n".join(row.notes))
                table.setItem(number, column, item)
                item.setSelected(row.name in selected)
        table.blockSignals(blocked)

    def _choose(self, edit, caption):
        folder = qt.QFileDialog.getExistingDirectory(None, caption, edit.text)
        if folder:
            edit.setText(folder)

    def _decide(self, word):
        self.logic.decisions.say(self.chosen(), word, source=self.ui.inputEdit.text, target=self.ui.outputEdit.text)
        self._say(f"The MR of {', '.join(self.chosen())} will be {_WORDS[word]}; click Curate to do these cases again.")

    def _say(self, text, failed=False):
        self.ui.statusLabel.setText(text)
        self.ui.statusLabel.setStyleSheet(_FAILED if failed else "")

    def _request(self):
        ui = self.ui
        return self.logic.request(
            ui.inputEdit.text, ui.outputEdit.text, partial=ui.partialComboBox.currentText,
            registration=ui.registrationComboBox.currentText, bias=ui.biasCheckBox.checked,
            mr_scale=ui.mrScaleComboBox.currentText, shape=ui.shapeComboBox.currentText,
            workers=ui.workersSpinBox.value,
        )  # fmt: skip

    def _rows(self):
        out = self.ui.outputEdit.text
        return () if self.absent or not out else self.logic.cases.rows(Path(out))


def _missing():
    from HNSegLib import setting_up

    return setting_up.missing(setting_up.requirements(setting_up.CURATION))


class HNSegCurationTest(ScriptedLoadableModuleTest):
    """The module in the running application: a phantom cohort from folder to scene."""

    def runTest(self):
        """Every test. One that is skipped is reported as skipped, not as passed."""
        from HNSegLib.self_testing import run_all

        run_all(type(self))

    def setUp(self):
        """An empty scene, and the module shown."""
        slicer.mrmlScene.Clear()
        self.widget = slicer.util.getModuleWidget("HNSegCuration")

    def test_ModuleOpens(self):
        """Also in a Slicer that lacks everything: it then says what is missing."""
        self.widget.enter()
        self.assertEqual(bool(self.widget.ui.setUpLabel.text), bool(_missing()))

    def test_CohortBecomesADataSet(self):
        """Two coarse phantoms through worker, table and scene."""
        if _missing():
            self.skipTest(f"SKIPPED, nothing was curated: this Slicer lacks {', '.join(map(str, _missing()))}")
        from HNSegLib.self_testing import SEGMENTING_S, wait

        with tempfile.TemporaryDirectory() as folder:
            ui = self.widget.ui
            ui.registrationComboBox.setCurrentText("rigid")
            ui.inputEdit.setText(str(self._cohort(Path(folder, "in"))))
            ui.outputEdit.setText(str(Path(folder, "out")))
            ui.curateButton.click()
            wait(lambda: not self.widget.logic.job.state.busy, seconds=SEGMENTING_S, otherwise="the worker did not end")
            self.widget.onTimer()
            self.assertEqual(ui.casesTable.rowCount, 2, ui.statusLabel.text)
            ui.casesTable.selectRow(0)
            ui.openButton.click()
            node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
            self.assertEqual(node.GetSegmentation().GetNumberOfSegments(), 30)
            self._assertInView(slicer.mrmlScene.GetFirstNodeByName("case_01 CT"))
            self.widget.onReject()
            ui.inputEdit.setText(str(Path(folder, "other")))
            self.assertEqual(self.widget._request().cases_named, (), "decided of another folder's cases")
            ui.registrationComboBox.setCurrentText("none")
            self.widget.onOutputChosen()
            self.assertEqual(ui.registrationComboBox.currentText, "rigid", "as the data set was begun")
            ui.outputEdit.setText("")

    def _assertInView(self, volume):
        bounds = [0.0] * 6
        volume.GetRASBounds(bounds)
        for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            if view.GetLayoutName() == "Red":
                centre = [view.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)]
                inside = all(bounds[2 * axis] < centre[axis] < bounds[2 * axis + 1] for axis in range(3))
                self.assertTrue(inside, f"Red shows {centre}, the CT has {bounds}")

    def _cohort(self, folder):
        """As far from the origin as real scans lie."""
        import numpy as np

        from hnseg.image.files import write_volume
        from hnseg.phantom import draw_patient, render

        for seed, name in enumerate(("case_01", "case_02")):
            patient = draw_patient(np.random.default_rng(seed))
            case = render(patient, ct_spacing_mm=(4, 4, 5), mr_spacing_mm=(4, 4, 6))
            place = folder / name
            place.mkdir(parents=True)
            images = {"IMG_CT.nrrd": case.ct, "IMG_MR_T1.nrrd": case.mr}
            images.update({f"OAR_{organ}.seg.nrrd": mask for organ, mask in case.masks.items()})
            for file, image in images.items():
                origin = tuple(np.add(image.grid.origin_lps, (0, 0, 1500)))
                write_volume(replace(image, grid=replace(image.grid, origin_lps=origin)), place / f"{name}_{file}")
        return folder
