"""Patients in DICOM folders: the CT, the MR and the structure set that belong together."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pydicom

from hnseg.curation.sources import CaseSource, Rtstruct
from hnseg.errors import DicomSeriesError, HNSegError
from hnseg.image.dicom import SeriesInfo, list_series
from hnseg.image.files import is_dicom

_T1 = ("t1", "mprage", "vibe", "tfe")


def dicom_cases(folder: Path) -> Iterator[CaseSource]:
    """A case per child folder with a CT; the folder itself, if only it has all that one patient needs.

    Folders without any DICOM are passed over; one with DICOM but without a usable CT becomes a case that says so when
    it is read.
    """
    children = [child for child in sorted(folder.iterdir()) if child.is_dir() and _first_dicom(child)]
    with_ct = [child for child in children if any(s.modality == "CT" for s in _series(child))]
    several = len(with_ct) > 1 or (len(with_ct) == 1 and len(children) == 1)
    for place in children if several else ([folder] if _first_dicom(folder) else []):
        yield _case(place, folder)


def _case(place: Path, root: Path) -> CaseSource:
    name = place.name if place != root else place.resolve().name
    notes: list[str] = []
    series = _series(place)
    drawn = _structure_sets(place)
    if len(drawn) > 1:
        notes.append(f"{name} holds {len(drawn)} structure sets; {drawn[-1].name}, the last by name, was taken.")
    referred = _referred_series(drawn[-1]) if drawn else frozenset()
    ct, mr = _pick_ct(series, referred), _pick_t1(series, name, notes)
    if ct is None:
        return CaseSource(name, place, notes=tuple(notes))
    files = {role: _paths(one) for role, one in (("ct", ct), ("mr", mr)) if one is not None}
    return CaseSource(
        name=name,
        ct=files["ct"][0],
        mr=files["mr"][0] if mr else None,
        structures=Rtstruct(drawn[-1], files["ct"][0]) if drawn else None,
        subject=_subject(files["ct"][0]),
        series=files,
        notes=tuple(notes),
    )


def _series(place: Path) -> tuple[SeriesInfo, ...]:
    try:
        return list_series(place)
    except DicomSeriesError:
        return ()


def _pick_ct(series: Sequence[SeriesInfo], referred: frozenset[str]) -> SeriesInfo | None:
    """The one that the structures were drawn on, else the one with the most slices."""
    fitting = [one for one in series if one.modality == "CT" and not one.unfit]
    drawn_on = [one for one in fitting if one.uid in referred]
    return max(drawn_on or fitting, key=lambda one: len(one.slices), default=None)


def _pick_t1(series: Sequence[SeriesInfo], name: str, notes: list[str]) -> SeriesInfo | None:
    """The only MR, or of several the only one whose description says T1; none if that leaves it open."""
    fitting = [one for one in series if one.modality == "MR" and not one.unfit]
    if len(fitting) > 1:
        fitting = [one for one in fitting if any(word in one.description.lower() for word in _T1)]
        if len(fitting) != 1:
            notes.append(f"{name} holds several MR series and none or several are T1; no MR was taken.")
    return fitting[0] if len(fitting) == 1 else None


def _paths(series: SeriesInfo) -> tuple[Path, ...]:
    return tuple(part.path for part in series.slices)


def _structure_sets(place: Path) -> list[Path]:
    return [path for path in _dicom_files(place) if _header(path, "Modality") == "RTSTRUCT"]


def _referred_series(path: Path) -> frozenset[str]:
    from hnseg.dicomrt.rois import read_rois

    try:
        return frozenset(read_rois(path).series_uids)
    except HNSegError:  # which will be that case's reason when its structures are read
        return frozenset()


def _subject(path: Path) -> str:
    """A digest of the patient's ID: equal for one person, and naming nobody."""
    patient = _header(path, "PatientID")
    return hashlib.sha256(patient.encode()).hexdigest()[:16] if patient else ""


def _header(path: Path, keyword: str) -> str:
    try:
        return str(pydicom.dcmread(path, specific_tags=[keyword], stop_before_pixels=True).get(keyword, ""))
    except Exception:  # noqa: BLE001  a damaged file has no header to speak of; reading its series will say so
        return ""


def _first_dicom(place: Path) -> Path | None:
    return next(_dicom_files(place), None)


def _dicom_files(place: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(place):
        folders.sort()
        yield from (path for name in sorted(names) if is_dicom(path := Path(parent, name)))
