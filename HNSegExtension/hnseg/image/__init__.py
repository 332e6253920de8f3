"""Volumes in physical space: grids, files, DICOM series, segmentations."""
