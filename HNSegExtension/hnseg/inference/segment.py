"""One patient, end to end: CT (+ MR) in, organ labels on the CT grid out, with everything that a reader must know."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import get_args

import numpy as np
import SimpleITK as sitk
from torch import nn

from hnseg.errors import ConfigError
from hnseg.image.checks import check_pair
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.inference.confidence import Confidence
from hnseg.inference.devices import Precision, cpu_threads, pick_device
from hnseg.inference.locate import head_and_neck
from hnseg.inference.mirror import Mirrored
from hnseg.inference.orientation import orientation_warnings
from hnseg.inference.postprocess import Removal, postprocess
from hnseg.inference.predictor import Prediction, predict_labels
from hnseg.inference.review import OrganFinding, input_warnings, review_organs
from hnseg.inference.second_look import Patient, look_again, share
from hnseg.inference.tiles import TileSettings
from hnseg.inference.untrained import without_untrained
from hnseg.models.bundle import Bundle
from hnseg.models.metadata import BundleMetadata, FineStage
from hnseg.models.nnunet_input import nnunet_input
from hnseg.organs import ORGANS, Organ, find_organs
from hnseg.preprocessing import NetworkInput, preprocess
from hnseg.registration.rigid import Registration, register_rigid

OnProgress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class SegmentOptions:
    """``organs``: those wanted, empty means all. ``overlap``: of windows; None is the model's own. ``threads``: CPU
    threads, None leaves the choice to PyTorch. ``precision``: ``full`` keeps the network to float32 where it could be
    faster with a shorter format. ``mirror``: average over the left-right mirror image too, at twice the time.
    ``uncertainty``: also give a map of it.
    """

    organs: tuple[str, ...] = ()
    device: str = "auto"
    overlap: float | None = None
    threads: int | None = None
    precision: Precision = "auto"
    mirror: bool = False
    uncertainty: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "organs", tuple(organ.name for organ in find_organs(self.organs)))
        if self.overlap is not None and not 0 <= self.overlap < 1:
            raise ConfigError(f"overlap lies in 0 … 1 (1 excluded), got {self.overlap}; 0.5 is usual.")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is at least 1, got {self.threads}; leave it out for PyTorch's own choice.")
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision is auto or full, got {self.precision!r}; auto is usual.")

    @property
    def wanted(self) -> tuple[Organ, ...]:
        """The organs asked for, in label order."""
        return find_organs(self.organs) if self.organs else ORGANS


@dataclass(frozen=True, slots=True, eq=False)
class SegmentResult:
    """What came out.

    ``labels``: uint8 organ labels on the CT's own grid. ``organs``: a finding for each wanted one. ``ct_to_mr``: the
    transform with which the MR was used (maps CT points to MR points, LPS mm), None if there was no MR or it was not
    used. ``registration``: None unless it was run here. ``mr_coverage``: share of the body that the MR reaches.
    ``seconds``: by stage. ``precision``: the number format of the network's products. ``uncertainty``: 1 − the first
    network's winning probability on its working grid, if asked for.
    """

    labels: Volume
    organs: tuple[OrganFinding, ...]
    bundle: Bundle
    device: str
    precision: str
    options: SegmentOptions
    registration: Registration | None = None
    ct_to_mr: sitk.Transform | None = None
    mr_coverage: float = 0.0
    removals: tuple[Removal, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    uncertainty: Volume | None = None

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each organ that was found."""
        return {finding.organ: finding.ml for finding in self.organs if finding.ml > 0}

    @property
    def confidence(self) -> dict[str, Confidence]:
        """Confidence of each organ that was found."""
        return {finding.organ: finding.confidence for finding in self.organs if finding.confidence is not None}


