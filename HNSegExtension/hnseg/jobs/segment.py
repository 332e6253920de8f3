"""One request, from files to files. The command line runs it here, the worker runs it warm.

What needs PyTorch is imported once the images are read and found usable: a refusal must not cost seconds of imports.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import SimpleITK as sitk

from hnseg.evaluation.compare import compare
from hnseg.image.checks import check_pair
from hnseg.image.files import read_image, read_transform, write_transform, write_volume
from hnseg.image.segmentation import Segmentation, read_segmentation, write_segmentation
from hnseg.image.volume import Volume
from hnseg.jobs.request import SEGMENTATION, SegmentOutcome, SegmentRequest
from hnseg.jobs.staging import Staging, staged
from hnseg.jobs.worker import Job
from hnseg.models.places import find_bundle
from hnseg.organs import BY_NAME
from hnseg.reporting.record import (
    ImageRecord,
    ModelRecord,
    OrganRecord,
    RegistrationRecord,
    RemovalRecord,
    RunRecord,
    ScoreRecord,
    write_record,
)
from hnseg.terminology import MODEL_TAG, TAUGHT_TAG, taught_words
from hnseg.version import __version__

if TYPE_CHECKING:
    from torch import nn

    from hnseg.inference.segment import SegmentResult
    from hnseg.models.bundle import Bundle

DEFAULT_MODEL = "hnseg-base"
"""The model that ships."""

OnProgress = Callable[[float, str], None]


class ModelCache:
    """Keeps the networks that were used last; another model or device takes their place."""

    def __init__(self) -> None:
        self._key = ("", "")
        self._networks: tuple[nn.Module, ...] = ()

    def networks(self, bundle: Bundle, device: str) -> tuple[nn.Module, ...]:
        """The bundle's networks on that device, loaded only if they are not the last ones."""
        from hnseg.inference.devices import pick_device

        key = (bundle.digest, str(pick_device(device)))
        if not self._networks or self._key != key:
            self._networks = ()  # the old ones go first: both may not fit
            self._networks, self._key = bundle.load_networks(key[1]), key
        return self._networks


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """What a request's files hold."""

    ct: Volume
    mr: Volume | None = None
    ct_to_mr: sitk.Transform | None = None
    reference: Segmentation | None = None
    notes: tuple[str, ...] = ()
    """What a person should know of how the images were read, such as a gantry tilt."""


def run_segment(
    request: SegmentRequest, on_progress: OnProgress | None = None, *, models: ModelCache | None = None
) -> SegmentOutcome:
    """Segment one patient and write what was asked for: all of it, or, on any error or interrupt, nothing.

    Raises ``HNSegError``; whatever ``on_progress`` raises passes through.
    """
    clock = _Clock(on_progress or (lambda _fraction, _text: None))
    given = tuple(path for path in (request.ct, request.mr, request.transform, request.reference) if path)
    with staged(*request.output_files, folders=request.output_folders, inputs=given) as staging:
        with clock.stage("reading", 0.0, 0.05, "Reading the images"):
            find_bundle(request.model or DEFAULT_MODEL)
            images = read_images(request)
            check_pair(images.ct, images.mr)  # what it warns of, the engine says
        with clock.stage("starting", 0.05, 0.07, "Starting the engine"):
            from hnseg.inference.segment import SegmentOptions, segment
            from hnseg.models.bundle import open_bundle

            bundle = open_bundle(request.model or DEFAULT_MODEL)
        with clock.stage("segmentation", 0.07, 0.85, "Segmenting"):
            result = segment(
                images.ct,
                images.mr,
                bundle=bundle,
                options=SegmentOptions(
                    organs=request.organs,
                    device=request.device,
                    precision=request.precision,
                    mirror=request.mirror,
                    uncertainty=request.uncertainty is not None,
                ),
                ct_to_mr=images.ct_to_mr,
                networks=(models or ModelCache()).networks(bundle, request.device),
                on_progress=clock.within,
            )
        with clock.stage("writing", 0.85, 0.90, "Writing the organs"):
            _write_organs(result, request, staging)
            if request.uncertainty and result.uncertainty is not None:
                write_volume(result.uncertainty, staging.place_for(request.uncertainty))
            if request.transform_output and result.ct_to_mr is not None:
                write_transform(result.ct_to_mr, staging.place_for(request.transform_output))
            scores = _scores(result, images)
        record = make_record(request, images, result, scores, seconds=clock.seconds)
        if request.report:
            with clock.stage("report", 0.90, 1.0, "Drawing the report"):
                _write_report(record, images, result, staging.place_for(request.report), clock.within)
        if request.report_json:
            write_record(record, staging.place_for(request.report_json))
        staging.commit()
    clock.within(1.0, "Done")
    return SegmentOutcome(request.output, record)


def worker_jobs() -> Mapping[str, Job]:
    """What the worker process offers, sharing one model cache. The engine is imported now: a worker is to be warm."""
    import_module("hnseg.inference.segment")
    models = ModelCache()

    def run(data: Mapping[str, Any], on_progress: OnProgress) -> Any:
        return run_segment(SegmentRequest.from_json(data), on_progress, models=models).to_json()

    def load(data: Mapping[str, Any], on_progress: OnProgress) -> Any:
        from hnseg.models.bundle import open_bundle

        on_progress(0.0, "Loading the model")
        models.networks(open_bundle(data.get("model") or DEFAULT_MODEL), str(data.get("device", "auto")))

    return {SegmentRequest.job: run, "load": load}


