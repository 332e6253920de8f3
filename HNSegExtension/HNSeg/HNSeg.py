"""The planner's module: segment, review, export."""

import sys
import tempfile
import time
from pathlib import Path

import qt
import slicer
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

_FOLDER = Path(__file__).resolve().parent
for _place in (
    _FOLDER,
    _FOLDER.parent,
):  # installed, the packages lie beside this file; in a source tree, one folder up
    if (_place / "HNSegLib").is_dir() and str(_place) not in sys.path:
        sys.path.append(str(_place))

CT_REFERENCE, SEGMENTATION_REFERENCE = "CT", "Segmentation"


class HNSeg(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "Head-neck organs (HNSeg)"
        self.parent.categories = ["Segmentation", "Radiotherapy"]
        self.parent.dependencies = ["Segmentations"]
        self.parent.contributors = ["HNSeg contributors"]
        self.parent.helpText = (
            "Segments 30 organs at risk of the head and neck from a planning CT and, optionally, a T1 MR; shows volume "
            "and confidence for review; saves .seg.nrrd and RTSTRUCT on the original CT series."
        )
        self.parent.acknowledgementText = "Research use only, not a medical device."


class HNSegLogic(ScriptedLoadableModuleLogic):
    """The module without its widgets: which nodes, one undo a result, review and export."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.history = slicer.vtkSegmentationHistory()

    def newSegmentation(self, ct):
        """A segmentation for the CT, on its geometry."""
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{ct.GetName()} organs")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(ct)
        node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), ct.GetID())
        return node

    def saveState(self, segmentation):
        """Remember the segments; states of another segmentation are forgotten."""
        self.history.SetSegmentation(segmentation.GetSegmentation())
        self.history.SaveState()

    def canUndo(self, segmentation):
        """Whether the last result in this segmentation can be taken back."""
        return (
            segmentation is not None
            and self.history.GetSegmentation() is segmentation.GetSegmentation()
            and self.history.IsRestorePreviousStateAvailable()
        )

    def undo(self):
        """Bring back the segments as they were before the last result."""
        self.history.RestorePreviousState()

    def forget(self):
        """Let go of the scene's data."""
        self.history.SetSegmentation(None)

    def jumpTo(self, segmentation, segmentId):
        """All slice views to the middle of a segment; nothing for an empty one."""
        from HNSegLib.reviewing import centre_ras

        centre = centre_ras(segmentation, segmentId)
        if centre is not None:
            slices = slicer.vtkMRMLSliceNode
            slices.JumpAllSlices(slicer.mrmlScene, *centre, slices.CenteredJumpSlice)


class HNSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Three steps, one below the other."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self.panel = self.host = self.ui = None
        self._segmentIds = []

    def setup(self):
        """Called by Slicer once, when the module is first shown."""
        ScriptedLoadableModuleWidget.setup(self)
        from HNSegLib.panel import SegmentationPanel

        self.logic = HNSegLogic()
        widget = slicer.util.loadUI(self.resourcePath("UI/HNSeg.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        for selector in (self.ui.ctSelector, self.ui.segmentationSelector):
            selector.setMRMLScene(slicer.mrmlScene)
        self.host = _ModuleHost(self.logic)
        self.panel = SegmentationPanel(self.host)
        self.panel.onFinished = self.updateReview
        self.ui.panelFrame.layout().addWidget(self.panel.widget)
        self._connectAll()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.updateReview()

    def _connectAll(self):
        ui, connect = self.ui, self.panel.connect
        connect(ui.ctSelector, "currentNodeChanged(vtkMRMLNode*)", self.onNodesChosen)
        connect(ui.segmentationSelector, "currentNodeChanged(vtkMRMLNode*)", self.onNodesChosen)
        connect(ui.undoButton, "clicked()", self.onUndo)
        connect(ui.reviewTable, "itemSelectionChanged()", self.onRowChosen)
        connect(ui.completeButton, "clicked()", self.onComplete)
        connect(ui.flagButton, "clicked()", self.onFlag)
        connect(ui.resetButton, "clicked()", self.onReset)
        connect(ui.editButton, "clicked()", self.onEdit)
        connect(ui.segNrrdButton, "clicked()", self.onSaveSegNrrd)
        connect(ui.rtstructButton, "clicked()", self.onSaveRtstruct)

    def cleanup(self):
        """The application closes, or the module is reloaded."""
        self.removeObservers()
        if self.panel is not None:
            self.panel.cleanup()
            self.logic.forget()
        self.panel = None

    def enter(self):
        """The user came to this module."""
        self.host.enter(self.logic.getParameterNode())
        self._showNodes()
        self.panel.refresh()
        self.updateReview()

    def exit(self):
        """The user left; a result that comes meanwhile waits."""
        self.host.leave()

    def onSceneStartClose(self, caller=None, event=None):
        """Stop what works on nodes that are about to go."""
        if self.panel.busy:
            self.panel.onCancel()
        self.host.leave()
        self.logic.forget()

    def onSceneEndClose(self, caller=None, event=None):
        """Begin anew, if the user looks at this module."""
        if self.parent.isEntered:
            self.enter()

    # 1. Segment

    def onNodesChosen(self, node=None):
        """Keep the chosen nodes in the scene."""
        if self.host.shown():
            ct, segmentation = self.ui.ctSelector.currentNode(), self.ui.segmentationSelector.currentNode()
            self.host.choose(ct, segmentation)
            self.panel.showAvailability()
            self.updateReview()

    def onUndo(self):
        """Take the last result back."""
        self.logic.undo()
        self.updateReview()

    def _showNodes(self):
        for selector, node in (
            (self.ui.ctSelector, self.host.ct()),
            (self.ui.segmentationSelector, self.host.segmentation()),
        ):
            blocked = selector.blockSignals(True)
            selector.setCurrentNode(node)
            selector.blockSignals(blocked)

    # 2. Review

    def updateReview(self):
        """Fill the table from the scene."""
        if self.panel is None or self.ui is None:
            return
        self._showNodes()
        segmentation = self.host.segmentation()
        rows = self._rows(segmentation)
        self._segmentIds = [row.segment_id for row in rows]
        table = self.ui.reviewTable
        blocked = table.blockSignals(True)
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, text in enumerate(_cells(row)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(row.notes or (row.organ.english if row.organ else ""))
                table.setItem(number, column, item)
        table.blockSignals(blocked)
        self.ui.reviewLabel.setText(_progress(rows))
        self.ui.undoButton.setEnabled(self.logic.canUndo(segmentation))
        for button in (self.ui.segNrrdButton, self.ui.rtstructButton, self.ui.editButton):
            button.setEnabled(bool(rows))

    def onRowChosen(self):
        """Show the organ in the slice views."""
        chosen = self._chosenIds()
        if len(chosen) == 1:
            self.logic.jumpTo(self.host.segmentation(), chosen[0])

    def onComplete(self):
        """The chosen organs are fine."""
        self._mark("completed")

    def onFlag(self):
        """The chosen organs need another look."""
        self._mark("flagged")

    def onReset(self):
        """The chosen organs are as good as new."""
        self._mark("notstarted")

    def onEdit(self):
        """Open the Segment Editor on this CT and segmentation."""
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.modules.SegmentEditorWidget.editor
        editor.setSegmentationNode(self.host.segmentation())
        editor.setSourceVolumeNode(self.host.ct())

    def _mark(self, status):
        from HNSegLib.merging import Status
        from HNSegLib.reviewing import mark

        mark(self.host.segmentation(), self._chosenIds(), Status(status))
        self.updateReview()

    def _chosenIds(self):
        rows = sorted({index.row() for index in self.ui.reviewTable.selectionModel().selectedRows()})
        return [self._segmentIds[row] for row in rows]

    def _rows(self, segmentation):
        if segmentation is None or segmentation.GetSegmentation().GetNumberOfSegments() == 0:
            return ()
        from HNSegLib.reviewing import review_rows

        return review_rows(segmentation)

    # 3. Export

    def onSaveSegNrrd(self):
        """Ask where, write, tell."""
        path = qt.QFileDialog.getSaveFileName(None, "Save segmentation", "organs.seg.nrrd", "Segmentation (*.seg.nrrd)")
        if path:
            self.saveSegNrrd(Path(path))

    def onSaveRtstruct(self):
        """Ask for the series, unless Slicer's DICOM database knows it, and where; write, tell."""
        series = self._seriesFolder() or qt.QFileDialog.getExistingDirectory(None, "Folder of the original CT series")
        path = series and qt.QFileDialog.getSaveFileName(None, "Save RTSTRUCT", "RTSTRUCT.dcm", "DICOM (*.dcm)")
        if path:
            self.saveRtstruct(Path(series), Path(path))

    def saveSegNrrd(self, path):
        """Write, and say what happened."""
        from HNSegLib.exporting import write_seg_nrrd

        self._export(lambda: write_seg_nrrd(self.host.segmentation(), path), path)

    def saveRtstruct(self, series, path):
        """Write, and say what happened."""
        from HNSegLib.exporting import write_rtstruct

        self._export(lambda: write_rtstruct(self.host.segmentation(), series, path), path)

    def _export(self, write, path):
        from hnseg.errors import HNSegError

        qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            written = write()
        except HNSegError as error:
            self.ui.exportLabel.setText(str(error))
        else:
            warnings = getattr(written, "warnings", ())
            self.ui.exportLabel.setText("\n".join((f"Saved {path}. {self.ui.reviewLabel.text}", *warnings)))
        finally:
            qt.QApplication.restoreOverrideCursor()

    def _seriesFolder(self):
        from HNSegLib.exporting import series_folder_of

        folder = series_folder_of(self.host.ct(), slicer.dicomDatabase) if self.host.ct() is not None else None
        return str(folder) if folder is not None else ""


class _ModuleHost:
    """The module's parameter node as the panel sees it; None while the user is elsewhere or the scene closes."""

    def __init__(self, logic):
        self._logic = logic
        self._node = None

    def enter(self, node):
        """The user looks at the module; a fresh node gets the defaults."""
        from HNSegLib.choices import Choices

        self._node = node
        for name, value in Choices().to_parameters().items():
            if not node.GetParameter(name):
                node.SetParameter(name, value)

    def leave(self):
        """Keep nothing of the scene."""
        self._node = None

    def choose(self, ct, segmentation):
        """Keep the CT and where the organs go."""
        self.setNodeReference(CT_REFERENCE, ct)
        self.setNodeReference(SEGMENTATION_REFERENCE, segmentation)

    def parameter(self, name):
        """A saved choice."""
        return self._node.GetParameter(name) if self._node is not None else ""

    def setParameter(self, name, value):
        """Save a choice."""
        self._node.SetParameter(name, value)

    def nodeReference(self, name):
        """A saved node."""
        return self._node.GetNodeReference(name) if self._node is not None else None

    def setNodeReference(self, name, node):
        """Save a node."""
        self._node.SetNodeReferenceID(name, node.GetID() if node is not None else None)

    def ct(self):
        """The planning CT."""
        return self.nodeReference(CT_REFERENCE)

    def segmentation(self):
        """Where the organs go."""
        return self.nodeReference(SEGMENTATION_REFERENCE)

    def shown(self):
        """Whether the user looks at the module."""
        return self._node is not None

    def prepare(self):
        """Make a segmentation if none is chosen."""
        if self.ct() is not None and self.segmentation() is None:
            self.setNodeReference(SEGMENTATION_REFERENCE, self._logic.newSegmentation(self.ct()))

    def saveStateForUndo(self):
        """One state a result."""
        self._logic.saveState(self.segmentation())


def _cells(row):
    from HNSegLib.reviewing import STATUS_WORDS

    low, high = row.organ.range_ml if row.organ else (0, 0)
    return (
        row.name,
        f"{row.volume_ml:.2f}" + ("" if row.is_usual else " !"),
        f"{low:g} – {high:g}" if row.organ else "",
        "" if row.confidence is None else f"{row.confidence:.2f}",
        STATUS_WORDS[row.status],
    )


def _progress(rows):
    if not rows:
        return "There is nothing to review yet."
    from HNSegLib.reviewing import progress

    return progress(rows)


class HNSegTest(ScriptedLoadableModuleTest):
    """The module in the running application: a phantom patient from Apply to files."""

    PATIENCE_S = 900

    def setUp(self):
        """An empty scene, and the module shown."""
        slicer.mrmlScene.Clear()
        slicer.util.selectModule("HNSeg")

    def runTest(self):
        """Every test. One that is skipped is reported as skipped, not as passed."""
        for test in (self.test_ModuleOpens, self.test_SegmentReviewExport):
            self.setUp()
            test()

    def test_ModuleOpens(self):
        """Also in a Slicer that lacks everything: it then says what is missing."""
        from HNSegLib import setting_up

        widget = slicer.modules.HNSegWidget
        self.assertIn("not a medical device", widget.panel.ui.researchUseLabel.text)
        self.assertTrue(all(one.name in widget.panel.ui.setUpLabel.text for one in setting_up.missing()))
        self.assertFalse(widget.panel.ui.applyButton.enabled)
        self.assertEqual(widget.ui.reviewLabel.text, "There is nothing to review yet.")

    def test_SegmentReviewExport(self):
        """Thirty rows, one undo, a file that can be read back."""
        self._skipUnlessComplete()
        import numpy as np

        from hnseg.image.segmentation import read_segmentation
        from hnseg.phantom import draw_patient, render
        from HNSegLib.volumes import add_volume

        case = render(draw_patient(np.random.default_rng(7)), ct_spacing_mm=(2.5, 2.5, 3.0))
        widget = slicer.modules.HNSegWidget
        widget.ui.ctSelector.setCurrentNode(add_volume(slicer.mrmlScene, case.ct, "Phantom CT"))
        widget.panel.ui.applyButton.click()
        deadline = time.monotonic() + self.PATIENCE_S
        while widget.panel.busy:
            self.assertLess(time.monotonic(), deadline, "the worker did not finish")
            slicer.app.processEvents()
            time.sleep(0.01)
        slicer.app.processEvents()
        self.assertEqual(widget.ui.reviewTable.rowCount, 30, widget.panel.ui.statusLabel.text)
        widget.ui.reviewTable.selectRow(3)
        widget.ui.completeButton.click()
        self.assertTrue(widget.ui.reviewLabel.text.startswith("1 of 30 completed"))
        with tempfile.TemporaryDirectory() as folder:
            widget.saveSegNrrd(Path(folder) / "organs.seg.nrrd")
            self.assertEqual(len(read_segmentation(Path(folder) / "organs.seg.nrrd").segments), 30)
        widget.ui.undoButton.click()
        self.assertEqual(widget.ui.reviewTable.rowCount, 0)

    def _skipUnlessComplete(self):
        from HNSegLib import setting_up

        absent = setting_up.missing()
        if absent:
            reason = f"SKIPPED, nothing was segmented: this Slicer lacks {', '.join(map(str, absent))}"
            print(reason, file=sys.stderr)
            self.skipTest(reason)
