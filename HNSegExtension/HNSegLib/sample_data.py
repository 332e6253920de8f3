"""The phantom patient in Slicer's Sample Data module and behind the module's own button."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

CATEGORY = "HNSeg"
SAMPLE = "Phantom head and neck (CT, T1 MR)"


def register(thumbnail: Path) -> None:
    """Once for the application; nothing where Slicer runs without its Sample Data module."""
    try:
        from SampleData import SampleDataLogic
    except ImportError:
        return
    known = SampleDataLogic.sampleDataSourcesByCategory(CATEGORY)
    if not any(source.sampleName == SAMPLE for source in known):
        SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY, sampleName=SAMPLE, thumbnailFileName=str(thumbnail),
            uris="", fileNames="", nodeNames="", customDownloader=load,
        )  # fmt: skip


def load(source: Any = None) -> tuple[Any, ...]:
    """Draw the patient behind a progress dialog and show its CT; nothing when the user cancels."""
    from hnseg.errors import Cancelled
    from HNSegLib.sample_patient import add_sample_patient

    dialog = slicer.util.createProgressDialog(windowTitle="HNSeg", labelText="Drawing a phantom patient")

    def show(fraction: float, text: str) -> None:
        dialog.setLabelText(f"{text} of a phantom patient")
        dialog.setValue(round(100 * fraction))
        slicer.app.processEvents()
        if dialog.wasCanceled:
            raise Cancelled("The phantom patient was not drawn.")

    try:
        ct, mr = add_sample_patient(slicer.mrmlScene, on_progress=show)
    except Cancelled:
        return ()
    finally:
        dialog.close()
        dialog.deleteLater()
    slicer.util.setSliceViewerLayers(background=ct, foreground=None, fit=True)
    return ct, mr