def read_images(request: SegmentRequest) -> Images:
    """Everything that the request names, read before the work, so that a bad file costs no time."""
    notes: list[str] = []
    return Images(
        ct=read_image(request.ct, modality="CT", on_note=notes.append),
        mr=read_image(request.mr, modality="MR", on_note=notes.append) if request.mr else None,
        ct_to_mr=read_transform(request.transform) if request.transform else None,
        reference=read_segmentation(request.reference) if request.reference else None,
        notes=tuple(notes),
    )


def make_record(
    request: SegmentRequest,
    images: Images,
    result: SegmentResult,
    scores: tuple[ScoreRecord, ...],
    *,
    seconds: Mapping[str, float],
) -> RunRecord:
    """The run as it is written down; ``seconds`` are this module's own stages."""
    from hnseg.inference.review import result_warnings

    metadata = result.bundle.metadata
    given = {"ct": (request.ct, images.ct), "mr": (request.mr, images.mr if metadata.takes_mr else None)}
    return RunRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_versions(),
        device=result.device,
        model=ModelRecord(
            name=metadata.name,
            version=metadata.version,
            sha256=result.bundle.digest,
            licence=metadata.licence,
            training_data=metadata.training_data,
        ),
        inputs={
            role: ImageRecord(str(path), image.grid.size_ijk, image.grid.spacing_mm)
            for role, (path, image) in given.items()
            if image is not None
        },
        organs=tuple(_organ_records(result)),
        registration=_registration(result),
        removals=tuple(RemovalRecord(entry.organ, entry.ml, entry.reason) for entry in result.removals),
        scores=scores,
        warnings=(*images.notes, *result.warnings, *result_warnings(result.organs)),
        seconds={**_all_but(seconds, "segmentation"), **result.seconds},
        options={
            "organs": list(request.organs), "model": request.model, "device": request.device,
            "transform": request.transform, "reference": request.reference, "mirror": request.mirror,
            "precision": result.precision,
        },
    )  # fmt: skip


def _all_but(seconds: Mapping[str, float], name: str) -> dict[str, float]:
    """The whole of the segmentation is left out where its parts are listed: the figures can then be added up."""
    return {stage: value for stage, value in seconds.items() if stage != name}


def _organ_records(result: SegmentResult) -> Iterator[OrganRecord]:
    ranges = result.bundle.metadata.postprocess.ranges_ml
    for finding in result.organs:
        organ, sure = BY_NAME[finding.organ], finding.confidence
        yield OrganRecord(
            label=organ.label,
            name=organ.name,
            volume_ml=round(finding.ml, 4),
            range_ml=ranges.get(organ.name, organ.range_ml),
            confidence=_finite(sure.mean) if sure else None,
            boundary_confidence=_finite(sure.boundary) if sure else None,
            status=finding.status,
            notes=finding.notes,
            taught_by=finding.taught_by,
            expected_dsc=None if finding.expected_dsc is None else _finite(finding.expected_dsc),
        )


def _registration(result: SegmentResult) -> RegistrationRecord | None:
    found = result.registration
    if found is None:
        return None
    figures = {name: getattr(found.metrics, name) for name in found.metrics.__dataclass_fields__}
    return RegistrationRecord(
        verdict=found.verdict,
        reason=found.reason,
        seconds=round(found.seconds, 3),
        used=result.ct_to_mr is not None,
        metrics={name: float(value) for name, value in figures.items() if isinstance(value, (int, float))},
    )


def _finite(value: float) -> float | None:
    return round(value, 4) if abs(value) < float("inf") else None


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "monai", "numpy", "SimpleITK")}
    return {"hnseg": __version__, "python": platform.python_version(), **packages}


def _write_organs(result: SegmentResult, request: SegmentRequest, staging: Staging) -> None:
    place = staging.place_for(request.output)
    if request.output.lower().endswith(SEGMENTATION):
        model = f"{result.bundle.metadata.name} {result.bundle.metadata.version}"
        organs = Segmentation.from_labels(result.labels, result.options.wanted)
        taught = {one.organ: {TAUGHT_TAG: taught_words(one.taught_by)} for one in result.organs if one.taught_by}
        write_segmentation(organs.tagged({MODEL_TAG: model}, taught), place)
    else:
        write_volume(result.labels, place)


def _scores(result: SegmentResult, images: Images) -> tuple[ScoreRecord, ...]:
    if images.reference is None:
        return ()
    scores = compare(Segmentation.from_labels(result.labels, result.options.wanted), images.reference)
    return tuple(ScoreRecord(row.organ, _finite(row.dsc), _finite(row.hd95_mm)) for row in scores.organs if row.scored)


def _write_report(
    record: RunRecord, images: Images, result: SegmentResult, folder: Path, on_progress: OnProgress
) -> None:
    from hnseg.reporting.report import ReportImages, write_run_report

    shown = ReportImages(
        ct=images.ct,
        labels=result.labels,
        mr=images.mr if result.ct_to_mr is not None else None,
        ct_to_mr=result.ct_to_mr,
        reference=images.reference.to_labels() if images.reference is not None else None,
    )
    write_run_report(folder, record, shown, on_progress=on_progress)


@dataclass(slots=True)
class _Clock:
    """Times the stages, and turns a stage's own progress into its part of the whole."""

    on_progress: OnProgress
    seconds: dict[str, float] = field(default_factory=dict)
    _span: tuple[float, float] = (0.0, 1.0)

    @contextmanager
    def stage(self, name: str, start: float, end: float, text: str) -> Iterator[None]:
        self._span = (start, end)
        self.within(0.0, text)
        begun = perf_counter()
        yield
        self.seconds[name] = round(perf_counter() - begun, 3)

    def within(self, fraction: float, text: str) -> None:
        start, end = self._span
        self.on_progress(start + fraction * (end - start), text)
