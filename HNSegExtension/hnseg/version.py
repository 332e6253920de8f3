"""The version of the engine, and the sentence that goes wherever its results go."""

__version__ = "0.1.0"

RESEARCH_USE = "Research use only, not a medical device: every contour must be reviewed by a qualified person."
