"""The procedural patient on small grids: determinism, anatomy, truth of labels, volumes and transform."""

import pickle
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import center_of_mass, label

from hnseg.errors import ConfigError
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.organs import BY_NAME, ORGANS, swap_sides
from hnseg.phantom import Patient, PhantomCase, PhantomOptions, average_patient, draw_patient, labels_on, render
from hnseg.phantom.anatomy.builder import places_of, volume_scale
from hnseg.phantom.patient import Pose
from hnseg.phantom.pose import CtToMr, MrToCanonical, ToCanonical
from hnseg.phantom.rendering import ct_grid_of, label_volumes_ml, mr_grid_of, render_ct, render_mr

COARSE = (3.0, 3.0, 4.0)
# The organs of the head and throat in the canonical frame: everything but the lower ends of cord, carotids, chest.
HEAD_BOX = Grid((112, 100, 140), (1.3, 1.6, 1.8), (-73.0, -112.0, -200.0))
# Every organ of every patient, in the CT's world.
ORGANS_BOX = Grid((142, 200, 190), (1.2, 1.2, 1.8), (-85.0, -130.0, -255.0))


def patient(seed: int, **options: object) -> Patient:
    return draw_patient(np.random.default_rng(seed), PhantomOptions(**options))  # type: ignore[arg-type]


@cache
def case(seed: int) -> PhantomCase:
    return render(patient(seed), ct_spacing_mm=COARSE, mr_spacing_mm=(3.0, 3.0, 5.0))


@cache
def average_labels() -> Volume:
    return labels_on(average_patient(), HEAD_BOX)


def centre_lps(labels: Volume, name: str) -> np.ndarray:
    kji = center_of_mass(labels.array_kji == BY_NAME[name].label)
    return labels.grid.to_lps(np.array(kji)[::-1])


def test_the_same_seed_gives_the_same_voxels_whatever_the_threads():
    again = render(patient(3), ct_spacing_mm=COARSE, mr_spacing_mm=(3.0, 3.0, 5.0), threads=2)
    assert np.array_equal(again.ct.array_kji, case(3).ct.array_kji)
    assert np.array_equal(again.labels.array_kji, case(3).labels.array_kji)
    assert np.array_equal(again.mr.array_kji, case(3).mr.array_kji)
    assert again.ct.grid == case(3).ct.grid
    assert again.mr.grid == case(3).mr.grid


def test_different_seeds_differ_in_shape_place_and_contrast():
    first, second = case(3), case(4)
    assert first.ct.grid != second.ct.grid
    volumes = label_volumes_ml(first.labels), label_volumes_ml(second.labels)
    assert abs(volumes[0]["Parotid_L"] - volumes[1]["Parotid_L"]) > 0.5
    assert first.patient.hu["artery"] != second.patient.hu["artery"]


def test_a_patient_survives_pickling_as_worker_processes_need():
    assert pickle.loads(pickle.dumps(patient(3))) == patient(3)


def test_images_have_the_types_and_ranges_of_scanners():
    for seed in (3, 4):
        assert case(seed).ct.array_kji.dtype == np.int16
        assert case(seed).ct.array_kji.min() >= -1024
        assert 1000 < case(seed).ct.array_kji.max() <= 3071
        assert case(seed).labels.array_kji.dtype == np.uint8
        assert case(seed).mr.array_kji.dtype == np.int16
        assert case(seed).mr.array_kji.min() >= 0
        assert case(seed).mr.array_kji.max() > 500


