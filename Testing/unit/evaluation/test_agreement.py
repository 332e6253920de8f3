"""Our figures against published ones and against other libraries' on the same masks."""

import json
import re
import shutil
import subprocess
import warnings

import numpy as np
import pytest
import SimpleITK as sitk
from real_data import real_data
from scipy import ndimage

from hnseg.evaluation import metrics
from hnseg.evaluation.boxes import cropped
from hnseg.evaluation.compare import score_organ
from hnseg.evaluation.surfaces import surface_distances
from hnseg.image.files import read_volume

SPACING = (0.9, 1.3, 2.5)


def pair_of_blobs(seed, shape=(14, 30, 36)):
    """Two rough, overlapping shapes with islands and holes, some of them at the border."""
    rng = np.random.default_rng(seed)
    base = ndimage.gaussian_filter(rng.standard_normal(shape), (1.5, 3, 3))
    other = base + 0.4 * base.std() * ndimage.gaussian_filter(rng.standard_normal(shape), 1) / 0.2
    return base > base.std() * 0.7, other > base.std() * 0.8


def box_around(mask):
    (box,) = ndimage.find_objects(mask.view(np.uint8))
    return box


def surface_distance_library():
    library = pytest.importorskip("surface_distance", reason="surface-distance is not installed: pip install it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from scipy.ndimage import filters, morphology  # noqa: F401  the library reaches them by names SciPy deprecates
    return library


@pytest.fixture
def deepmind(monkeypatch):
    """DeepMind's surface-distance, with the names that newer NumPy and SciPy have dropped."""
    library = surface_distance_library()
    if not hasattr(np, "Inf"):
        monkeypatch.setattr(np, "Inf", np.inf, raising=False)
    return library


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", range(4))
def test_surface_metrics_are_those_of_surface_distance(deepmind, seed):
    prediction, reference = pair_of_blobs(seed)
    ours = surface_distances(prediction, reference, SPACING)
    theirs = deepmind.compute_surface_distances(reference, prediction, SPACING[::-1])
    pairs = [
        (metrics.hausdorff(ours), deepmind.compute_robust_hausdorff(theirs, 100)),
        (metrics.hd95(ours), deepmind.compute_robust_hausdorff(theirs, 95)),
        (metrics.surface_dsc(ours, tolerance_mm=2.0), deepmind.compute_surface_dice_at_tolerance(theirs, 2.0)),
        (metrics.dsc(prediction, reference), deepmind.compute_dice_coefficient(reference, prediction)),
        *zip(metrics.directed_mean_distances(ours), deepmind.compute_average_surface_distance(theirs), strict=True),
    ]
    for mine, other in pairs:
        assert mine == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_overlap_and_volume_are_those_of_simpleitk(seed):
    prediction, reference = pair_of_blobs(seed)
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (reference, prediction)]
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    assert metrics.dsc(prediction, reference) == pytest.approx(overlap.GetDiceCoefficient(), abs=1e-12)
    assert metrics.iou(prediction, reference) == pytest.approx(overlap.GetJaccardCoefficient(), abs=1e-12)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy.*:FutureWarning")
@pytest.mark.parametrize("seed", range(2))
def test_boundary_voxel_distances_are_those_of_monai(seed):
    import torch
    from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance

    prediction, reference = pair_of_blobs(seed)
    ours = metrics.voxel_surface_distances(prediction, reference, SPACING)
    tensors = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (prediction, reference)]
    options = {"include_background": True, "spacing": list(SPACING[::-1])}
    hd = compute_hausdorff_distance(*tensors, **options)
    hd95 = compute_hausdorff_distance(*tensors, percentile=95, **options)
    asd = compute_average_surface_distance(*tensors, symmetric=True, **options)
    assert max(part.max() for part in ours) == pytest.approx(hd.item(), rel=1e-6)  # MONAI computes in float32
    assert max(np.percentile(part, 95) for part in ours) == pytest.approx(hd95.item(), rel=1e-6)
    assert np.concatenate(ours).mean() == pytest.approx(asd.item(), rel=1e-6)
    assert metrics.dsc(prediction, reference) == pytest.approx(compute_dice(*tensors).item(), abs=1e-6)