def segment(
    ct: Volume,
    mr: Volume | None = None,
    *,
    bundle: Bundle,
    options: SegmentOptions | None = None,
    ct_to_mr: sitk.Transform | None = None,
    networks: Sequence[nn.Module] = (),
    on_progress: OnProgress | None = None,
) -> SegmentResult:
    """Segment one patient on the CT's grid.

    ``ct``: HU. ``mr``: registered to the CT here, unless ``ct_to_mr`` says where it lies (maps CT points to MR points,
    LPS mm). An MR whose registration fails, or of which the model takes none, is not used, and a warning says so.
    ``networks``: the bundle's (``Bundle.load_networks``), if they are loaded already. Raises ``InputError`` for images
    that cannot be used, ``ModelError``, ``DeviceError``; whatever ``on_progress`` raises passes through.
    """
    options, settings = options or SegmentOptions(), bundle.metadata
    stages = _Stages(on_progress or (lambda _fraction, _sentence: None))
    device = pick_device(options.device)
    unused = _unused_warnings(mr, settings)
    mr = mr if settings.takes_mr else None
    with stages.stage("checks", 0.00, 0.02, "Checking the images"):
        warnings = [*unused, *check_pair(ct, mr)]
    with stages.stage("model", 0.02, 0.03, "Loading the model"):
        first, *fine = networks or bundle.load_networks(device)
    with stages.stage("location", 0.03, 0.06, "Finding the head and neck"), cpu_threads(options.threads):
        shown = head_and_neck(ct, settings, partial(_glance, first, settings, stages.report, options))
        warnings += _part_warnings(ct, shown)
    placed = _Placement(None, None, ())
    if mr is not None:
        with stages.stage("registration", 0.06, 0.25, "Registering the MR to the CT"):
            placed = _place(shown, mr, ct_to_mr, stages.report)
    with stages.stage("preprocessing", 0.25, 0.37, "Preparing the images"):
        used_mr = mr if placed.ct_to_mr is not None else None
        given = _prepared(shown, used_mr, placed.ct_to_mr, settings)
        body = Volume(given.body_kji, given.grid)
        warnings += [*placed.warnings, *input_warnings(ct, body, settings.limits)]
    with stages.stage("prediction", 0.37, 0.80, "Finding the organs"), cpu_threads(options.threads):
        prediction = _predict(first, settings, given, ct.grid, stages.report, options=options)
    early: tuple[Removal, ...] = ()
    if settings.stages:
        prediction, early = _without_strays(prediction, settings)
        patient = Patient(ct, used_mr, placed.ct_to_mr, given)
        with stages.stage("second look", 0.80, 0.92, "Looking again"), cpu_threads(options.threads):
            prediction = _look_again(prediction, patient, settings, fine, options, stages.report)
    with stages.stage("postprocessing", 0.92, 1.0, "Checking the organs"):
        warnings += orientation_warnings(prediction.labels, settings.organ_centres_mm)
        labels, removals = postprocess(prediction.labels, settings.postprocess, body, settings.atlas)
        labels = _only(labels, options.wanted)
        findings = review_organs(labels, settings, prediction.confidence, options.wanted)
    return SegmentResult(
        labels=labels,
        organs=findings,
        bundle=bundle,
        device=prediction.device,
        precision=prediction.precision,
        options=options,
        registration=placed.registration,
        ct_to_mr=placed.ct_to_mr,
        mr_coverage=_coverage(given, used_mr),
        removals=tuple(removal for removal in (*early, *removals) if _is_wanted(removal.organ, options.wanted)),
        warnings=(*warnings, *prediction.warnings, *_coverage_warnings(given, used_mr, settings)),
        seconds=stages.seconds,
        uncertainty=prediction.uncertainty,
    )


