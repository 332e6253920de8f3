"""MR→CT registration and its quality check."""

from hnseg.registration.deformable import Bending, DeformableRegistration, register_deformable
from hnseg.registration.quality import Quality, Verdict, assess
from hnseg.registration.rigid import Registration, register_rigid

__all__ = [
    "Bending",
    "DeformableRegistration",
    "Quality",
    "Registration",
    "Verdict",
    "assess",
    "register_deformable",
    "register_rigid",
]
