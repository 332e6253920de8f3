"""What tissues look like: mean CT number, T1-weighted signal (fat = 1), texture. Estimates after textbooks."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Tissue:
    """``hu_texture`` and ``t1_texture`` are standard deviations of the tissue's own (not the scanner's) variation."""

    name: str
    hu: float
    t1: float
    hu_texture: float = 6.0
    t1_texture: float = 0.03
    grain: bool = False


_TABLE = (
    Tissue("air", -1000, 0.02, 2, 0.005),
    Tissue("lung", -780, 0.08, 70, 0.03, True),
    Tissue("skin", 15, 0.45, 8),
    Tissue("fat", -98, 1.00, 9, 0.06),
    Tissue("fascia", -45, 0.75, 12, 0.06),
    Tissue("muscle", 58, 0.37, 11, 0.04),
    Tissue("tongue", 56, 0.45, 22, 0.09),
    Tissue("mucosa", 48, 0.42, 9, 0.04),
    Tissue("lips", 28, 0.45, 26, 0.08),
    Tissue("buccal", 22, 0.45, 24, 0.08),
    Tissue("parotid", 12, 0.70, 26, 0.08),
    Tissue("submandibular", 78, 0.50, 12, 0.05),
    Tissue("thyroid", 170, 0.45, 16, 0.04),
    Tissue("lacrimal", 60, 0.50),
    Tissue("larynx_fat", -30, 0.80, 30, 0.10),
    Tissue("larynx", 45, 0.42, 14, 0.05),
    Tissue("cartilage", 120, 0.30, 60, 0.06, True),
    Tissue("cartilage_soft", 85, 0.35, 15, 0.04),
    Tissue("plastic", 20, 0.02, 30, 0.0),
    Tissue("metal", 3000, 0.02, 0, 0.0),
    Tissue("calcified", 330, 0.25, 120, 0.10, True),
    Tissue("oesophagus", 42, 0.40, 8),
    Tissue("cricopharyngeus", 55, 0.38, 8),
    Tissue("cortex", 1380, 0.05, 130, 0.02, True),
    Tissue("marrow", 260, 0.65, 110, 0.09, True),
    Tissue("diploe", 650, 0.50, 170, 0.10, True),
    Tissue("thin_bone", 750, 0.12, 170, 0.04, True),
    Tissue("petrous", 1750, 0.06, 160, 0.02, True),
    Tissue("vertebra", 300, 0.55, 75, 0.06, True),
    Tissue("disc", 90, 0.42, 10),
    Tissue("tooth", 2050, 0.04, 220, 0.01, True),
    Tissue("pulp", 500, 0.2),
    Tissue("grey", 38, 0.50, 2.5, 0.02),
    Tissue("white", 30, 0.65, 2.0, 0.02),
    Tissue("brainstem", 32, 0.57, 2.5, 0.025),
    Tissue("cord", 35, 0.52, 3, 0.02),
    Tissue("csf", 8, 0.14, 2, 0.01),
    Tissue("nerve", 35, 0.50, 4),
    Tissue("chiasm", 36, 0.55, 3),
    Tissue("pituitary", 95, 0.52, 6),
    Tissue("sclera", 62, 0.30, 6),
    Tissue("vitreous", 8, 0.13, 2, 0.008),
    Tissue("aqueous", 10, 0.16, 2, 0.008),
    Tissue("lens", 112, 0.26, 5),
    Tissue("cochlea", 420, 0.17, 60, 0.03),
    Tissue("artery", 200, 0.09, 5, 0.03),
    Tissue("vein", 165, 0.14, 7, 0.04),
    Tissue("node", 62, 0.42, 6),
)
TISSUES = MappingProxyType({tissue.name: tissue for tissue in _TABLE})
