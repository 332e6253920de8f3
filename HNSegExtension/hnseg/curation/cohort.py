"""What all cases together give: a scale for the MRs, splits, exports, and the manifest that vouches for them."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hnseg.curation.exports import DATASET, NNUNET, ExportPlan, export_monai, export_nnunet
from hnseg.curation.intensity import NyulStandard
from hnseg.curation.record import CaseRecord, write_json
from hnseg.curation.settings import CurationSettings
from hnseg.curation.splits import Features, Splits, make_splits
from hnseg.errors import InputError
from hnseg.organs import ORGANS
from hnseg.plain import from_plain, to_plain
from hnseg.version import RESEARCH_USE, __version__

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class CuratedCohort:
    """The good and doubtful cases' records, why others failed, and what was made of them."""

    layout: str
    settings: CurationSettings
    cases: tuple[CaseRecord, ...]
    failed: Mapping[str, str]
    notes: tuple[str, ...]
    splits: Splits
    nyul: NyulStandard | None
    plan: ExportPlan | None


def finish_cohort(
    layout: str,
    cases: Sequence[CaseRecord],
    failed: Mapping[str, str],
    *,
    settings: CurationSettings,
    out: Path,
    notes: Sequence[str] = (),
    on_progress: Callable[[float, str], None] = lambda fraction, text: None,
) -> CuratedCohort:
    """Split, export and write the manifest; equal cases give equal bytes. Raises ``OutputError``."""
    splits = make_splits(
        {case.name: features_of(case) for case in cases},
        subjects={case.name: case.subject for case in cases},
        test_share=settings.test_share,
        folds=settings.folds,
        seed=settings.seed,
    )
    nyul = settings.nyul or _nyul(cases, splits)
    plan = None
    if cases:
        chosen = nyul if settings.mr_scale == "nyul" else None
        plan = export_nnunet(cases, splits, out, nyul=chosen, windows=settings.ct_windows, on_progress=on_progress)
        export_monai(plan, splits, out)
    cohort = CuratedCohort(layout, settings, tuple(cases), dict(failed), tuple(notes), splits, nyul, plan)
    write_json(splits, out / "splits.json")
    write_json(_manifest(cohort), out / MANIFEST)
    return cohort


def features_of(case: CaseRecord) -> Features:
    """What the case has and lacks."""
    organs = {f"{'+' if organ.name in case.annotated else '-'}{organ.name}" for organ in ORGANS}
    return frozenset({*organs, *(f"+{target}" for target in case.targets), "+MR" if case.mr else "-MR"})


def versions() -> dict[str, str]:
    """Of everything that has a hand in the voxels."""
    packages = {name: version(name) for name in ("numpy", "scipy", "SimpleITK", "pydicom")}
    return {"hnseg": __version__, "python": platform.python_version(), **packages}


def read_nyul_standard(manifest: str | Path) -> NyulStandard:
    """The scale that an earlier curation kept in its manifest. Raises ``InputError`` where there is none."""
    place = Path(manifest)
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))["nyul"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"No Nyúl standard can be read from {place} ({error}); give the manifest.json of a curation with MRs."
        ) from None
    if kept is None:
        raise InputError(f"{place} holds no Nyúl standard, as no training case there had an MR; give another manifest.")
    return from_plain(NyulStandard, kept, where=f"The Nyúl standard of {place}")


def _nyul(cases: Sequence[CaseRecord], splits: Splits) -> NyulStandard | None:
    """Fitted on the training cases, so that the test cases stay unseen."""
    landmarks = [case.mr.scales.landmarks for case in cases if case.mr and case.name in splits.train]
    return NyulStandard.fit(landmarks) if landmarks else None


def _manifest(cohort: CuratedCohort) -> dict[str, Any]:
    return {
        "versions": versions(),
        "note": RESEARCH_USE,
        "layout": cohort.layout,
        "settings": to_plain(cohort.settings),
        "cases": {case.name: _case(case) for case in cohort.cases},
        "failed": dict(cohort.failed),
        "notes": list(cohort.notes),
        "splits": to_plain(cohort.splits),
        "nyul": to_plain(cohort.nyul),
        "exports": _exports(cohort.plan) if cohort.plan else None,
    }


def _exports(plan: ExportPlan) -> dict[str, Any]:
    places = {"nnunet": f"{NNUNET}/{DATASET}", "monai": "datalist.json"}
    return {**places, "channels": list(plan.channels), "labels": plan.labels()}


def _case(case: CaseRecord) -> dict[str, Any]:
    return {
        "status": case.status,
        "folder": f"cases/{case.name}",
        "sources": to_plain(case.sources),
        "registration": to_plain(case.alignment),
        "mr": case.mr is not None,
        "annotated": len(case.annotated),
        "ignored": list(case.ignored),
        "missing": [organ.name for organ in ORGANS if organ.name not in (*case.annotated, *case.ignored)],
        "remarks": [remark.text for remark in case.remarks],
    }
