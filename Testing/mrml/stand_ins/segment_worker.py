"""STAND-IN for the network only: a real worker process, real protocol and files, but labels come from CT // 10.

The model's name chooses what happens: "slow" never ends by itself, "refuses" raises, "dies" kills the process. An MR is
"found" 900, 20 and -3 mm from the CT.
"""

import os
import sys
import time

import SimpleITK as sitk

from hnseg.errors import WrongModality
from hnseg.image.files import read_transform, read_volume, write_transform, write_volume
from hnseg.jobs.request import SegmentOutcome, SegmentRequest
from hnseg.jobs.worker import serve
from hnseg.organs import ORGANS
from hnseg.reporting.record import ImageRecord, ModelRecord, OrganRecord, RegistrationRecord, RunRecord


def segment(plain, on_progress):
    request = SegmentRequest.from_json(plain)
    if request.model == "dies":
        os._exit(3)
    if request.model == "refuses":
        raise WrongModality("CT.nrrd is not a CT, got values from 0 to 1; choose the planning CT.")
    while request.model == "slow":
        on_progress(0.25, "Looking")
        time.sleep(0.02)
    on_progress(0.5, "Half way")
    ct = read_volume(request.ct)
    labels = (ct.array_kji // 10).astype("uint8")
    labels[~(labels <= 30)] = 0
    write_volume(ct.with_array(labels), request.output)
    if request.transform_output:
        write_transform(sitk.TranslationTransform(3, (900.0, 20.0, -3.0)), request.transform_output)
    return SegmentOutcome(request.output, record_of(request, ct)).to_json()


def record_of(request, ct):
    registration = None
    if request.mr:
        mr = read_volume(request.mr)
        given = request.transform and read_transform(request.transform).TransformPoint((1.0, 2.0, 3.0))
        registration = RegistrationRecord("good", f"MR origin {mr.grid.origin_lps}, given {given}.", 0.1, True)
    doubtful = OrganRecord(27, "Parotid_L", 99.0, (10, 56), status="check", notes=("99.0 mL is unusually large.",))
    return RunRecord(
        created="2025-01-01T00:00:00Z",
        versions={},
        device=request.device,
        model=ModelRecord("scripted", "1.0", "0" * 64, "Apache-2.0", "nothing"),
        inputs={"ct": ImageRecord(request.ct, ct.grid.size_ijk, ct.grid.spacing_mm)},
        organs=(doubtful, *(OrganRecord(o.label, o.name, 1.0, o.range_ml) for o in ORGANS if o.label != 27)),
        registration=registration,
        warnings=("The field of view ends above the shoulders.",),
        seconds={"total": 1.4},
    )


if __name__ == "__main__":
    sys.exit(serve({"segment": segment}))
