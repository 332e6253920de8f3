"""Which segment is which: by organ name, TG-263 alias or code, else by equal names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hnseg.errors import InputError, UnknownOrgan
from hnseg.image.segmentation import Segment
from hnseg.organs import BY_NAME, ORGANS, Organ, find_organ, fold
from hnseg.terminology import ORGAN_TAG, TERMINOLOGY_TAG


@dataclass(frozen=True, slots=True)
class Pair:
    """One structure and its segments; None where a segmentation lacks it."""

    name: str
    prediction: Segment | None
    reference: Segment | None


def match(
    prediction: Sequence[Segment],
    reference: Sequence[Segment],
    *,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
) -> tuple[Pair, ...]:
    """Pairs in the organ table's order, then other names that are equal but for case, spaces and underscores.

    ``only`` keeps those structures and asks for each of them; ``without`` drops some. Raises ``InputError`` when
    nothing is in both, or when two segments of one segmentation are the same organ.
    """
    predicted, expected = _by_name(prediction, "prediction"), _by_name(reference, "reference")
    names = [name for name in BY_NAME if name in expected or name in predicted]
    names += [name for name in (*expected, *predicted) if name not in BY_NAME and name not in names]
    if only:
        names = [canonical_name(name) for name in only]
    dropped = {canonical_name(name) for name in without}
    names = [name for name in names if name not in dropped]
    if not set(names) & set(predicted) & set(expected):
        raise InputError(
            f"Prediction ({_list(predicted)}) and reference ({_list(expected)}) have no structure in common; "
            "rename the segments to HaN-Seg or TG-263 names."
        )
    written = {key: segment.name for source in (predicted, expected) for key, segment in source.items()}
    return tuple(
        Pair(name if name in BY_NAME else written.get(name, name), predicted.get(name), expected.get(name))
        for name in dict.fromkeys(names)
    )


def canonical_name(name: str, tags: Mapping[str, str] | None = None) -> str:
    """The organ's name in the table, found by tag, name, alias or terminology code; else the name, folded."""
    try:
        return find_organ((tags or {}).get(ORGAN_TAG) or name).name
    except UnknownOrgan:
        organ = _by_code((tags or {}).get(TERMINOLOGY_TAG, ""))
        return organ.name if organ else fold(name)


def _by_name(segments: Sequence[Segment], role: str) -> dict[str, Segment]:
    found: dict[str, Segment] = {}
    for segment in segments:
        name = canonical_name(segment.name, segment.tags)
        if name in found:
            raise InputError(
                f"The {role} has {found[name].name!r} and {segment.name!r}, which are both {name}; remove one of them."
            )
        found[name] = segment
    return found


def _by_code(entry: str) -> Organ | None:
    """The one organ with the codes of a Slicer terminology entry; None if none or several have them."""
    parts = entry.split("~")
    if len(parts) < 4:
        return None
    code, side = parts[2].split("^")[1:2], parts[3].split("^")[1:2]
    fitting = [
        organ
        for organ in ORGANS
        if [organ.sct_code] == code and (organ.side.code if organ.side else "") == (side[0] if side else "")
    ]
    return fitting[0] if len(fitting) == 1 else None


def _list(names: Mapping[str, Segment]) -> str:
    shown = [segment.name for segment in names.values()]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "") if shown else "no structure"