@pytest.mark.skipif(
    shutil.which("plastimatch") is None, reason="plastimatch is not installed: apt-get install plastimatch"
)
@pytest.mark.parametrize("seed", range(2))
def test_boundary_voxel_distances_are_those_that_slicerrt_has_from_plastimatch(tmp_path, seed):
    # Away from the image's border, whose voxels plastimatch does not count as boundary. It averages both directions.
    masks = {}
    for name, mask in zip(("compared", "reference"), pair_of_blobs(seed), strict=True):
        masks[name] = np.pad(mask[2:-2, 2:-2, 2:-2], 2)
        image = sitk.GetImageFromArray(masks[name].astype(np.uint8))
        image.SetSpacing(SPACING)
        sitk.WriteImage(image, str(tmp_path / f"{name}.mha"))
    command = ["plastimatch", "dice", "--all", tmp_path / "reference.mha", tmp_path / "compared.mha"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    theirs = {name.strip(): float(value) for name, value in re.findall(r"^(.*?)[:=]\s+([\d.]+)$", said, re.MULTILINE)}
    there, back = metrics.voxel_surface_distances(masks["compared"], masks["reference"], SPACING)
    ours = {
        "DICE": metrics.dsc(masks["compared"], masks["reference"]),
        "Hausdorff distance (boundary)": max(there.max(), back.max()),
        "Avg average Hausdorff distance (boundary)": (there.mean() + back.mean()) / 2,
        "Percent (0.95) Hausdorff distance (boundary)": (np.percentile(there, 95) + np.percentile(back, 95)) / 2,
    }
    for name, value in ours.items():
        assert value == pytest.approx(theirs[name], abs=1.1e-6), name  # six decimals are printed


def test_simpleitks_hausdorff_distance_is_that_of_whole_masks():
    # ITK measures from every voxel of a mask, not from its boundary, so that the two agree where the farthest voxel of
    # each mask is a boundary voxel and the nearest one of the other is, too: on shapes that do not contain each other.
    prediction, reference = np.zeros((8, 20, 24), bool), np.zeros((8, 20, 24), bool)
    reference[2:5, 3:9, 4:10], prediction[3:6, 10:15, 12:20] = True, True
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (prediction, reference)]
    for image in images:
        image.SetSpacing(SPACING)
    theirs = sitk.HausdorffDistanceImageFilter()
    theirs.Execute(*images)
    ours = metrics.voxel_surface_distances(prediction, reference, SPACING)
    assert max(part.max() for part in ours) == pytest.approx(theirs.GetHausdorffDistance(), abs=1e-6)


@pytest.mark.real_data
def test_published_surface_distance_vectors_are_met():
    cases = json.loads((real_data() / "metric_vectors" / "vectors.json").read_text())
    published = {case["name"]: case for key in cases if key.startswith("surface_distance") for case in cases[key]}
    two = published["3D two voxels 2 mm apart"]
    reference, prediction = np.zeros((128,) * 3, bool), np.zeros((128,) * 3, bool)
    reference[50, 60, 70] = prediction[50, 60, 72] = True
    _check_vector(two, prediction, reference, places=7)
    cubes = published["3D two cubes shifted by one"]
    reference, prediction = np.zeros((100,) * 3, bool), np.zeros((100,) * 3, bool)
    reference[0:50], prediction[0:51] = True, True
    _check_vector(cubes, prediction, reference, places=3)


def _check_vector(case, prediction, reference, *, places):
    # The vectors' spacing belongs to the array's own axes, first to last.
    distances = surface_distances(prediction, reference, tuple(case["spacing"][::-1]))
    tolerance = 0.5 * 10**-places
    assert metrics.directed_mean_distances(distances) == pytest.approx(case["asd"], abs=tolerance)
    assert metrics.hausdorff(distances) == pytest.approx(case["hd100"], abs=tolerance)
    assert metrics.hd95(distances) == pytest.approx(case["hd95"], abs=tolerance)
    assert metrics.surface_dsc(distances, tolerance_mm=1.0) == pytest.approx(case["surface_dice_1mm"], abs=tolerance)
    assert metrics.dsc(prediction, reference) == pytest.approx(case["dice"], abs=max(tolerance, 0.5e-2))


@pytest.mark.real_data
def test_published_empty_cases_are_met_but_for_two_empty_masks():
    one, none = np.zeros((8, 9, 10), bool), np.zeros((8, 9, 10), bool)
    one[4, 4, 4] = True
    for prediction, reference in ((none, one), (one, none)):
        distances = surface_distances(prediction, reference, (1.0, 2.0, 3.0))
        assert metrics.hausdorff(distances) == metrics.hd95(distances) == np.inf
        assert metrics.surface_dsc(distances, tolerance_mm=1.0) == 0.0
        assert metrics.dsc(prediction, reference) == 0.0
    # surface-distance calls the distance of two empty masks inf; here it is nan, as nothing was measured.
    assert np.isnan(metrics.hd95(surface_distances(none, none, (1.0, 2.0, 3.0))))
    assert np.isnan(metrics.dsc(none, none))


@pytest.mark.real_data
def test_the_published_hausdorff_distance_of_monais_spheres_is_met():
    published = json.loads((real_data() / "metric_vectors" / "vectors.json").read_text())
    (case,) = next(cases for key, cases in published.items() if key.startswith("MONAI"))
    index = np.indices((99,) * 3)
    a, b = (sum((axis - c) ** 2 for axis in index) <= 20**2 for c in (20, 19))
    assert metrics.hausdorff(surface_distances(a, b, (1, 1, 1))) == pytest.approx(case["hd_euclidean"], abs=1e-9)
    there, back = metrics.voxel_surface_distances(a, b, (1, 1, 1))
    assert max(there.max(), back.max()) == pytest.approx(case["hd_euclidean"], abs=1e-9)