def test_all_thirty_organs_are_there_at_their_published_places():
    labels = average_labels()
    places = {
        "Parotid_L": (58, 2, -22), "Glnd_Submand_R": (-31, -32, -70), "Cochlea_L": (23, -6, 5),
        "Eye_PR": (-32, -70, 18),
        "Brainstem": (0, 7, 3), "Pituitary": (0, -20, 26), "OpticChiasm": (0, -21, 36), "Glottis": (0, -20, -128),
        "Larynx_SG": (0, -20, -107),
        "Cavity_Oral": (0, -52, -52), "Lips": (0, -92, -52), "Arytenoid": (0, -8, -122),
        "Cricopharyngeus": (0, -2, -140), "Esophagus_S": (0, 5, -158), "Glnd_Lacrimal_L": (43, -66, 28),
    }  # fmt: skip
    assert set(label_volumes_ml(labels)) == {organ.name for organ in ORGANS}
    for name, place in places.items():
        assert np.linalg.norm(centre_lps(labels, name) - place) < 4.5, name


def test_organs_of_the_average_patient_have_their_published_volumes():
    for name, volume in label_volumes_ml(average_labels()).items():
        organ = BY_NAME[name]
        assert volume == pytest.approx(organ.typical_ml, rel=0.15), name


@pytest.mark.parametrize("seed", [4, 12, 13])
def test_organ_volumes_lie_in_the_published_ranges(seed: int):
    for name, volume in label_volumes_ml(labels_on(patient(seed), ORGANS_BOX)).items():
        low, high = BY_NAME[name].range_ml
        assert low <= volume <= high, name


def test_where_the_pose_squeezes_tissue_organs_still_have_their_volumes():
    squeezed = patient(4)
    assert volume_scale(squeezed, places_of("Larynx_SG")) < 0.85
    volumes = label_volumes_ml(labels_on(squeezed, ORGANS_BOX))
    for name in ("Larynx_SG", "Glottis", "Arytenoid", "Parotid_L", "Parotid_R", "Brainstem", "Glnd_Submand_R"):
        assert volumes[name] == pytest.approx(squeezed.target_ml[name], rel=0.12), name


def test_volume_scale_is_the_product_of_the_axes_where_nothing_else_bends():
    stretched = replace(average_patient(), pose=Pose(scale=(1.04, 0.97, 1.1), rotation_degrees=(4.0, -3.0, 5.0)))
    assert volume_scale(stretched, places_of("Parotid_R")) == pytest.approx(1.04 * 0.97 * 1.1, rel=1e-3)
    assert np.array_equal(places_of("Parotid_R"), places_of("Parotid_L") * (-1, 1, 1))


@pytest.mark.slow
def test_organ_volumes_over_fifty_seeds_lie_in_the_published_ranges_and_vary():
    volumes: dict[str, list[float]] = {organ.name: [] for organ in ORGANS}
    for seed in range(50):
        for name, volume in label_volumes_ml(labels_on(patient(seed), ORGANS_BOX)).items():
            volumes[name].append(volume)
    for organ in ORGANS:
        drawn = np.array(volumes[organ.name])
        assert len(drawn) == 50
        assert organ.range_ml[0] <= drawn.min(), organ.name
        assert drawn.max() <= organ.range_ml[1], organ.name
        assert 0.08 < drawn.std() / drawn.mean() < 0.45, organ.name


def test_left_is_plus_x():
    for organ in ORGANS:
        if organ.partner:
            x = centre_lps(average_labels(), organ.name)[0]
            assert (x > 0) == (swap_sides(organ.label) > organ.label), organ.name


def test_single_organs_are_in_one_piece_and_paired_labels_in_two():
    for organ in ORGANS:
        _, pieces = label(average_labels().array_kji == organ.label, structure=np.ones((3, 3, 3)))
        assert pieces == organ.components, organ.name


def test_organs_lie_inside_the_body():
    ct, labels = case(3).ct.array_kji, case(3).labels.array_kji
    tissue = ct > -400
    for name in ("Parotid_L", "Brainstem", "Eye_PL", "Bone_Mandible", "SpinalCord", "Glnd_Thyroid", "Glnd_Submand_L"):
        assert tissue[labels == BY_NAME[name].label].mean() > 0.95, name


