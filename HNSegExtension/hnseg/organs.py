"""THE organ table: HaN-Seg's 30 organs at risk, the one source of names, labels, codes, colours and priorities.

Labels, names and codes follow HaN-Seg (Podobnik et al. 2023, doi:10.1002/mp.16197), AAPM TG-263 and its SNOMED CT mapping
in HL7 mCODE. Needs nothing but the standard library.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from hnseg.errors import UnknownOrgan


class Side(Enum):
    """The patient's side, with its SNOMED CT laterality code and meaning. Left is +x in LPS."""

    LEFT = ("7771000", "Left")
    RIGHT = ("24028007", "Right")
    BOTH = ("51440002", "Both")

    @property
    def code(self) -> str:
        """SNOMED CT code."""
        return self.value[0]

    @property
    def meaning(self) -> str:
        """SNOMED CT meaning."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Organ:
    """One organ at risk.

    ``name`` is HaN-Seg's and, unless ``tg263`` is False, TG-263's. ``priority`` orders organs where masks overlap: the
    lower number wins (small before large). ``components`` is how many connected parts the organ has.
    """

    label: int
    name: str
    english: str
    sct_code: str
    sct_meaning: str
    rgb: tuple[int, int, int]
    typical_ml: float
    range_ml: tuple[float, float]
    side: Side | None = None
    partner: str | None = None
    tg263: bool = True
    components: int = 1
    aliases: tuple[str, ...] = ()
    priority: int = 0

    @property
    def rgb_unit(self) -> tuple[float, float, float]:
        """Colour in 0…1, as VTK and matplotlib want it."""
        r, g, b = self.rgb
        return r / 255, g / 255, b / 255


# name | english | SCT code | SCT meaning | RGB (of the left one) | typical mL | range mL | aliases
_TABLE = """
A_Carotid_L       | left carotid artery      | 69105007  | Carotid artery      | 216,101,79  | 7.2  | 3.6,14   |
A_Carotid_R       | right carotid artery     | 69105007  | Carotid artery      |             | 5.9  | 3.6,14   |
Arytenoid         | arytenoid cartilages     | 77578007  | Arytenoid cartilage | 111,184,210 | 0.46 | 0.13,0.8 | Arytenoids
Bone_Mandible     | mandible                 | 91609006  | Mandible            | 222,198,101 | 65   | 40,89    | Mandible
Brainstem         | brainstem                | 15926001  | Brainstem           | 145,92,109  | 22.7 | 15,30    | BrainStem
BuccalMucosa      | buccal mucosa            | 16811007  | Buccal mucosa       | 178,69,182  | 12.8 | 4,21     | Mucosa_Buccal
Cavity_Oral       | oral cavity              | 74262004  | Oral cavity         | 121,39,153  | 100  | 53,161   | OralCavity, CavityOral
Cochlea_L         | left cochlea             | 80169004  | Cochlea             | 229,147,118 | 0.16 | 0.06,0.26|
Cochlea_R         | right cochlea            | 80169004  | Cochlea             |             | 0.16 | 0.06,0.26|
Cricopharyngeus   | cricopharyngeal inlet    | 28276008  | Cricopharyngeus     | 220,127,211 | 2.6  | 1,4.7    | Musc_Cricopharyngeus
Esophagus_S       | cervical oesophagus      | 60075002  | Cervical esophagus  | 211,171,143 | 2.0  | 0.8,4.8  | Esophagus, Esophagus_Cervical
Eye_AL            | left anterior eye segment   | 79652003 | Eyeball            | 127,75,38   | 1.06 | 0.4,2.2  | Eye_A_L, EyeAL
Eye_AR            | right anterior eye segment  | 79652003 | Eyeball            |             | 1.06 | 0.4,2.2  | Eye_A_R, EyeAR
Eye_PL            | left posterior eye segment  | 79652003 | Eyeball            | 194,142,0   | 7.65 | 3.9,12.8 | Eye_P_L, EyePL
Eye_PR            | right posterior eye segment | 79652003 | Eyeball            |             | 7.65 | 3.9,12.8 | Eye_P_R, EyePR
Glnd_Lacrimal_L   | left lacrimal gland      | 13561001  | Lacrimal gland      | 86,58,127   | 0.7  | 0.2,1.5  | Lacrimal_L
Glnd_Lacrimal_R   | right lacrimal gland     | 13561001  | Lacrimal gland      |             | 0.7  | 0.2,1.5  | Lacrimal_R
Glnd_Submand_L    | left submandibular gland | 54019009  | Submandibular gland | 90,120,220  | 8.0  | 2.9,17   | Submandibular_L
Glnd_Submand_R    | right submandibular gland| 54019009  | Submandibular gland |             | 8.0  | 2.9,17   | Submandibular_R
Glnd_Thyroid      | thyroid                  | 69748006  | Thyroid gland       | 62,162,114  | 14.4 | 4,46     | Thyroid
Glottis           | glottic larynx           | 1307006   | Glottis             | 47,210,120  | 3.3  | 1.3,5.5  | Larynx_Glottic
Larynx_SG         | supraglottic larynx      | 86483002  | Supraglottic space  | 150,208,243 | 13.3 | 4.7,23   | Larynx_Supraglottic
Lips              | lips                     | 81083006  | Both lips           | 188,91,95   | 23   | 5,47     | Lip
OpticChiasm       | optic chiasm             | 244453006 | Optic chiasm        | 99,106,24   | 0.3  | 0.1,0.6  | Chiasm
OpticNrv_L        | left optic nerve         | 18234004  | Optic nerve         | 127,24,70   | 0.55 | 0.25,1.0 | OpticNerve_L
OpticNrv_R        | right optic nerve        | 18234004  | Optic nerve         |             | 0.55 | 0.25,1.0 | OpticNerve_R
Parotid_L         | left parotid gland       | 45289007  | Parotid gland       | 31,45,172   | 27   | 10,56    | Glnd_Parotid_L
Parotid_R         | right parotid gland      | 45289007  | Parotid gland       |             | 27   | 10,56    | Glnd_Parotid_R
Pituitary         | pituitary gland          | 56329008  | Pituitary gland     | 255,105,180 | 0.35 | 0.1,0.7  | Glnd_Pituitary
SpinalCord        | spinal cord              | 2748008   | Spinal cord         | 244,214,49  | 10.5 | 7.4,14   | Spinal_Cord
"""
_BOTH_SIDES = ("Arytenoid", "BuccalMucosa")
_NOT_TG263 = ("BuccalMucosa", "Eye_AL", "Eye_AR", "Eye_PL", "Eye_PR")


def _right_shade(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    """A shade of the left one's colour that a person can tell apart: dark ones are lightened, light ones darkened."""
    towards = 255 if sum(rgb) < 330 else 0
    r, g, b = (round(0.55 * channel + 0.45 * towards) for channel in rgb)
    return r, g, b


