"""The planner's module: segment, review, export."""

import sys
import tempfile
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

    def setup(self):
        """Called by Slicer when it has loaded the module, mostly while it starts."""
        window = slicer.util.mainWindow()
        if window is not None and window.visible:
            self.registerSampleData()
        else:
            slicer.app.connect("startupCompleted()", self.registerSampleData)

    def registerSampleData(self):
        """A phantom patient to try the module with."""
        from HNSegLib.sample_data import register

        register(_FOLDER / "Resources" / "Icons" / "HNSegPhantom.png")


class HNSegLogic(ScriptedLoadableModuleLogic):
    """The module without its widgets: which nodes, one undo a result, review and export."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.history = slicer.vtkSegmentationHistory()

    def newSegmentation(self, ct):
        """A segmentation for the CT, on its geometry."""
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{ct.GetName()} organs")
        node.CreateDefaultDisplayNodes()
        self.fitToCt(node, ct)
        return node

    def fitToCt(self, segmentation, ct):
        """A segmentation without a geometry, such as one from the selector's menu, gets the CT's."""
        role = segmentation.GetReferenceImageGeometryReferenceRole()
        if segmentation.GetNodeReference(role) is None:
            segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
            segmentation.SetNodeReferenceID(role, ct.GetID())

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


class HNSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Three steps, one below the other."""

    logic = panel = review = host = ui = None  # the base class may call setup before it returns

    def __init__(self, parent=None):
        VTKObservationMixin.__init__(self)
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        """Called by Slicer once, when the module is first shown."""
        ScriptedLoadableModuleWidget.setup(self)
        try:
            from HNSegLib.panel import SegmentationPanel
            from HNSegLib.review_panel import ReviewPanel
        except ImportError as error:
            self._sayNotFound(error)
            return
        self.logic = HNSegLogic()
        widget = slicer.util.loadUI(self.resourcePath("UI/HNSeg.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        for selector in (self.ui.ctSelector, self.ui.segmentationSelector):
            selector.setMRMLScene(slicer.mrmlScene)
        self.host = _ModuleHost(self.logic)
        self.panel = SegmentationPanel(self.host)
        self.panel.onFinished = self.updateReview
        self.panel.onChoice = self.updateReview
        self.panel.hideCt()  # this module has a selector of its own
        self.ui.panelFrame.layout().addWidget(self.panel.widget)
        self.review = ReviewPanel(self.ui, self.host, self.panel.connect)
        self._connectAll()
        self._observeScene()
        if self.parent.isEntered:
            self.enter()  # the module was reloaded: Slicer does not call this again
        else:
            self.updateReview()

    def _sayNotFound(self, error):
        label = qt.QLabel(
            f"HNSeg's own packages are not found ({error}); keep the folders hnseg and HNSegLib beside this module's, "
            "or reinstall the extension."
        )
        label.setWordWrap(True)
        self.layout.addWidget(label)

    def _connectAll(self):
        ui, connect = self.ui, self.panel.connect
        connect(ui.sampleButton, "clicked()", self.onSample)
        connect(ui.ctSelector, "currentNodeChanged(vtkMRMLNode*)", self.onNodesChosen)
        connect(ui.segmentationSelector, "currentNodeChanged(vtkMRMLNode*)", self.onNodesChosen)
        connect(ui.undoButton, "clicked()", self.onUndo)
        connect(ui.editButton, "clicked()", self.onEdit)
        connect(ui.segNrrdButton, "clicked()", self.onSaveSegNrrd)
        connect(ui.rtstructButton, "clicked()", self.onSaveRtstruct)

    def _observeScene(self):
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneChanged)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneChanged)

    def cleanup(self):
        """The application closes, or the module is reloaded."""
        self.removeObservers()
        if self.panel is not None:
            self.panel.cleanup()
            self.logic.forget()
        self.panel = None

    def enter(self):
        """The user came to this module."""
        if self.panel is None:
            return
        self.host.enter(self.logic.getParameterNode())
        if self.host.ct() is None:
            self.host.choose(_likelyCt(), self.host.segmentation())
        self._showNodes()
        self.panel.refresh()
        self.updateReview()

    def exit(self):
        """The user left; a result that comes meanwhile waits."""
        if self.host is not None:
            self.host.leave()

    def onSceneStartClose(self, caller=None, event=None):
        """Stop what works on nodes that are about to go."""
        if self.panel.busy:
            self.panel.onCancel()
        self.host.leave()
        self.logic.forget()

    def onSceneChanged(self, caller=None, event=None):
        """Begin anew after a close or an import, if the user looks at this module."""
        if self.parent.isEntered:
            self.enter()

    # 1. Segment

    def onSample(self):
        """A phantom patient, chosen and ready for Apply."""
        from HNSegLib.sample_data import load

        nodes = load()
        if nodes:
            self.host.choose(nodes[0], self.host.segmentation())
            self.host.chooseMr(nodes[1])
            self._showNodes()
            self.panel.updateFromScene()
            self.updateReview()

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
        """Fill the table from the scene, and say what can be done."""
        if self.panel is None:
            return
        self._showNodes()
        segmentation = self.host.segmentation()
        self.review.update()
        self.ui.firstUseBox.setVisible(self.host.ct() is None)
        self.ui.undoButton.setEnabled(self.logic.canUndo(segmentation))
        for button in (self.ui.segNrrdButton, self.ui.rtstructButton, self.ui.editButton):
            button.setEnabled(self.ui.reviewTable.rowCount > 0)

    def onEdit(self):
        """Open the Segment Editor on this CT and segmentation, at the chosen organ."""
        chosen, segmentation, ct = self.review.chosenIds(), self.host.segmentation(), self.host.ct()
        slicer.util.selectModule("SegmentEditor")  # leaves this module, so the nodes are asked for before
        editor = slicer.modules.SegmentEditorWidget.editor
        editor.setSegmentationNode(segmentation)
        editor.setSourceVolumeNode(ct)
        if chosen:
            editor.setCurrentSegmentID(chosen[0])

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
        except ImportError as error:
            self.ui.exportLabel.setText(f"{path.name} was not written: {error}; install what is missing in step 1.")
        else:
            warnings = getattr(written, "warnings", ())
            self.ui.exportLabel.setText("\n".join((f"Saved {path}. {self.ui.reviewLabel.text}", *warnings)))
        finally:
            qt.QApplication.restoreOverrideCursor()

    def _seriesFolder(self):
        from HNSegLib.exporting import series_folder_of

        ct, database = self.host.ct(), getattr(slicer, "dicomDatabase", None)  # None where Slicer runs without DICOM
        folder = series_folder_of(ct, database) if ct is not None else None
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

    def chooseMr(self, mr):
        """Keep the MR."""
        from HNSegLib.choices import MR_REFERENCE

        self.setNodeReference(MR_REFERENCE, mr)

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
        ct, segmentation = self.ct(), self.segmentation()
        if ct is not None and segmentation is None:
            self.setNodeReference(SEGMENTATION_REFERENCE, self._logic.newSegmentation(ct))
        elif ct is not None:
            self._logic.fitToCt(segmentation, ct)

    def saveStateForUndo(self):
        """One state a result."""
        self._logic.saveState(self.segmentation())


