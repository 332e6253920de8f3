"""The organ table as Slicer's own files: ``python -m hnseg.organ_resources Resources`` writes them anew.

``HNSeg.ctbl`` and ``HNSeg.csv`` are colour tables: the first can hold neither underscores nor codes, the second is read
by Slicer 5.10 and later. ``HNSeg.term.json`` is the terminology. Formats: Slicer's vtkMRMLColorTableStorageNode and
vtkSlicerTerminologiesModuleLogic. Needs nothing but the standard library.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from hnseg.organs import ORGANS, Organ
from hnseg.terminology import CATEGORY, CONTEXT

_SCHEMA = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/segment-context-schema.json#"
_CODE = ("CodingScheme", "CodeValue", "CodeMeaning")
_COLUMNS = (
    "LabelValue", "Name", "Color_R", "Color_G", "Color_B", "Color_A",
    *(f"{part}_{column}" for part in ("Category", "Type", "TypeModifier") for column in _CODE),
)  # fmt: skip


def color_table() -> str:
    """Slicer's plain colour table. Slicer shows an underscore in a name as a space."""
    lines = ["# Color table file HNSeg.ctbl", f"# {len(ORGANS) + 1} values", "0 background 0 0 0 0"]
    lines += [f"{organ.label} {organ.name} {' '.join(map(str, organ.rgb))} 255" for organ in ORGANS]
    return "\n".join(lines) + "\n"


def color_table_with_codes() -> str:
    """The colour table as Slicer 5.10 and later reads and writes it, with names and codes whole."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerow([0, "background", 0, 0, 0, 0, *[""] * 9])
    for organ in ORGANS:
        writer.writerow([organ.label, organ.name, *organ.rgb, 255, *CATEGORY, *_type_code(organ), *_side_code(organ)])
    return text.getvalue()


def terminology() -> str:
    """Slicer's terminology context: one category, its types by name, the sides as their modifiers."""
    by_type = sorted(ORGANS, key=lambda organ: (organ.sct_meaning, organ.label))
    types = [_type(list(organs)) for _, organs in groupby(by_type, key=lambda organ: organ.sct_code)]
    category = {**_code(CATEGORY), "showAnatomy": False, "Type": types}
    context = {
        "SegmentationCategoryTypeContextName": CONTEXT,
        "@schema": _SCHEMA,
        "SegmentationCodes": {"Category": [category]},
    }
    return json.dumps(context, indent=2, ensure_ascii=False) + "\n"


FILES = {
    "HNSeg.ctbl": color_table,
    "HNSeg.csv": color_table_with_codes,
    "HNSeg.term.json": terminology,
}
"""File name → what makes its text."""


def write_resources(folder: str | Path) -> None:
    """Write all of ``FILES`` into an existing folder."""
    for name, text in FILES.items():
        Path(folder, name).write_text(text(), encoding="utf-8", newline="\n")


def _type(organs: Sequence[Organ]) -> dict[str, Any]:
    """A type with its colour, or a modifier for each side. The eye's parts share a code: the larger one speaks."""
    largest = {organ.side: organ for organ in sorted(organs, key=lambda organ: organ.typical_ml)}
    entry: dict[str, Any] = _code(_type_code(organs[0]))
    if None in largest:
        return entry | _display(largest[None])
    sided = sorted(largest.values(), key=lambda organ: organ.label)
    return entry | {"Modifier": [_code(_side_code(organ)) | _display(organ) for organ in sided]}


def _display(organ: Organ) -> dict[str, Any]:
    return {"recommendedDisplayRGBValue": list(organ.rgb), "3dSlicerLabel": organ.name}


def _code(triple: tuple[str, str, str]) -> dict[str, Any]:
    scheme, value, meaning = triple
    return {"CodingSchemeDesignator": scheme, "CodeValue": value, "CodeMeaning": meaning}


def _type_code(organ: Organ) -> tuple[str, str, str]:
    return ("SCT", organ.sct_code, organ.sct_meaning)


def _side_code(organ: Organ) -> tuple[str, str, str]:
    return ("SCT", organ.side.code, organ.side.meaning) if organ.side else ("", "", "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files into the folder that is named."""
    parser = argparse.ArgumentParser(prog="python -m hnseg.organ_resources", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the files go: Resources in the repository")
    write_resources(parser.parse_args(arguments).folder)


if __name__ == "__main__":
    main()