@pytest.mark.real_data
def test_the_published_dscs_and_volumes_of_fifteen_patients_are_met_exactly():
    folder = real_data() / "hntsmrg_dsc_vectors"
    published = json.loads((folder / "published.json").read_text())
    shared, total = {1: 0.0, 2: 0.0}, {1: 0.0, 2: 0.0}
    for case in published["cases"]:
        name = case["PatientID"]
        truth = read_volume(folder / "groundtruth_masks" / f"{name}_midRT_mask.nii.gz")
        predicted = read_volume(folder / "prediction_masks" / f"{name}_preRT_mask_registered.nii.gz")
        box = box_around((truth.array_kji > 0) | (predicted.array_kji > 0))
        for label in (1, 2):
            reference, prediction = truth.array_kji[box] == label, predicted.array_kji[box] == label
            dsc = metrics.dsc(prediction, reference)
            # The source reports 0 where both masks are empty; here such a pair has no DSC.
            expected = case[f"DSC{label}"] if reference.any() or prediction.any() else np.nan
            assert dsc == pytest.approx(expected, abs=1e-12, nan_ok=True), (name, label)
            assert metrics.volume_ml(reference, truth.grid) * 1000 == pytest.approx(case[f"vol_gt{label}"], rel=1e-6)
            shared[label] += metrics.volume_ml(reference & prediction, truth.grid)
            total[label] += metrics.volume_ml(reference, truth.grid) + metrics.volume_ml(prediction, truth.grid)
    for label, target in ((1, "GTVp"), (2, "GTVn")):
        assert 2 * shared[label] / total[label] == pytest.approx(published["aggregate"][target], rel=1e-9)


def check_observers(deepmind, patient, organ):
    folder = real_data() / "deepmind_oar_two_observers" / patient
    paths = [folder / who / f"{organ}.nrrd" for who in ("oncologist", "radiographer")]
    if not all(path.exists() for path in paths):
        return False
    first, second = (read_volume(path) for path in paths)
    if not (first.array_kji.any() and second.array_kji.any()):
        return False
    box = box_around((first.array_kji > 0) | (second.array_kji > 0))
    reference, prediction = first.array_kji[box] > 0, second.array_kji[box] > 0
    row = score_organ(organ, prediction, reference, cropped(first.grid, box), tolerance_mm=2.0)
    theirs = deepmind.compute_surface_distances(reference, prediction, first.grid.spacing_mm[::-1])
    assert row.hd95_mm == pytest.approx(deepmind.compute_robust_hausdorff(theirs, 95), abs=1e-6)
    assert row.hd_mm == pytest.approx(deepmind.compute_robust_hausdorff(theirs, 100), abs=1e-6)
    assert row.surface_dsc == pytest.approx(deepmind.compute_surface_dice_at_tolerance(theirs, 2.0), abs=1e-6)
    assert row.dsc == pytest.approx(deepmind.compute_dice_coefficient(reference, prediction), abs=1e-12)
    return True


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("organ", ["Parotid-Lt", "Cochlea-Rt", "Optic-Nerve-Lt"])
def test_two_observers_score_as_surface_distance_has_it(deepmind, organ):
    assert check_observers(deepmind, "0522c0057", organ)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("patient", ["0522c0057", "TCGA-CV-7236"])
def test_every_organ_of_two_observers_scores_as_surface_distance_has_it(deepmind, patient):
    organs = [
        path.stem for path in (real_data() / "deepmind_oar_two_observers" / patient / "oncologist").glob("*.nrrd")
    ]
    assert sum(check_observers(deepmind, patient, organ) for organ in organs) >= 19


def test_area_and_voxel_weighting_differ_on_anisotropic_grids():
    # A plate of one thick slice, 24 × 24 mm, whose prediction lacks a row. All its voxels are boundary voxels, and 24
    # of 576 of them, 4.2 %, are 1 mm away: HD95 by voxel is 0. By area the rim that is 1 mm away has 24 · 5 of 1632
    # mm², 7.4 %: HD95 by area is 1 mm.
    spacing = (1.0, 1.0, 5.0)
    reference, prediction = np.zeros((9, 30, 30), bool), np.zeros((9, 30, 30), bool)
    reference[4, 3:27, 3:27], prediction[4, 3:27, 3:26] = True, True
    by_voxel = max(np.percentile(part, 95) for part in metrics.voxel_surface_distances(prediction, reference, spacing))
    assert by_voxel == 0.0
    assert metrics.hd95(surface_distances(prediction, reference, spacing)) == 1.0
