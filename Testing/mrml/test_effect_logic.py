"""The effect without Qt: real MRML, a real worker process, and the editor's real undo. The network is a stand-in."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import slicer

from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.jobs.client import Worker
from hnseg.organs import ORGANS
from HNSegLib.choices import Choices
from HNSegLib.desk import WorkerDesk
from HNSegLib.effect_logic import EffectLogic
from HNSegLib.merging import MergePolicy, Status
from HNSegLib.segmenting import SegmentJob
from HNSegLib.segments import existing_segments, set_status
from HNSegLib.transforms import put_on_ct, registration_of
from HNSegLib.volumes import add_volume, volume_of

SCRIPT = Path(__file__).with_name("stand_ins") / "segment_worker.py"


@pytest.fixture(scope="module")
def desk():
    desk = WorkerDesk(lambda: Worker(command=(sys.executable, str(SCRIPT))))
    yield desk
    desk.close()


class Editor:
    """The Segment Editor's logic with one segmentation, and the effect's logic on top of it."""

    def __init__(self, scene, desk, oblique):
        self.scene = scene
        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.logic.SetMRMLScene(scene)
        self.logic.SetSegmentEditorNode(scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
        self.node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Plan")
        self.logic.SetSegmentationNode(self.node)
        grid = Grid((40, 35, 6), (1, 2, 3), (11.5, -23.25, 100.125), tuple((oblique * (1, 1, -1)).ravel()))
        array = np.zeros(grid.shape_kji, np.int16)
        for organ in ORGANS:
            array[3, organ.label + 1, 4 : 4 + organ.label] = organ.label * 10
        self.ct = add_volume(scene, Volume(array, grid), "CT")
        self.mr = add_volume(scene, Volume(array.astype(np.float32), Grid((40, 35, 6), origin_lps=(900, 1, 2))), "MR")
        self.views = []
        self.saved = 0
        self.effect = EffectLogic(SegmentJob(desk), show=self.views.append, save_state_for_undo=self.save)

    def save(self):
        self.saved += 1
        self.logic.SaveStateForUndo()

    def apply(self, choices=None, *, ct="own", mr=None):
        self.effect.apply(self.ct if ct == "own" else ct, mr, self.node, choices or Choices())

    def wait(self, shown="own", until=lambda self: not self.effect.busy):
        deadline = time.monotonic() + 60
        while not until(self):
            assert time.monotonic() < deadline, self.views[-1:]
            self.effect.tick(self.node if shown == "own" else shown)
            time.sleep(0.01)
        return self.views[-1]

    @property
    def organs(self):
        return [segment.organ.name for segment in existing_segments(self.node)]


@pytest.fixture
def editor(scene, desk, oblique):
    editor = Editor(scene, desk, oblique)
    yield editor
    editor.effect.cancel()


def test_apply_gives_thirty_segments_and_one_undo_takes_them_away(editor):
    editor.apply()
    view = editor.wait()
    assert editor.organs == [organ.name for organ in ORGANS]
    assert view.text == "30 organs written in 1 s; review every contour."
    assert not view.busy
    assert editor.saved == 1
    editor.logic.Undo()
    assert editor.organs == []
    editor.logic.Redo()
    assert len(editor.organs) == 30


def test_progress_reaches_the_view_while_the_job_runs(editor):
    editor.apply(Choices(model="slow"))
    view = editor.wait(until=lambda self: self.views[-1].text == "Looking")
    assert (view.busy, view.fraction) == (True, 0.25)


def test_cancel_leaves_the_segments_as_they_were_and_the_next_job_runs(editor):
    editor.apply(Choices(model="slow"))
    editor.wait(until=lambda self: self.views[-1].fraction > 0)
    editor.effect.cancel()
    assert editor.views[-1].text == "Cancelled; nothing was changed."
    assert not editor.effect.busy
    assert editor.organs == []
    assert editor.saved == 0
    editor.apply()
    editor.wait()
    assert len(editor.organs) == 30


def test_the_report_names_warnings_doubts_and_the_model(editor):
    editor.apply()
    lines = editor.wait().details
    assert lines[0] == "The field of view ends above the shoulders."
    assert "Look at Parotid_L: 99.0 mL is unusually large." in lines
    assert lines[-1] == "Model scripted 1.0, trained on: nothing"


def test_the_mr_is_sent_where_it_lies(editor):
    editor.apply(mr=editor.mr)
    assert "MR registration: good. MR origin (900.0, 1.0, 2.0), given None." in editor.wait().details


def test_where_the_mr_was_found_is_kept_and_the_mr_is_not_moved(editor):
    editor.apply(mr=editor.mr)
    assert "The transform 'MR on the CT' puts the MR where it was found to lie." in editor.wait().details
    assert editor.mr.GetParentTransformNode() is None
    assert put_on_ct(editor.node, editor.mr)
    placed = volume_of(editor.mr).grid
    assert placed.to_lps((0, 0, 0)) == pytest.approx((900 - 900, 1 - 20, 2 + 3))  # the MR's first voxel, on the CT


def test_no_registration_is_kept_of_an_mr_that_lies_on_the_ct_already(editor):
    editor.apply(Choices(mr_registered=True), mr=editor.mr)
    editor.wait()
    assert registration_of(editor.node) is None


def test_an_mr_that_is_registered_already_goes_with_an_identity_transform(editor):
    editor.apply(Choices(mr_registered=True), mr=editor.mr)
    assert any("given (1.0, 2.0, 3.0)" in line for line in editor.wait().details)


def test_selected_organs_alone_are_written(editor):
    editor.apply(Choices(organs=("SpinalCord", "Lips")))
    editor.wait()
    assert editor.organs == ["Lips", "SpinalCord"]


def test_what_a_person_edited_is_kept_and_the_report_says_so(editor):
    editor.apply()
    editor.wait()
    set_status(editor.node.GetSegmentation().GetSegment("Lips"), Status.IN_PROGRESS)
    editor.apply()
    view = editor.wait()
    assert "1 kept as they were" in view.text
    assert "Lips was kept: it was edited." in view.details


def test_filling_empty_segments_only_leaves_the_others(editor):
    editor.apply(Choices(organs=("Lips",)))
    editor.wait()
    editor.apply(Choices(policy=MergePolicy.ONLY_EMPTY))
    assert editor.wait().text.startswith("29 organs written, 1 kept")


@pytest.mark.parametrize(
    ("model", "sentence"),
    [("refuses", "is not a CT, got values from 0 to 1"), ("dies", "exit code 3 and its job is lost")],
)
def test_a_failing_job_gives_its_sentence_and_changes_nothing(editor, model, sentence):
    editor.apply(Choices(model=model))
    view = editor.wait()
    assert view.failed
    assert sentence in view.text
    assert editor.organs == []
    assert editor.saved == 0


def test_a_result_waits_while_the_editor_shows_another_segmentation(editor):
    editor.apply()
    view = editor.wait(shown=None, until=lambda self: self.views[-1].text.startswith("Done; come back"))
    assert "'Plan'" in view.text
    assert editor.organs == []
    assert editor.effect.busy
    editor.wait()
    assert len(editor.organs) == 30


def test_a_segmentation_that_was_removed_meanwhile_drops_the_job(editor):
    editor.apply(Choices(model="slow"))
    editor.scene.RemoveNode(editor.node)
    assert "removed from the scene" in editor.wait(shown=None).text


def test_a_second_apply_is_refused_and_the_first_goes_on(editor):
    editor.apply()
    editor.apply()
    assert "already running" in editor.views[-1].text
    editor.wait()
    assert len(editor.organs) == 30


def test_missing_and_mistaken_inputs_are_named(editor):
    editor.apply(ct=None)
    assert editor.views[-1].text.startswith("No CT is chosen")
    editor.apply(mr=editor.ct)
    assert editor.views[-1].text.startswith("The MR is the same volume as the CT")
    editor.effect.apply(editor.ct, None, None, Choices())
    assert editor.views[-1].text.startswith("No segmentation is chosen")
    assert all(view.failed for view in editor.views)


def test_an_empty_ct_is_refused(editor, scene):
    editor.apply(ct=scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow"))
    assert editor.views[-1].text.startswith("'hollow' holds no image")


def test_no_file_of_a_finished_job_stays(editor, desk):
    editor.apply()
    editor.wait()
    assert not [path for path in desk.folder.rglob("*") if path.suffix in (".nrrd", ".tfm", ".h5")]


def test_two_clients_of_one_desk_get_their_own_events(editor, desk, scene, oblique):
    other = Editor(scene, desk, oblique)
    editor.apply()
    other.apply(Choices(model="refuses"))
    assert editor.wait().text.startswith("30 organs")
    assert other.wait().failed
