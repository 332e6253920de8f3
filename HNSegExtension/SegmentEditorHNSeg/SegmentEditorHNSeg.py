"""The hidden module that registers the HNSeg effect with the Segment Editor, and its self-test."""

import sys
import time
from pathlib import Path

import qt
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest

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
        self.loadTerminology()

    def loadTerminology(self):
        """HNSeg's organs become known to Slicer's terminology selector, which lacks ten of them."""
        for folder in (_FOLDER, _FOLDER.parents[1]):  # installed; source tree
            path = folder / "Resources" / "HNSeg.term.json"
            if path.is_file():
                slicer.modules.terminologies.logic().LoadTerminologyFromFile(str(path))
                return


class SegmentEditorHNSegTest(ScriptedLoadableModuleTest):
    """The effect in the running application: a phantom patient through the real worker and the model that ships."""

    PATIENCE_S = 900

    def setUp(self):
        """An empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Every test. One that is skipped is reported as skipped, not as passed."""
        for test in (self.test_EffectIsListed, self.test_ThirtyOrgansAndOneUndo):
            self.setUp()
            test()

    def test_EffectIsListed(self):
        """Also in a Slicer that lacks everything: it then says what is missing."""
        from HNSegLib import setting_up

        effect = self._editor()[0].activeEffect()
        self.assertIsNotNone(effect)
        ui = effect.self().panel.ui
        self.assertIn("not a medical device", ui.researchUseLabel.text)
        self.assertTrue(all(one.name in ui.setUpLabel.text for one in setting_up.missing()))
        self.assertFalse(ui.applyButton.enabled)

    def test_ThirtyOrgansAndOneUndo(self):
        """Apply gives thirty segments on the patient while Slicer stays alive; one undo takes them away."""
        self._skipUnlessComplete()
        import numpy as np

        from hnseg.organs import ORGANS
        from hnseg.phantom import draw_patient, render
        from HNSegLib.volumes import add_volume

        patient = draw_patient(np.random.default_rng(7))
        case = render(patient, ct_spacing_mm=(2.5, 2.5, 3.0), mr_spacing_mm=(2.0, 2.0, 4.0))
        ct = add_volume(slicer.mrmlScene, case.ct, "Phantom CT")
        mr = add_volume(slicer.mrmlScene, case.mr, "Phantom T1")
        widget, segmentation = self._editor(ct)
        panel = widget.activeEffect().self().panel
        panel.ui.mrSelector.setCurrentNode(mr)

        turns = self._apply(panel)
        self.assertGreater(turns, 10, "Slicer's event loop stood still while the worker ran")
        self.assertEqual(self._names(segmentation), [organ.name for organ in ORGANS], panel.ui.statusLabel.text)
        for name in ("Bone_Mandible", "Brainstem", "Parotid_L"):
            found = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, name, ct) > 0
            truth = np.asarray(case.masks[name].array_kji) > 0
            dice = 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))
            self.assertGreater(dice, 0.5, name)  # a flip or a shift of space gives 0
        widget.undo()
        self.assertEqual(self._names(segmentation), [])
        widget.redo()
        self.assertEqual(len(self._names(segmentation)), 30)
        self.delayDisplay("Thirty organs, one undo: passed")

    def _editor(self, ct=None):
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
        self._wait(lambda: self.widget.effectByName("HNSeg") is not None, 30, "the effect is not registered")
        self.widget.setActiveEffectByName("HNSeg")
        return self.widget, segmentation

    def _apply(self, panel):
        """Click Apply and let the application live; how often its event loop turned meanwhile."""
        turns = []
        ticker = qt.QTimer()
        ticker.setInterval(100)
        ticker.connect("timeout()", lambda: turns.append(1))
        ticker.start()
        panel.ui.applyButton.click()
        self.assertTrue(panel.busy, panel.ui.statusLabel.text)
        self._wait(lambda: not panel.busy, self.PATIENCE_S, "the worker did not finish")
        ticker.stop()
        return len(turns)

    def _wait(self, until, seconds, otherwise):
        deadline = time.monotonic() + seconds
        while not until():
            self.assertLess(time.monotonic(), deadline, otherwise)
            slicer.app.processEvents()
            time.sleep(0.01)

    def _skipUnlessComplete(self):
        from HNSegLib import setting_up

        absent = setting_up.missing()
        if absent:
            reason = f"SKIPPED, nothing was segmented: this Slicer lacks {', '.join(map(str, absent))}"
            print(reason, file=sys.stderr)
            self.skipTest(reason)

    def _names(self, segmentation):
        inner = segmentation.GetSegmentation()
        return [inner.GetNthSegment(n).GetName() for n in range(inner.GetNumberOfSegments())]