def _likelyCt():
    from HNSegLib.volumes import likely_ct

    return likely_ct(slicer.mrmlScene)


class HNSegTest(ScriptedLoadableModuleTest):
    """The module in the running application. Only the segmentation itself needs packages that Slicer lacks."""

    def setUp(self):
        """An empty scene, and the module shown."""
        slicer.mrmlScene.Clear()
        self.widget = slicer.util.getModuleWidget("HNSeg")
        if slicer.util.mainWindow() is not None:
            slicer.util.selectModule("HNSeg")
        self.widget.enter()

    def runTest(self, **kwargs):
        """Slicer's Test button: every test."""
        from HNSegLib.self_testing import run_all

        run_all(type(self))

    def test_ModuleOpens(self):
        """It says what it is for, what is missing and what to do."""
        from HNSegLib import setting_up

        widget = self.widget
        self.assertIn("not a medical device", widget.panel.ui.researchUseLabel.text)
        self.assertTrue(all(one.name in widget.panel.ui.setUpLabel.text for one in setting_up.missing()))
        self.assertFalse(widget.panel.ui.applyButton.enabled)
        self.assertEqual(widget.ui.reviewLabel.text, "There is nothing to review yet.")

    def test_PhantomPatientIsASampleOfSlicer(self):
        """Sample Data has it; its CT and MR come into the scene, and the CT is recognised."""
        from SampleData import SampleDataLogic

        from HNSegLib.sample_data import CATEGORY

        (source,) = SampleDataLogic.sampleDataSourcesByCategory(CATEGORY)
        nodes = source.customDownloader(source)
        self.assertEqual([node.GetName() for node in nodes], ["Phantom CT", "Phantom T1"])
        self.widget.enter()
        self.assertEqual(self.widget.ui.ctSelector.currentNode(), nodes[0])

    def test_ReviewAndFilesOfAKnownSegmentation(self):
        """The phantom's own organs through table, marks, views, editor and file: no model is needed."""
        from hnseg.image.segmentation import read_segmentation

        widget, segmentation = self.widget, self._truth()
        ui = widget.ui
        self.assertEqual(ui.reviewTable.rowCount, 30)
        self.assertEqual(ui.reviewTable.item(3, 0).text(), "Bone_Mandible")
        ui.reviewTable.selectRow(3)
        ui.completeButton.click()
        self.assertTrue(ui.reviewLabel.text.startswith("1 of 30 completed"), ui.reviewLabel.text)
        self.assertEqual(widget.review.chosenIds(), [segmentation.GetSegmentation().GetNthSegmentID(4)])
        ui.show3DButton.click()
        self.assertTrue(segmentation.GetSegmentation().ContainsRepresentation("Closed surface"))
        ui.show3DButton.click()
        self.assertFalse(segmentation.GetSegmentation().ContainsRepresentation("Closed surface"))
        with tempfile.TemporaryDirectory() as folder:
            widget.saveSegNrrd(Path(folder) / "organs.seg.nrrd")
            self.assertEqual(len(read_segmentation(Path(folder) / "organs.seg.nrrd").segments), 30)
        if slicer.util.mainWindow() is not None:
            ui.editButton.click()
            self.assertEqual(slicer.modules.SegmentEditorWidget.editor.segmentationNodeID(), segmentation.GetID())

    def test_SegmentReviewUndo(self):
        """From two clicks to thirty organs, and back with one undo."""
        from HNSegLib.self_testing import SEGMENTING_S, skip_unless_complete, wait

        skip_unless_complete(self)
        widget = self.widget
        widget.ui.sampleButton.click()
        widget.panel.ui.applyButton.click()
        wait(lambda: not widget.panel.busy, seconds=SEGMENTING_S, otherwise="the worker did not finish")
        self.assertEqual(widget.ui.reviewTable.rowCount, 30, widget.panel.ui.statusLabel.text)
        widget.ui.mrFadeSlider.setValue(50)
        widget.ui.undoButton.click()
        self.assertEqual(widget.ui.reviewTable.rowCount, 0)

    def _truth(self):
        """A coarse phantom, its organs as a segmentation, chosen in the module."""
        import numpy as np

        from hnseg.phantom import draw_patient, render
        from HNSegLib.segments import import_labels
        from HNSegLib.volumes import add_volume

        case = render(draw_patient(np.random.default_rng(7)), ct_spacing_mm=(4, 4, 4), mr_spacing_mm=(8, 8, 8))
        ct = add_volume(slicer.mrmlScene, case.ct, "Phantom CT")
        segmentation = self.widget.logic.newSegmentation(ct)
        import_labels(case.labels, segmentation)
        self.widget.ui.ctSelector.setCurrentNode(ct)
        self.widget.ui.segmentationSelector.setCurrentNode(segmentation)
        return segmentation
