"""The exception family. Every message says what, got, remedy, in one sentence.

::

    HNSegError                     anything that the engine refuses or cannot do
    ├── InputError                 what came in cannot be used
    │   ├── UnreadableFile         missing, truncated, not an image, no permission
    │   ├── UnsupportedImage       4D, RGB, empty, NaN, too few slices
    │   ├── WrongModality          "CT" that is not in HU, CT and MR swapped
    │   ├── GeometryMismatch       grids differ, no overlap, singular or sheared axes
    │   ├── DicomSeriesError       no series, several candidates, missing slices, localiser
    │   ├── UnknownOrgan           a name that the organ table does not know
    │   └── ConfigError            an unknown key or an ill-typed value
    ├── ModelError                 a bundle is missing, broken, tampered with or of an unknown kind
    ├── RegistrationFailed         the quality check said no
    ├── DeviceError                the device asked for is not there, or out of memory after every fallback
    ├── OutputError                the result cannot be written
    ├── WorkerError                the worker process died or spoke out of turn
    └── Cancelled                  the user stopped the job
"""


class HNSegError(Exception):
    """Root of the family. The library raises; only the CLI, a GUI slot and an HTTP handler catch it."""


class InputError(HNSegError):
    """What came in cannot be used."""


class UnreadableFile(InputError):
    """A file is missing, truncated, unreadable or not an image."""


class UnsupportedImage(InputError):
    """An image has a shape, type or content that the engine does not take."""


class WrongModality(InputError):
    """An image is not of the modality that its role asks for."""


class GeometryMismatch(InputError):
    """Two grids do not fit each other, or a grid is not a proper one."""


class DicomSeriesError(InputError):
    """A DICOM folder does not hold exactly one complete, regular series of the kind asked for."""


class UnknownOrgan(InputError):
    """A name is not in the organ table."""


class ConfigError(InputError):
    """A configuration holds an unknown key or an ill-typed value."""


class ModelError(HNSegError):
    """A model bundle is missing, broken, tampered with or of an unknown kind."""


class RegistrationFailed(HNSegError):
    """The registration's own quality check rejects its result."""


class DeviceError(HNSegError):
    """The computing device is absent or out of memory after every fallback."""


class OutputError(HNSegError):
    """A result cannot be written; nothing partial was left behind."""


class WorkerError(HNSegError):
    """The worker process died or broke the protocol."""


class Cancelled(HNSegError):
    """The user stopped the job; nothing was written."""
