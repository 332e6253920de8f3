"""HNSeg's self-tests in the desktop application, with an exit code that tells the truth.

    Slicer --testing --no-splash --additional-module-paths HNSegExtension/SegmentEditorHNSeg HNSegExtension/HNSeg
           HNSegExtension/HNSegCuration --python-script Testing/slicer/run_self_tests.py [--allow-skipped]

0: everything ran and passed. 1: something failed or could not be loaded. 2: something was skipped, as Slicer lacks
packages; ``--allow-skipped`` makes that 0, and the log still says SKIPPED.
"""

import importlib
import sys
import traceback
import unittest

import slicer

MODULES = ("SegmentEditorHNSeg", "HNSeg", "HNSegCuration")


def tests_of(name):
    """The test class of a module that Slicer has loaded; an import error becomes a failing test."""
    try:
        if not hasattr(slicer.modules, name.lower()):
            raise ImportError(f"Slicer has not loaded {name}; give its folder with --additional-module-paths.")
        return unittest.defaultTestLoader.loadTestsFromTestCase(getattr(importlib.import_module(name), f"{name}Test"))
    except (ImportError, AttributeError) as error:
        return unittest.TestSuite([unittest.FunctionTestCase(lambda error=error: _raise(error), description=name)])


def exit_code(result, *, allow_skipped):
    """0, 1 or 2, as this file's docstring says; a run without any test is a failure."""
    if not result.wasSuccessful() or result.testsRun == 0:
        return 1
    return 2 if result.skipped and not allow_skipped else 0


def main():
    """Run, tell, leave."""
    code = 1
    try:
        suite = unittest.TestSuite(tests_of(name) for name in MODULES)
        result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
        for test, reason in result.skipped:
            print(f"SKIPPED {test.id()}: {reason}")
        code = exit_code(result, allow_skipped="--allow-skipped" in sys.argv)
    except Exception:  # noqa: BLE001  an escaping error would leave Slicer open, and a test machine waiting
        traceback.print_exc()
    print(f"HNSeg self-tests: exit code {code}")
    slicer.util.exit(code)


def _raise(error):
    raise error


if __name__ == "__main__":
    main()
