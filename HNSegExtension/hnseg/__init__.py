"""HNSeg: segments the 30 organs at risk of the head and neck. Research use, not a medical device.

The engine is plain Python: it knows no Slicer, no Qt and no server. Importing this package imports nothing else.
"""

from hnseg.version import __version__

__all__ = ["__version__"]
