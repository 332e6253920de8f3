"""The widgets of the review: the table of organs, their marks, and what the views show. Slots are short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer

from HNSegLib.choices import MR_REFERENCE

_ID = qt.Qt.UserRole


class ReviewPanel:
    """Works on widgets of the module's ``ui`` and on the host's segmentation; ``connect``: ``SegmentationPanel``'s."""

    def __init__(self, ui: Any, host: Any, connect: Callable[..., None]) -> None:
        self.ui = ui
        self.host = host
        connect(ui.reviewTable, "itemSelectionChanged()", self.onRowChosen)
        connect(ui.completeButton, "clicked()", self.onComplete)
        connect(ui.flagButton, "clicked()", self.onFlag)
        connect(ui.resetButton, "clicked()", self.onReset)
        connect(ui.show3DButton, "toggled(bool)", self.onShow3D)
        connect(ui.mrFadeSlider, "valueChanged(int)", self.onFade)

    def update(self) -> None:
        """Fill the table from the scene."""
        segmentation = self.host.segmentation()
        rows = _rows(segmentation)
        self._fill(rows)
        self.ui.reviewLabel.setText(_progress(rows))
        buttons = (self.ui.completeButton, self.ui.flagButton, self.ui.resetButton, self.ui.show3DButton)
        for button in buttons:
            button.setEnabled(bool(rows))
        self._showViews(segmentation if rows else None)

    def chosenIds(self) -> list[str]:
        """Ids of the segments whose rows are chosen."""
        items = [self.ui.reviewTable.item(row, 0) for row in range(self.ui.reviewTable.rowCount)]
        return [item.data(_ID) for item in items if item.isSelected()]

    # Slots

    def onRowChosen(self) -> None:
        """Show the organ in the slice views."""
        from HNSegLib.views import jump_to

        chosen = self.chosenIds()
        if len(chosen) == 1:
            jump_to(self.host.segmentation(), chosen[0])

    def onComplete(self) -> None:
        """The chosen organs are fine."""
        self._mark("completed")
        self._goOn()

    def onFlag(self) -> None:
        """The chosen organs need another look."""
        self._mark("flagged")
        self._goOn()

    def onReset(self) -> None:
        """The chosen organs are as good as new."""
        self._mark("notstarted")

    def onShow3D(self, shown: bool) -> None:
        """Surfaces of all organs, or none."""
        from HNSegLib.views import show_in_3d

        qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            show_in_3d(self.host.segmentation(), shown)
            _centre_3d_view()
        finally:
            qt.QApplication.restoreOverrideCursor()

    def onFade(self, percent: int) -> None:
        """The MR over the CT, where it was found to lie."""
        from HNSegLib.transforms import put_on_ct
        from HNSegLib.views import fade

        mr, segmentation = self.host.nodeReference(MR_REFERENCE), self.host.segmentation()
        if mr is not None:
            if segmentation is not None:
                put_on_ct(segmentation, mr)
            fade(self.host.ct(), mr, percent / 100)

    # Parts

    def _fill(self, rows: Any) -> None:
        table = self.ui.reviewTable
        blocked = table.blockSignals(True)
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, text in enumerate(_cells(row)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(row.notes or (row.organ.english if row.organ else ""))
                if column == 0:
                    item.setData(_ID, row.segment_id)
                    item.setIcon(_swatch(row.rgb))
                table.setItem(number, column, item)
        table.resizeColumnsToContents()
        table.blockSignals(blocked)

    def _mark(self, status: str) -> None:
        from HNSegLib.merging import Status
        from HNSegLib.reviewing import mark

        chosen = self.chosenIds()
        mark(self.host.segmentation(), chosen, Status(status))
        self.update()
        self._choose(chosen)

    def _goOn(self) -> None:
        """To the next organ that nobody has reviewed yet, after the last chosen one or from the top."""
        from HNSegLib.reviewing import next_to_review

        chosen = self.chosenIds()
        following = next_to_review(_rows(self.host.segmentation()), after=chosen[-1] if chosen else "")
        if following:
            self._choose([following])
            self.onRowChosen()

    def _choose(self, ids: list[str]) -> None:
        table = self.ui.reviewTable
        blocked = table.blockSignals(True)
        for row in range(table.rowCount):
            chosen = table.item(row, 0).data(_ID) in ids
            for column in range(table.columnCount):
                table.item(row, column).setSelected(chosen)
            if chosen:
                table.scrollToItem(table.item(row, 0))
        table.blockSignals(blocked)

    def _showViews(self, segmentation: Any) -> None:
        from HNSegLib.views import is_shown_in_3d

        button = self.ui.show3DButton
        blocked = button.blockSignals(True)
        button.setChecked(segmentation is not None and is_shown_in_3d(segmentation))
        button.blockSignals(blocked)
        self.ui.mrFadeSlider.setEnabled(self.host.nodeReference(MR_REFERENCE) is not None)


def _centre_3d_view() -> None:
    layout = slicer.app.layoutManager()
    if layout is not None and layout.threeDViewCount:  # neither without a main window
        layout.threeDWidget(0).threeDView().resetFocalPoint()


def _rows(segmentation: Any) -> Any:
    if segmentation is None or segmentation.GetSegmentation().GetNumberOfSegments() == 0:
        return ()
    from HNSegLib.reviewing import review_rows

    return review_rows(segmentation)


def _cells(row: Any) -> tuple[str, ...]:
    from HNSegLib.reviewing import STATUS_WORDS

    low, high = row.organ.range_ml if row.organ else (0, 0)
    return (
        row.name,
        f"{row.volume_ml:.2f}" + ("" if row.is_usual else " !"),
        f"{low:g} – {high:g}" if row.organ else "",
        "" if row.confidence is None else f"{row.confidence:.2f}",
        "" if row.expected_dsc is None else f"{row.expected_dsc:.2f}",
        row.taught_by,
        STATUS_WORDS[row.status],
    )


def _swatch(rgb: tuple[float, ...]) -> Any:
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor(*(round(255 * part) for part in rgb)))
    return qt.QIcon(pixmap)


def _progress(rows: Any) -> str:
    if not rows:
        return "There is nothing to review yet."
    from HNSegLib.reviewing import progress

    return progress(rows)
