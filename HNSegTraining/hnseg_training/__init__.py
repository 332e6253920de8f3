"""Training: from a cohort on disk to a verified model bundle."""
