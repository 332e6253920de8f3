"""The runner's verdict: a test machine must not take skipped or absent tests for passed ones."""

import importlib.util
import sys
import types
import unittest
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "slicer" / "run_self_tests.py"


@pytest.fixture
def runner(monkeypatch):
    slicer = types.ModuleType("slicer")  # STAND-IN: which modules Slicer has loaded
    slicer.modules = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "slicer", slicer)
    spec = importlib.util.spec_from_file_location("run_self_tests", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result_of(suite):
    result = unittest.TestResult()
    suite.run(result)
    return result


def suite_of(function):
    return unittest.TestSuite([unittest.FunctionTestCase(function)])


def skip():
    raise unittest.SkipTest("this Slicer lacks torch")


def test_passed_is_zero(runner):
    assert runner.exit_code(result_of(suite_of(lambda: None)), allow_skipped=False) == 0


def test_skipped_is_two_unless_it_is_allowed(runner):
    assert runner.exit_code(result_of(suite_of(skip)), allow_skipped=False) == 2
    assert runner.exit_code(result_of(suite_of(skip)), allow_skipped=True) == 0


def test_failed_and_nothing_run_are_one(runner):
    assert runner.exit_code(result_of(suite_of(lambda: 1 / 0)), allow_skipped=True) == 1
    assert runner.exit_code(result_of(unittest.TestSuite()), allow_skipped=True) == 1


def test_a_module_that_slicer_did_not_load_is_a_failure(runner):
    result = result_of(runner.tests_of("SegmentEditorHNSeg"))
    assert runner.exit_code(result, allow_skipped=True) == 1
    assert "additional-module-paths" in result.errors[0][1]
