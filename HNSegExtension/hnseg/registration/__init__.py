"""MR→CT registration and its quality check."""
