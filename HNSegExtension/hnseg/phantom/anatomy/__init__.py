"""The structure table: every tissue of the head and neck as a shape in the canonical frame, in painting order.

Canonical frame: LPS mm, origin midway between the ear canals, +x left, +y posterior, +z up. Places and sizes of the
organs are those of HaN-Seg; the rest is textbook anatomy. Later structures cover earlier ones.
"""

from dataclasses import dataclass

from hnseg.phantom.anatomy.brain import brain
from hnseg.phantom.anatomy.builder import NOMINAL_ML, Builder, Plan
from hnseg.phantom.anatomy.chest import chest
from hnseg.phantom.anatomy.face import ear, face, orbits
from hnseg.phantom.anatomy.jaw import jaw, metal_places
from hnseg.phantom.anatomy.neck import glands, spine, vessels
from hnseg.phantom.anatomy.outline import body_shape, outline
from hnseg.phantom.anatomy.skull import cranial_cavity, skull
from hnseg.phantom.anatomy.throat import larynx, thyroid
from hnseg.phantom.patient import Patient
from hnseg.phantom.structure import Shape, Structure

__all__ = ["NOMINAL_ML", "REACH_MM", "Anatomy", "anatomy", "metal_places"]

REACH_MM = 20.0

_REGIONS = (outline, chest, skull, brain, face, orbits, ear, spine, jaw, vessels, glands, larynx, thyroid)


@dataclass(frozen=True)
class Anatomy:
    """The structures in painting order; the skin, more than ``REACH_MM`` outside of which there is only air; the inside
    of the skull.
    """

    structures: tuple[Structure, ...]
    skin: Shape
    cavity: Shape


def anatomy(patient: Patient) -> Anatomy:
    """The whole patient."""
    builder = Builder(patient)
    plan = Plan(patient, body=body_shape(builder), cavity=cranial_cavity(builder))
    return Anatomy(tuple(structure for region in _REGIONS for structure in region(plan)), plan.body, plan.cavity)
