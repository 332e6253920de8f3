"""What the seed reports claimed, and the variants that try it; see ``study.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from study_cohorts import LESION

Overrides = Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """A configuration of ``configs`` with some settings changed, by their path.

    ``start``: the run whose weights it starts from. A variant without a ``name`` is its configuration's plain run.
    """

    base: str
    name: str = ""
    changes: Overrides = field(default_factory=dict)
    cohort: str = ""
    start: str = ""


@dataclass(frozen=True)
class Claim:
    """``said`` in the report (DSC in %), on which of the study's cohorts it is tried, and by which variants.

    By the claim, each variant is better than the one before. ``ordered``: whether the report makes that claim at all.
    """

    key: str
    report: str
    said: str
    cohort: str
    variants: tuple[Variant, ...]
    ordered: bool = True


_NETWORK = "network.arguments"
_REAL: Overrides = {"organs": ["Bone_Mandible", "Brainstem", "Parotid_L", "Parotid_R", "SpinalCord"]}
_LESION: Overrides = {"organs": [LESION]}
_BATCH = "optimisation.batch_size"
_PLAIN_3D = Variant("res3dunet")
_LARGE_PATCH = Variant("unet3d-vgg16", "large-patch", {"patch.size_kji": [64, 64, 64], _BATCH: 1})

SOURCE = "pddca-res3dunet"
"""The run that transfer starts from."""

NOISE = "seeds"
"""The claim whose variants differ in their seed alone: how far trainings of one system lie apart."""

CLAIMS = (
    Claim(
        NOISE,
        "–",
        "none: one system, three seeds",
        "pddca",
        (_PLAIN_3D, *(Variant("res3dunet", f"seed-{n}", {"seed": n}) for n in (1, 2))),
        ordered=False,
    ),
    Claim(
        "residual",
        "003",
        "residual units prevent the plain 2D U-Net's collapse after 150 epochs",
        "pddca",
        (Variant("resunet2d", "plain", {f"{_NETWORK}.residual_units": 0}), Variant("resunet2d")),
    ),
    Claim(
        "focal",
        "000",
        "focal cross-entropy fits better than weighted cross-entropy (curves only)",
        "hanseg",
        (Variant("unet2p5d", "entropy", {"loss.terms": {"cross_entropy": 1.0}}), Variant("unet2p5d")),
    ),
    Claim(
        "norm",
        "002",
        "batch size 1: batch norm 49.0, instance norm 72.9",
        "petct",
        (
            Variant("rrse-unet", "batch-norm", {**_LESION, f"{_NETWORK}.norm": "batch"}),
            Variant("rrse-unet", "", _LESION),
        ),
    ),
    Claim(
        "transfer",
        "004",
        "new organs: from scratch 47.5, transferred 50.6, first half frozen 54.6",
        "new-organs",
        (
            Variant("res3dunet-transfer", "scratch", {"freeze": 0.0}),
            Variant("res3dunet-transfer", "transferred", {"freeze": 0.0}, start=SOURCE),
            Variant("res3dunet-transfer", "frozen", start=SOURCE),
        ),
    ),
    Claim(
        "dimensions",
        "000",
        "2.5D is the practical choice, 3D patches failed",
        "hanseg",
        (_LARGE_PATCH, Variant("unet2p5d")),
    ),
    Claim(
        "openkbp",
        "003, 004",
        "real CTs; 2D 72.2 and 3D 77.1 on PDDCA, by different students; ours added",
        "openkbp",
        (Variant("resunet2d", "", _REAL), Variant("res3dunet", "", _REAL), Variant("hnseg", "", {**_REAL, "seed": 22})),
    ),
    Claim(
        "mixup",
        "003",
        "mixup helps, weighted mixup helps small organs",
        "pddca",
        (
            Variant("resunet2d", "no-mixup", {"loss.mixup": "none"}),
            Variant("resunet2d", "plain-mixup", {"loss.mixup": "plain"}),
            Variant("resunet2d"),
        ),
    ),
    Claim(
        "fusion",
        "000",
        "early fusion is chosen; late and layer fusion are only reviewed",
        "hanseg",
        (Variant("fusion-late"), Variant("fusion-layer"), Variant("fusion-early")),
        ordered=False,
    ),
    Claim(
        "mirroring",
        "001",
        "nnU-Net's mirroring mixes up the sides; without it mean DSC 90",
        "glands",
        (
            Variant("nnunet-glands", "", cohort="glands-mirrored"),
            Variant("nnunet-glands", "sides-swapped", {"augmentation.mirror_probability": 0.5}),
            Variant("nnunet-glands"),
        ),
    ),
    Claim(
        "weights",
        "004",
        "fixed loss weights 57.4, dynamic ones 73.2",
        "pddca",
        (Variant("res3dunet", "fixed", {"loss.final_terms": {}, "loss.adapt_to_organs": False}), _PLAIN_3D),
    ),
    Claim(
        "patch",
        "000",
        "3D patches of 128³ generalise better than 64³ (curves only); here 64³ and 32³ at 4 mm, as many voxels a step",
        "hanseg",
        (
            Variant("unet3d-vgg16", "small-patch", {"patch.size_kji": [32, 32, 32], _BATCH: 8}),
            _LARGE_PATCH,
        ),
    ),
    Claim(
        "pathway",
        "002",
        "without the upsampling pathway 68.8, with it 71.6 (at other widths)",
        "petct",
        (
            Variant("rrse-unet", "no-pathway", {**_LESION, f"{_NETWORK}.upsampling_pathway": False}),
            Variant("rrse-unet", "", _LESION),
        ),
    ),
    Claim(
        "unetr",
        "004",
        "UNETR 73.7, residual 3D U-Net 77.1, both transferred",
        "pddca",
        (
            Variant(
                "unetr", "", {f"{_NETWORK}.hidden": 96, f"{_NETWORK}.mlp": 192, f"{_NETWORK}.heads": 4}
            ),
            _PLAIN_3D,
        ),
    ),
)  # fmt: skip
