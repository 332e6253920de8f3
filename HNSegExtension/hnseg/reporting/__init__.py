"""Run reports that people look at."""