def test_tissues_have_the_ct_numbers_of_their_kind():
    one = patient(5, non_contrast=0.0, dental_metal=0.0)
    grid = ct_grid_of(one, spacing_mm=(1.5, 1.5, 2.0))
    ct = render(one, ct_grid=grid, mr_grid=Grid((8, 8, 4), (9, 9, 9), (0, 0, 0)))

    def mean(name: str) -> float:
        return float(ct.ct.array_kji[ct.labels.array_kji == BY_NAME[name].label].mean())

    assert mean("A_Carotid_L") > 110
    assert 15 < mean("Brainstem") < 50
    assert mean("Bone_Mandible") > 350
    assert 90 < mean("Glnd_Thyroid") < 220
    assert -60 < mean("Parotid_L") < 70
    assert ct.ct.array_kji[:, :5, :].mean() < -950


def test_the_transform_takes_every_organ_from_the_ct_to_the_mr():
    one = patient(21, jaw_degrees=1.5)
    assert abs(one.mr_pose.jaw_degrees) > 2
    grid = ct_grid_of(one, spacing_mm=(1.4, 1.4, 1.7))
    truth = CtToMr(one).transform
    in_ct = labels_on(one, grid)
    centre = np.array(truth.TransformPoint([float(v) for v in grid.centre_lps]))
    axes = np.reshape(mr_grid_of(one, "small").direction, (3, 3))
    size, spacing = (180, 190, 235), (1.4, 1.4, 1.7)
    origin = centre - axes @ ((np.array(size) - 1) / 2 * spacing)
    in_mr = labels_on(one, Grid(size, spacing, tuple(origin), tuple(axes.ravel())), frame="mr")
    for organ in ORGANS:
        voxels = np.argwhere(in_ct.array_kji == organ.label)[:, ::-1]
        expected = moved_centre(truth, grid.to_lps(voxels[:: max(1, len(voxels) // 4000)]))
        assert np.linalg.norm(centre_lps(in_mr, organ.name) - expected) < 1.0, organ.name


def moved_centre(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """The centre of mass of a body after the transform: its points, each weighted by how much space it then takes."""
    step = 0.5 * np.eye(3)
    moved, ahead = (np.array([transform.TransformPoint(p.tolist()) for p in q.reshape(-1, 3)]) for q in
                    (points, points[:, None] + step))  # fmt: skip
    weight = np.abs(np.linalg.det((ahead.reshape(-1, 3, 3) - moved[:, None]) / 0.5))
    return (moved * weight[:, None]).sum(axis=0) / weight.sum()


@pytest.mark.parametrize("seed", [1, 21, 33])
def test_the_transform_takes_every_point_of_the_ct_to_the_same_anatomy_in_the_mr(seed: int):
    one = patient(seed, jaw_degrees=4.0, neck_degrees=8.0)
    points = np.random.default_rng(0).uniform((-150, -120, -220), (150, 110, 130), (1500, 3))
    truth = CtToMr(one).transform
    moved = np.array([truth.TransformPoint(point.tolist()) for point in points])
    apart = MrToCanonical(one)(moved) - ToCanonical(one)(points)
    assert np.abs(apart).max() < 0.05


def test_the_jaw_and_neck_move_between_the_scans_and_the_skull_does_not():
    one = patient(21, jaw_degrees=3.0, neck_degrees=6.0)
    moved = CtToMr(one).transform
    rigid = moved.GetNthTransform(0)

    def bend(*point: float) -> float:
        back = rigid.GetInverse().TransformPoint(moved.TransformPoint(point))
        return float(np.linalg.norm(np.subtract(back, point)))

    assert bend(0.0, -10.0, 60.0) < 0.05
    assert bend(0.0, -80.0, -85.0) > 1.0
    assert bend(0.0, 40.0, -190.0) > 1.0


def test_without_deformation_the_truth_is_a_rigid_transform():
    assert isinstance(CtToMr(patient(6, deformation=False)).transform, sitk.Euler3DTransform)


def test_the_mr_lies_on_a_far_oblique_grid_that_ends_in_the_neck():
    farthest = max(np.linalg.norm(patient(seed).mr_pose.shift_mm) for seed in range(40))
    assert 600 < farthest < 1100
    one = patient(7)
    grid = mr_grid_of(one, "medium")
    assert np.abs(np.abs(grid.axes) - np.eye(3)).max() > 0.01
    labels = labels_on(one, grid.respaced((3, 3, 4)), frame="mr").array_kji
    present = set(np.unique(labels))
    assert {BY_NAME[n].label for n in ("Brainstem", "Parotid_L", "Eye_PL")} <= present
    assert not {BY_NAME[n].label for n in ("Esophagus_S", "Cricopharyngeus", "Glottis")} & present


def test_the_mr_without_flow_has_dark_vessels_and_bright_fat():
    one = patient(7)
    grid = mr_grid_of(one, spacing_mm=(1.2, 1.2, 2.0))
    mr, labels = render_mr(one, grid).array_kji, labels_on(one, grid, frame="mr").array_kji
    carotid = np.median(mr[labels == BY_NAME["A_Carotid_L"].label])
    parotid = np.median(mr[labels == BY_NAME["Parotid_L"].label])
    assert carotid < 0.6 * parotid


def test_missing_organs_are_not_labelled_and_leave_the_image_as_it_was():
    grid = Grid((60, 50, 20), (3, 3, 4), (-90, -110, -20))
    whole, partial = (labels_on(patient(8, missing=missing), grid) for missing in ((), ("optic chiasm",)))
    label_of_chiasm = BY_NAME["OpticChiasm"].label
    assert not (partial.array_kji == label_of_chiasm).any()
    same = whole.array_kji != label_of_chiasm
    assert np.array_equal(whole.array_kji[same], partial.array_kji[same])


def test_masks_are_made_from_the_labels_when_asked_for():
    masks = case(3).masks
    assert set(masks) <= {organ.name for organ in ORGANS}
    assert np.array_equal(masks["Brainstem"].array_kji, case(3).labels.array_kji == BY_NAME["Brainstem"].label)
    assert masks["Brainstem"].array_kji.dtype == np.uint8


def test_fillings_streak_through_their_own_slices_only():
    grid = Grid((80, 60, 40), (1.2, 1.2, 2.0), (-48.0, -95.0, -100.0))
    with_metal, without = (
        render_ct(patient(9, dental_metal=probability, mask_shell=0.0), grid)[0].array_kji.astype(float)
        for probability in (1.0, 0.0)
    )
    change = (with_metal - without).std(axis=(1, 2))
    heights = grid.to_lps([[0, 0, k] for k in range(40)])[:, 2]
    assert change[np.abs(heights + 46) < 6].max() > 40
    assert change[heights < -75].max() == 0


@pytest.mark.parametrize(
    "wrong", [{"dental_metal": 1.2}, {"variation": -1}, {"contrast": (250, 150)}, {"jaw_degrees": 40}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, object]):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        PhantomOptions(**wrong)  # type: ignore[arg-type]


def test_an_unknown_size_or_frame_is_refused():
    with pytest.raises(ConfigError, match="small, medium, full"):
        ct_grid_of(average_patient(), "huge")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'ct' or 'mr'"):
        labels_on(average_patient(), Grid((4, 4, 4)), frame="pet")  # type: ignore[arg-type]


def test_the_full_size_is_that_of_hanseg():
    one = patient(10)
    ct, mr = ct_grid_of(one, "full"), mr_grid_of(one, "full")
    assert ct.size_ijk == (1024, 1024, 202)
    assert ct.spacing_mm == (0.56, 0.56, 2.0)
    assert mr.size_ijk[:2] == (512, 512)
    assert mr.size_ijk[2] <= 83
