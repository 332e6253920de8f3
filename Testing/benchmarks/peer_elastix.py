"""elastix as a process of its own, for ``bench_deformable.py``: with SimpleITK in one process, itk-elastix crashes.

    python peer_elastix.py FOLDER ITERATIONS

FOLDER holds ``fixed.nrrd``, ``moving.nrrd`` and ``points.npy`` ((N, 3), fixed image, LPS mm); ``moved.npy`` and
``seconds.txt`` are written. Rigid, then a three-level B-spline, with the settings of the elastix model zoo's Par0023
(Leibfarth et al., Acta Oncologica 52, 2013: CT and MR of head and neck; 5000 iterations per level). Two things differ:
the pyramid's last factor is 1 and not 0.5, as elastix takes whole numbers there, and samples come from all of the fixed
image, not from a random cube of 40 mm, which ends the run as soon as a cube meets no MR.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import itk
import numpy as np

COMMON = {
    "FixedImagePyramid": ["FixedSmoothingImagePyramid"], "MovingImagePyramid": ["MovingSmoothingImagePyramid"],
    "Interpolator": ["BSplineInterpolator"], "BSplineInterpolationOrder": ["1"],
    "ResampleInterpolator": ["FinalBSplineInterpolator"], "Resampler": ["DefaultResampler"],
    "Optimizer": ["AdaptiveStochasticGradientDescent"], "HowToCombineTransforms": ["Compose"],
    "NumberOfResolutions": ["3"], "ImagePyramidSchedule": ["8", "8", "2", "4", "4", "1", "1", "1", "1"],
    "NewSamplesEveryIteration": ["true"], "RequiredRatioOfValidSamples": ["0.05"], "WriteResultImage": ["false"],
    "DefaultPixelValue": ["0"],
}  # fmt: skip
RIGID = COMMON | {
    "Registration": ["MultiResolutionRegistration"], "Transform": ["EulerTransform"],
    "Metric": ["AdvancedMattesMutualInformation"], "AutomaticScalesEstimation": ["true"],
    "AutomaticTransformInitialization": ["false"], "NumberOfHistogramBins": ["64"],
    "MaximumNumberOfIterations": ["500"], "MaximumStepLength": ["1.0"], "NumberOfSpatialSamples": ["2000"],
    "ImageSampler": ["Random"],
}  # fmt: skip
SPLINE = COMMON | {
    "Registration": ["MultiMetricMultiResolutionRegistration"], "Transform": ["BSplineTransform"],
    "Metric": ["AdvancedMattesMutualInformation", "TransformBendingEnergyPenalty"], "Metric0Weight": ["1"],
    "Metric1Weight": ["50"], "FinalGridSpacingInPhysicalUnits": ["15"], "GridSpacingSchedule": ["4", "2", "1"],
    "NumberOfHistogramBins": ["60"], "NumberOfSpatialSamples": ["10000"],
    "ImageSampler": ["MultiInputRandomCoordinate"], "UseRandomSampleRegion": ["false"],
    "MaximumNumberOfSamplingAttempts": ["5"],
}  # fmt: skip


def main(folder: Path, iterations: int) -> None:
    """Register, then move the points."""
    fixed, moving = (itk.imread(str(folder / f"{name}.nrrd"), itk.F) for name in ("fixed", "moving"))
    parameters = itk.ParameterObject.New()
    for level in (RIGID, SPLINE | {"MaximumNumberOfIterations": [str(iterations)]}):
        parameters.AddParameterMap(level)
    begun = time.perf_counter()
    _, found = itk.elastix_registration_method(fixed, moving, parameter_object=parameters, number_of_threads=1)
    (folder / "seconds.txt").write_text(str(time.perf_counter() - begun))
    np.save(folder / "moved.npy", transformed(np.load(folder / "points.npy"), fixed, found))


def transformed(points: np.ndarray, fixed: Any, found: Any) -> np.ndarray:
    """Points of the fixed image (N, 3), by the transform that elastix found."""
    mesh = itk.Mesh[itk.F, 3].New()
    for n, point in enumerate(points.tolist()):
        mesh.SetPoint(n, point)
    filter_ = itk.TransformixFilter.New(Input=fixed, TransformParameterObject=found)
    filter_.SetMovingImage(fixed)
    filter_.SetInputMesh(mesh)
    filter_.Update()
    moved = filter_.GetOutputMesh()
    return np.array([list(moved.GetPoint(n)) for n in range(len(points))])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