def _read_table() -> tuple[Organ, ...]:
    rows = [[cell.strip() for cell in line.split("|")] for line in _TABLE.strip().splitlines()]
    by_volume = sorted(range(len(rows)), key=lambda n: float(rows[n][5]))
    organs: list[Organ] = []
    for index, (name, english, code, meaning, rgb_text, typical, extremes, aliases) in enumerate(rows):
        side = {"L": Side.LEFT, "R": Side.RIGHT}.get(name[-1]) if name[-2] in "_AP" else None
        low, high = (float(text) for text in extremes.split(","))
        if rgb_text:
            r, g, b = (int(text) for text in rgb_text.split(","))
            rgb = (r, g, b)
        else:
            rgb = _right_shade(organs[-1].rgb)
        organs.append(
            Organ(
                label=index + 1,
                name=name,
                english=english,
                sct_code=code,
                sct_meaning=meaning,
                rgb=rgb,
                typical_ml=float(typical),
                range_ml=(low, high),
                side=Side.BOTH if name in _BOTH_SIDES else side,
                partner=name[:-1] + {"L": "R", "R": "L"}[name[-1]] if side else None,
                tg263=name not in _NOT_TG263,
                components=2 if name in _BOTH_SIDES else 1,
                aliases=tuple(text.strip() for text in aliases.split(",") if text.strip()),
                priority=by_volume.index(index) + 1,
            )
        )
    return tuple(organs)


ORGANS: tuple[Organ, ...] = _read_table()
"""The 30 organs in label order; ``ORGANS[n].label == n + 1``."""


_SIDE_WORDS = {"l": "l", "lt": "l", "left": "l", "r": "r", "rt": "r", "right": "r"}


def fold(name: str) -> str:
    """A name as names are matched: lower case, nothing between words, the side as a last letter.

    ``Parotid_L``, ``parotid l``, ``Parotid-Lt``, ``Left Parotid`` and ``LeftParotid`` are all ``parotidl``.
    """
    words = [word.lower() for word in re.split(r"[\s_\-.]+|(?<=[a-z])(?=[A-Z])", name) if word]
    sides = [_SIDE_WORDS[word] for word in words if word in _SIDE_WORDS]
    rest = [word for word in words if word not in _SIDE_WORDS]
    return "".join(rest + sides if len(sides) == 1 and rest else words)


BY_NAME = MappingProxyType({organ.name: organ for organ in ORGANS})
_BY_FOLDED = {fold(text): organ for organ in ORGANS for text in (organ.name, *organ.aliases)}


def find_organ(name: str) -> Organ:
    """The organ of that name or alias, as ``fold`` matches names; else ``UnknownOrgan``."""
    organ = _BY_FOLDED.get(fold(name))
    if organ is None:
        near = difflib.get_close_matches(fold(name), _BY_FOLDED, n=1, cutoff=0.5)
        remedy = f"did you mean {_BY_FOLDED[near[0]].name}?" if near else f"use one of {', '.join(BY_NAME)}."
        raise UnknownOrgan(f"No organ is called {name!r}; {remedy}")
    return organ


def find_organs(names: Iterable[str]) -> tuple[Organ, ...]:
    """The organs of those names, in label order and once each."""
    return tuple(sorted({find_organ(name) for name in names}, key=lambda organ: organ.label))


def swap_sides(label: int) -> int:
    """The label of the other side's organ; a label without a partner (and 0) stays."""
    partner = ORGANS[label - 1].partner if label else None
    return BY_NAME[partner].label if partner else label
