"""RTSTRUCT, DICOM SEG and dose statistics on the original series."""
