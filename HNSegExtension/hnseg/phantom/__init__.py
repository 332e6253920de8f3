"""The procedural head-and-neck patient with known truth."""
