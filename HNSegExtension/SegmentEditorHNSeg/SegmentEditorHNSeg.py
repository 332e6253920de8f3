"""The hidden module that registers the HNSeg effect with the Segment Editor, and its self-test."""

import subprocess
import sys
from pathlib import Path

import qt
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest

_FOLDER = Path(__file__).resolve().parent
for _place in (
    _FOLDER,
    _FOLDER.parent,
):  # installed, the packages lie beside this file; in a source tree, one folder up
    if (_place / "HNSegLib").is_dir() and str(_place) not in sys.path:
        sys.path.append(str(_place))


class SegmentEditorHNSeg(ScriptedLoadableModule):
    """Registers the effect when Slicer has started."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "SegmentEditorHNSeg"
        self.parent.categories = ["Segmentation"]
        self.parent.dependencies = ["Segmentations"]
        self.parent.contributors = ["HNSeg contributors"]
        self.parent.hidden = True
        self.parent.helpText = "This hidden module registers the Segment Editor effect of HNSeg."
        self.parent.acknowledgementText = "Research use only, not a medical device."

    def setup(self):
        """Called by Slicer when it has loaded the module, mostly while it starts."""
        window = slicer.util.mainWindow()
        if window is not None and window.visible:
            self.registerEditorEffect()
        else:
            slicer.app.connect("startupCompleted()", self.registerEditorEffect)

    def registerEditorEffect(self):
        """Slicer's way: an adaptor of C++, given the path of the Python file."""
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        instance = effects.qSlicerSegmentEditorScriptedEffect(None)
        instance.setPythonSource((_FOLDER / "SegmentEditorHNSegLib" / "SegmentEditorEffect.py").as_posix())
        instance.self().register()
        self.loadTerminology()

    def loadTerminology(self):
        """HNSeg's organs become known to Slicer's terminology selector, which lacks ten of them."""
        for folder in (_FOLDER, _FOLDER.parents[1]):  # installed; source tree
            path = folder / "Resources" / "HNSeg.term.json"
            if path.is_file():
                slicer.modules.terminologies.logic().LoadTerminologyFromFile(str(path))
                return


