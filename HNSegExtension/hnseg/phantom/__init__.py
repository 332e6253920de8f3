"""The procedural head-and-neck patient with known truth: CT, T1 MR, 30 organs, CT→MR transform."""

from hnseg.phantom.options import PhantomOptions
from hnseg.phantom.patient import Patient, average_patient, draw_patient
from hnseg.phantom.rendering import PhantomCase, ct_grid_of, labels_on, render

__all__ = [
    "Patient",
    "PhantomCase",
    "PhantomOptions",
    "average_patient",
    "ct_grid_of",
    "draw_patient",
    "labels_on",
    "render",
]
