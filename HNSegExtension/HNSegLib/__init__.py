"""HNSeg's Slicer side: MRML nodes ↔ the engine's volumes, segments, jobs, set-up. Importing this imports nothing else.

Functions take nodes, scene and logics as arguments, so that slicer-core tests run them; nothing here knows Qt.
"""
