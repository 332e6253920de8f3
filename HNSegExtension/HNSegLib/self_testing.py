"""What the modules' self-tests share: they run in the desktop application, with or without the packages of HNSeg."""

from __future__ import annotations

import sys
import time
import unittest
from collections.abc import Callable

import slicer

from HNSegLib import setting_up

SEGMENTING_S = 900
"""How long a segmentation may take on a slow machine."""


def run_all(case: type[unittest.TestCase]) -> None:
    """Every ``test_…`` of a class, as Slicer's own Test button wants it: ``AssertionError`` unless all passed.

    One that is skipped is printed as skipped, not as passed.
    """
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    for test, reason in result.skipped:
        print(f"SKIPPED {test.id()}: {reason}")
    broken = [str(test) for test, _ in (*result.failures, *result.errors)]
    if broken:
        raise AssertionError(f"{len(broken)} of {result.testsRun} tests failed: {', '.join(broken)}")


def skip_unless_complete(case: unittest.TestCase) -> None:
    """Skip, loudly, what cannot segment here."""
    absent = setting_up.missing()
    if absent:
        reason = f"SKIPPED, nothing was segmented: this Slicer lacks {', '.join(map(str, absent))}"
        print(reason, file=sys.stderr)
        case.skipTest(reason)


def wait(until: Callable[[], bool], *, seconds: float, otherwise: str) -> None:
    """Let the application live until something holds; ``AssertionError`` when it takes longer."""
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            raise AssertionError(otherwise)
        slicer.app.processEvents()
        time.sleep(0.01)