class _Stages:
    """Times the stages and turns each one's own progress into a part of the whole."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.seconds: dict[str, float] = {}
        self._on_progress = on_progress
        self._span = (0.0, 1.0)

    @contextmanager
    def stage(self, name: str, start: float, end: float, sentence: str) -> Iterator[None]:
        self._span = (start, end)
        self.report(0.0, sentence)
        begun = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - begun, 3)
        self.report(1.0, sentence)

    def report(self, fraction: float, sentence: str) -> None:
        start, end = self._span
        self._on_progress(start + fraction * (end - start), sentence)


@dataclass(frozen=True, slots=True, eq=False)
class _Placement:
    """Where the MR lies; ``ct_to_mr`` None means that it is not used."""

    ct_to_mr: sitk.Transform | None
    registration: Registration | None
    warnings: tuple[str, ...]


def _place(ct: Volume, mr: Volume, ct_to_mr: sitk.Transform | None, report: OnProgress) -> _Placement:
    if ct_to_mr is not None:
        return _Placement(ct_to_mr, None, ())
    found = register_rigid(ct, mr, on_progress=report)
    if found.verdict == "failed":
        said = f"The MR was not used, since it could not be registered to the CT: {found.reason}"
        return _Placement(None, found, (said,))
    if found.verdict == "doubtful":
        said = f"The MR was used, but its registration is doubtful; look at it before trusting organs: {found.reason}"
        return _Placement(found.transform, found, (said,))
    return _Placement(found.transform, found, ())


def _prepared(ct: Volume, mr: Volume | None, ct_to_mr: sitk.Transform | None, metadata: BundleMetadata) -> NetworkInput:
    if metadata.nnunet is not None:
        return nnunet_input(ct, mr, ct_to_mr, settings=metadata.nnunet)
    return preprocess(ct, mr, ct_to_mr, settings=metadata.preprocess)


def _predict(
    network: nn.Module,
    settings: BundleMetadata | FineStage,
    given: NetworkInput,
    output_grid: Grid,
    report: OnProgress,
    *,
    options: SegmentOptions,
) -> Prediction:
    of_nnunet = isinstance(settings, BundleMetadata) and settings.nnunet is not None
    tiles = TileSettings(
        settings.patch_kji,
        overlap=settings.overlap if options.overlap is None else options.overlap,
        padding=() if of_nnunet else settings.preprocess.padding,
        skip_outside_body=not of_nnunet,
        blend_logits=of_nnunet,
    )
    device = pick_device(options.device)
    if isinstance(settings, BundleMetadata):
        network = without_untrained(network, settings.labels, settings.trained_organs)
    # nnU-Net itself computes in float32 on a CPU, and the labels are to be its own.
    exact = of_nnunet and device.type == "cpu"
    return predict_labels(
        Mirrored(network, settings.label_values) if options.mirror else network,
        given,
        labels=settings.label_values,
        output_grid=output_grid,
        tiles=tiles,
        device=device,
        precision="full" if exact else options.precision,
        uncertainty=options.uncertainty,
        on_progress=report,
    )


def _glance(
    network: nn.Module,
    settings: BundleMetadata,
    report: OnProgress,
    options: SegmentOptions,
    given: NetworkInput,
    output_grid: Grid,
) -> Prediction:
    """The quickest prediction: each place is seen once."""
    quick = replace(options, overlap=0.0, mirror=False, uncertainty=False)
    return _predict(network, settings, given, output_grid, report, options=quick)


def _part_warnings(ct: Volume, shown: Volume) -> tuple[str, ...]:
    if shown is ct:
        return ()
    low, high = shown.grid.bounds_lps()
    return (
        f"Of this long scan only the head and neck were looked at, from z = {low[2]:.0f} to {high[2]:.0f} mm; "
        "longer organs end there.",
    )


def _without_strays(seen: Prediction, metadata: BundleMetadata) -> tuple[Prediction, tuple[Removal, ...]]:
    """Without what lies far from its place, so that the second look goes to the right one."""
    alone = replace(metadata.postprocess, inside_body=False, check_sides=False, largest_parts=False, fill_holes=False)
    labels, removals = postprocess(seen.labels, alone, atlas=metadata.atlas)
    return replace(seen, labels=labels), removals


def _look_again(
    seen: Prediction,
    patient: Patient,
    metadata: BundleMetadata,
    networks: Sequence[nn.Module],
    options: SegmentOptions,
    report: OnProgress,
) -> Prediction:
    """The first network's prediction with the organs of each stage as that stage's network sees them."""
    for n, (stage, network) in enumerate(zip(metadata.stages, networks, strict=True)):
        look = look_again(
            seen.labels,
            patient,
            stage,
            partial(_predict, network, stage, options=options),
            wanted=[organ.name for organ in options.wanted],
            centres_mm=metadata.organ_centres_mm,
            on_progress=share(report, n, len(metadata.stages)),
        )
        seen = replace(
            seen,
            labels=look.labels,
            confidence={**seen.confidence, **look.confidence},
            windows=seen.windows + sum(part.windows for part in look.predictions),
            warnings=tuple(dict.fromkeys([*seen.warnings, *(w for part in look.predictions for w in part.warnings)])),
        )
    return seen


def _only(labels: Volume, wanted: tuple[Organ, ...]) -> Volume:
    """The wanted organs alone."""
    if len(wanted) == len(ORGANS):
        return labels
    kept = np.zeros(256, np.uint8)
    for organ in wanted:
        kept[organ.label] = organ.label
    return labels.with_array(kept[labels.array_kji])


def _is_wanted(name: str, wanted: tuple[Organ, ...]) -> bool:
    return any(organ.name == name for organ in wanted)


def _coverage(given: NetworkInput, mr: Volume | None) -> float:
    """Share of the body that the MR reaches: where it has a scale, the last channel is its valid mask."""
    if mr is None or given.mr_scale is None or not given.body_kji.any():
        return 0.0
    return float(given.array_ckji[-1][given.body_kji].mean())


def _unused_warnings(mr: Volume | None, metadata: BundleMetadata) -> tuple[str, ...]:
    if mr is None or metadata.takes_mr:
        return ()
    return (f"The MR was left out, since the model {metadata.name} was trained on CT alone.",)


def _coverage_warnings(given: NetworkInput, mr: Volume | None, metadata: BundleMetadata) -> tuple[str, ...]:
    if mr is None or metadata.nnunet is not None or _coverage(given, mr) > 0:
        return ()
    return ("The MR shows nothing of the body that the CT shows, so it had no part in the result.",)
