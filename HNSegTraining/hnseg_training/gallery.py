"""Pictures of what went worst, for the model card. Of phantoms alone: no patient is pictured."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from hnseg.evaluation.scores import OrganScores, Scores
from hnseg.image.files import atomic_write
from hnseg.image.segmentation import Segmentation
from hnseg.image.volume import Volume
from hnseg.reporting.cohort_plots import disagreement_picture


@dataclass(slots=True)
class Gallery:
    """Keeps, in a folder that it empties first, a picture of each of the ``size`` worst organs, in its worst case."""

    folder: Path
    size: int = 6
    _shown: dict[str, tuple[float, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def captions(self) -> dict[str, str]:
        """Captions by the picture's file name, the worst organ first."""
        return {f"{organ}.png": caption for organ, (_, caption) in sorted(self._shown.items(), key=lambda one: one[1])}

    def show(self, case: str, scores: Scores, predicted: Segmentation, drawn: Segmentation, ct: Volume) -> None:
        """Take in a case: its organs that are worse than what hangs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for row in sorted(scores.organs, key=lambda row: row.dsc):
            if row.scored and row.dsc < self._bar(row.organ):
                picture = disagreement_picture(predicted.mask(row.organ), drawn.mask(row.organ), ct)
                with atomic_write(self.folder / f"{row.organ}.png") as partial:
                    partial.write_bytes(picture)
                self._shown[row.organ] = (row.dsc, _caption(case, row))
                self._make_room()

    def _bar(self, organ: str) -> float:
        """The DSC that this organ must stay below to be shown."""
        if organ in self._shown:
            return self._shown[organ][0]
        return max(dsc for dsc, _ in self._shown.values()) if len(self._shown) >= self.size else 1.0

    def _make_room(self) -> None:
        while len(self._shown) > self.size:
            best = max(self._shown, key=lambda organ: self._shown[organ][0])
            del self._shown[best]
            (self.folder / f"{best}.png").unlink()


def _caption(case: str, row: OrganScores) -> str:
    distance = "nothing found" if row.missed else f"HD95 {row.hd95_mm:.1f} mm"
    return f"{row.organ} of {case}: DSC {row.dsc:.2f}, {distance}"
