"""MR→CT registration and its quality check."""

from hnseg.registration.quality import Quality, Verdict, assess
from hnseg.registration.rigid import Registration, register_rigid

__all__ = ["Quality", "Registration", "Verdict", "assess", "register_rigid"]
