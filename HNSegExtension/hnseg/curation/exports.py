"""The curated cases as others read them: nnU-Net v2's raw format, and a MONAI data list."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnseg.curation import record as names
from hnseg.curation.intensity import NyulStandard, Window, within
from hnseg.curation.record import CaseRecord, write_json
from hnseg.curation.splits import Splits
from hnseg.errors import OutputError
from hnseg.image.files import read_volume, write_volume
from hnseg.image.segmentation import read_segmentation
from hnseg.image.volume import Volume
from hnseg.organs import ORGANS
from hnseg.version import RESEARCH_USE

NNUNET, DATASET = "nnunet", "Dataset501_HNSeg"
ENDING = ".nrrd"
_FIRST_TARGET = len(ORGANS) + 1


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What every exported case has: the channels in order, and each structure's label, consecutive from 1.

    ``windows``: channel name → the window through which it shows the CT; without any, the channel ``CT`` is in HU.
    ``source_labels`` are their values in ``labels.nrrd``. ``ignore`` is nnU-Net's ignore label; None if no case has an
    ignored mask.
    """

    channels: tuple[str, ...]
    structures: tuple[str, ...]
    source_labels: tuple[int, ...]
    ignore: int | None
    windows: Mapping[str, Window] = field(default_factory=dict)

    @classmethod
    def of(cls, cases: Sequence[CaseRecord], windows: Sequence[Window] = ()) -> ExportPlan:
        """All structures that some case has annotated, organs in the table's order, then targets."""
        values = {organ.name: organ.label for organ in ORGANS}
        targets = dict.fromkeys(target for case in cases for target in case.targets)
        values |= {target: _FIRST_TARGET + n for n, target in enumerate(targets)}
        annotated = {name for case in cases for name in case.annotated}
        structures = tuple(name for name in values if name in annotated)
        named = {window.channel: window for window in windows}
        channels = (
            *(named or ("CT",)),
            *(("MR",) if any(c.mr for c in cases) else ()),
            *(("PET",) if any(c.pet for c in cases) else ()),
        )
        ignore = len(structures) + 1 if any(case.ignored for case in cases) else None
        return cls(channels, structures, tuple(values[name] for name in structures), ignore, named)

    @property
    def table(self) -> NDArray[np.uint8]:
        """Value in ``labels.nrrd`` → label in the export."""
        table = np.zeros(256, np.uint8)
        table[list(self.source_labels)] = np.arange(1, len(self.structures) + 1)
        return table

    @property
    def keeps_labels(self) -> bool:
        """Whether the labels are those of ``labels.nrrd``."""
        return self.source_labels == tuple(range(1, len(self.structures) + 1))

    def labels(self) -> dict[str, int]:
        """Names and labels as nnU-Net's ``dataset.json`` has them."""
        known = {"background": 0, **{name: n for n, name in enumerate(self.structures, 1)}}
        return known if self.ignore is None else {**known, "ignore": self.ignore}