class SegmentEditorHNSegTest(ScriptedLoadableModuleTest):
    """The effect in the running application. Only the segmentation itself needs packages that Slicer lacks."""

    def setUp(self):
        """An empty scene."""
        slicer.mrmlScene.Clear()
        self.widget = None

    def tearDown(self):
        """Let go of the editor; a job of its effect would be cancelled."""
        if self.widget is not None:
            self.widget.setActiveEffectByName("")
            self.widget.close()
            self.widget.deleteLater()

    def runTest(self, **kwargs):
        """Slicer's Test button: every test."""
        from HNSegLib.self_testing import run_all

        run_all(type(self))

    def test_EffectIsListed(self):
        """It says what it is for, what is missing, and what to do first."""
        from HNSegLib import setting_up

        effect = self._editor()[0].activeEffect()
        self.assertIsNotNone(effect)
        ui = effect.self().panel.ui
        self.assertIn("not a medical device", ui.researchUseLabel.text)
        self.assertTrue(all(one.name in ui.setUpLabel.text for one in setting_up.missing()))
        self.assertFalse(ui.applyButton.enabled)
        self.assertEqual(ui.ctLabel.text, "Choose the CT first.")

    def test_ChoicesAreKeptInTheScene(self):
        """What a user chooses in the panel is a parameter of the editor's node, with a node reference for the MR."""
        ct, mr = self._phantom(ct_spacing_mm=(8.0, 8.0, 8.0))[:2]
        effect = self._editor(ct)[0].activeEffect()
        ui = effect.self().panel.ui
        self.assertEqual(ui.ctLabel.text, "Phantom CT")
        ui.mrSelector.setCurrentNode(mr)
        ui.allOrgansCheckBox.setChecked(False)
        ui.organsList.item(0).setCheckState(qt.Qt.Unchecked)
        ui.deviceComboBox.setCurrentIndex(1)
        self.assertEqual(effect.nodeReference("MR"), mr)
        self.assertEqual(len(effect.parameter("Organs").split(",")), 29)
        self.assertEqual(effect.parameter("Device"), "cpu")

    def test_SlicersPythonRunsTheEngine(self):
        """The worker's Python is Slicer's, and finds the same engine, numpy and SimpleITK as Slicer."""
        import hnseg
        from HNSegLib.desk import python_executable

        code = "import sys; sys.path.insert(0, sys.argv[1]); import hnseg, numpy, SimpleITK; print(hnseg.__file__)"
        command = [python_executable(), "-c", code, str(Path(hnseg.__file__).parents[1])]
        said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertIn(hnseg.__file__, said.stdout)

    def test_OneUndoTakesThirtyKnownOrgansBack(self):
        """The phantom's own organs through the effect's undo and the editor's: no model is needed."""
        from HNSegLib.segments import import_labels

        ct, _, case = self._phantom()
        widget, segmentation = self._editor(ct)
        widget.activeEffect().self().panel.host.saveStateForUndo()
        import_labels(case.labels, segmentation)
        self._assertOrgansOnPatient(segmentation, ct, case, at_least=0.99)
        widget.undo()
        self.assertEqual(self._names(segmentation), [])
        widget.redo()
        self.assertEqual(len(self._names(segmentation)), 30)

    def test_ThirtyOrgansAndOneUndo(self):
        """Apply gives thirty segments on the patient while Slicer stays alive; one undo takes them away."""
        from HNSegLib.self_testing import skip_unless_complete

        skip_unless_complete(self)
        ct, mr, case = self._phantom(ct_spacing_mm=(2.5, 2.5, 3.0), mr_spacing_mm=(2.0, 2.0, 4.0))
        widget, segmentation = self._editor(ct)
        panel = widget.activeEffect().self().panel
        panel.ui.mrSelector.setCurrentNode(mr)
        turns = self._apply(panel)
        self.assertGreater(turns, 10, "Slicer's event loop stood still while the worker ran")
        self._assertOrgansOnPatient(segmentation, ct, case, at_least=0.5, said=panel.ui.statusLabel.text)
        widget.undo()
        self.assertEqual(self._names(segmentation), [])

    def _phantom(self, ct_spacing_mm=(4.0, 4.0, 4.0), mr_spacing_mm=(8.0, 8.0, 8.0)):
        import numpy as np

        from hnseg.phantom import draw_patient, render
        from HNSegLib.volumes import add_volume

        patient = draw_patient(np.random.default_rng(7))
        case = render(patient, ct_spacing_mm=ct_spacing_mm, mr_spacing_mm=mr_spacing_mm)
        scene = slicer.mrmlScene
        return add_volume(scene, case.ct, "Phantom CT"), add_volume(scene, case.mr, "Phantom T1"), case

    def _editor(self, ct=None):
        from HNSegLib.self_testing import wait

        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Organs")
        segmentation.CreateDefaultDisplayNodes()
        self.widget = slicer.qMRMLSegmentEditorWidget()
        self.widget.setMRMLScene(slicer.mrmlScene)
        self.widget.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
        self.widget.setSegmentationNode(segmentation)
        if ct is not None:
            segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
            self.widget.setSourceVolumeNode(ct)
        self.widget.show()
        wait(self._isListed, seconds=30, otherwise="the effect is not registered")
        self.widget.setActiveEffectByName("HNSeg")
        return self.widget, segmentation

    def _isListed(self):
        self.widget.updateEffectList()
        return self.widget.effectByName("HNSeg") is not None

    def _apply(self, panel):
        """Click Apply and let the application live; how often its event loop turned meanwhile."""
        from HNSegLib.self_testing import SEGMENTING_S, wait

        turns = []
        ticker = qt.QTimer()
        ticker.setInterval(100)
        ticker.connect("timeout()", lambda: turns.append(1))
        ticker.start()
        panel.ui.applyButton.click()
        self.assertTrue(panel.busy, panel.ui.statusLabel.text)
        wait(lambda: not panel.busy, seconds=SEGMENTING_S, otherwise="the worker did not finish")
        ticker.stop()
        return len(turns)

    def _assertOrgansOnPatient(self, segmentation, ct, case, *, at_least, said=""):
        import numpy as np

        from hnseg.organs import ORGANS

        self.assertEqual(self._names(segmentation), [organ.name for organ in ORGANS], said)
        for name in ("Bone_Mandible", "Brainstem", "Parotid_L"):
            found = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, name, ct) > 0
            truth = np.asarray(case.masks[name].array_kji) > 0
            dice = 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))
            self.assertGreater(dice, at_least, name)  # a flip or a shift of space gives 0

    def _names(self, segmentation):
        inner = segmentation.GetSegmentation()
        return [inner.GetNthSegment(n).GetName() for n in range(inner.GetNumberOfSegments())]
