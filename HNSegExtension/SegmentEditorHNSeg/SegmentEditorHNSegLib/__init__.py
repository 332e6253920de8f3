"""The Segment Editor effect; Slicer loads its file by path."""