def export_nnunet(
    cases: Sequence[CaseRecord],
    splits: Splits,
    out: Path,
    *,
    nyul: NyulStandard | None = None,
    windows: Sequence[Window] = (),
    on_progress: Callable[[float, str], None] = lambda fraction, text: None,
) -> ExportPlan:
    """Write ``nnunet/Dataset501_HNSeg`` beside ``cases``, anew each time and only when it is whole.

    Unchanged images are hard links where the file system has them, so they cost no room. A case without an MR has
    zeros for it. With ``nyul`` the MRs are brought to the cohort's scale, with ``windows`` the CT is shown through each
    (−1…1, float32). ``splits_final.json`` goes into nnU-Net's preprocessed folder. Raises ``OutputError``.
    """
    plan = ExportPlan.of(cases, windows)
    partial, target = out / f".{NNUNET}.partial", out / NNUNET
    shutil.rmtree(partial, ignore_errors=True)
    root = partial / DATASET
    try:
        for kind in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (root / kind).mkdir(parents=True)
        for n, case in enumerate(cases):
            on_progress(n / len(cases), f"Exporting {case.name} for nnU-Net")
            _export_case(case, out / "cases" / case.name, root, "Ts" if case.name in splits.test else "Tr", plan, nyul)
        write_json(_dataset_json(plan, len(splits.train)), root / "dataset.json")
        write_json([{"train": f.train, "val": f.validation} for f in splits.folds], root / "splits_final.json")
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    except OSError as error:
        raise OutputError(
            f"The export cannot be written to {target} ({error.strerror}); make room and repeat."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return plan


def export_monai(plan: ExportPlan, splits: Splits, out: Path) -> None:
    """Write ``datalist.json``, for MONAI's ``load_decathlon_datalist``: the nnU-Net export's files with their folds."""
    fold_of = {name: n for n, fold in enumerate(splits.folds) for name in fold.validation}
    training = [_item(name, "Tr", plan) | {"fold": fold_of.get(name, 0)} for name in splits.train]
    testing = [_item(name, "Ts", plan) for name in splits.test]
    labels = {str(value): name for name, value in plan.labels().items()}
    modality = {str(n): channel for n, channel in enumerate(plan.channels)}
    content = {"name": "HNSeg", "description": RESEARCH_USE, "modality": modality, "labels": labels}
    write_json({**content, "training": training, "testing": testing}, out / "datalist.json")


def _item(name: str, kind: str, plan: ExportPlan) -> dict[str, Any]:
    base = f"{NNUNET}/{DATASET}"
    images = [f"{base}/images{kind}/{name}_{n:04d}{ENDING}" for n in range(len(plan.channels))]
    return {"image": images, "label": f"{base}/labels{kind}/{name}{ENDING}"}


def _dataset_json(plan: ExportPlan, training: int) -> dict[str, Any]:
    return {
        "channel_names": {str(n): channel for n, channel in enumerate(plan.channels)},
        "labels": plan.labels(),
        "numTraining": training,
        "file_ending": ENDING,
        "overwrite_image_reader_writer": "SimpleITKIO",
        "name": "HNSeg",
        "description": RESEARCH_USE,
    }


def _export_case(
    case: CaseRecord, folder: Path, root: Path, kind: str, plan: ExportPlan, nyul: NyulStandard | None
) -> None:
    images = {
        channel: root / f"images{kind}" / f"{case.name}_{n:04d}{ENDING}" for n, channel in enumerate(plan.channels)
    }
    if plan.windows:
        ct = read_volume(folder / names.CT)
        for channel, window in plan.windows.items():
            write_volume(ct.with_array(window.apply(ct.array_kji)), images.pop(channel))
    for channel, image in images.items():
        _CHANNELS[channel](case, folder, image, nyul)
    labels = root / f"labels{kind}" / f"{case.name}{ENDING}"
    if plan.keeps_labels and not case.ignored:
        _link(folder / names.LABELS, labels)
    else:
        write_volume(_export_labels(case, folder, plan), labels)


def _export_ct(case: CaseRecord, folder: Path, target: Path, nyul: NyulStandard | None) -> None:
    _link(folder / names.CT, target)


def _export_mr(case: CaseRecord, folder: Path, target: Path, nyul: NyulStandard | None) -> None:
    if case.mr is None:
        write_volume(Volume(np.zeros(case.grid.shape_kji, np.int16), case.grid), target)
    elif nyul is None:
        _link(folder / names.MR, target)
    else:
        mr, valid = read_volume(folder / names.MR), read_volume(folder / names.MR_VALID)
        scale = nyul.scale(case.mr.scales.landmarks)
        write_volume(mr.with_array(within(scale, mr.array_kji, valid.array_kji > 0)), target)


def _export_pet(case: CaseRecord, folder: Path, target: Path, nyul: NyulStandard | None) -> None:
    if case.pet:
        _link(folder / names.PET, target)
    else:
        write_volume(Volume(np.zeros(case.grid.shape_kji, np.float32), case.grid), target)


_CHANNELS: Mapping[str, Callable[[CaseRecord, Path, Path, NyulStandard | None], None]] = {
    "CT": _export_ct, "MR": _export_mr, "PET": _export_pet,
}  # fmt: skip


def _export_labels(case: CaseRecord, folder: Path, plan: ExportPlan) -> Volume:
    labels = read_volume(folder / names.LABELS)
    exported = plan.table[labels.array_kji]
    if case.ignored and plan.ignore is not None:
        segmentation = read_segmentation(folder / names.SEGMENTATION)
        for name in case.ignored:
            exported[segmentation.mask(name).array_kji & (exported == 0)] = plan.ignore
    return labels.with_array(exported)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
