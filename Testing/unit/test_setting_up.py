"""What is missing, and how it is installed: without network, without Slicer."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

from HNSegLib.setting_up import Requirement, SetUpFailed, constraints, install, missing, requirements

REPOSITORY = Path(__file__).parents[2]


def versions(**installed):
    def version_of(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    return version_of


class Torch:
    def __init__(self, answer="torch"):
        self.answer, self.asked = answer, []

    def installTorch(self, askConfirmation=False, **options):  # noqa: N803
        self.asked.append((askConfirmation, options))
        return self.answer


def test_the_extensions_requirements_are_those_of_the_project():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert [str(one) for one in requirements()] == [text.replace(" ", "") for text in project["dependencies"]]


def test_this_environment_misses_nothing():
    assert missing() == ()


def test_what_is_absent_or_too_old_or_too_new_is_missing():
    wanted = [Requirement("a", ">=1.6,<1.7"), Requirement("b", ">=2.4"), Requirement("c", ""), Requirement("d", ">=1")]
    found = missing(wanted, version_of=versions(a="1.7.0", b="2.13.0+cpu", d="0.9.12"))
    assert [one.name for one in found] == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("installed", "clause", "fits"),
    [("1.6.0", "<1.7", True), ("1.10", ">=1.9", True), ("2", ">=2.0.0", True), ("3.0.1", "==3.0.1", True),
     ("3.0.2", "==3.0.1", False), ("2.13.0+cpu", ">=2.4", True), ("1.7", ">1.7", False), ("1.7", "<=1.7", True)],
)  # fmt: skip
def test_versions_are_compared_as_numbers(installed, clause, fits):
    assert (missing([Requirement("x", clause)], version_of=versions(x=installed)) == ()) is fits


def test_torch_goes_through_the_pytorch_extension_and_the_rest_through_pip_under_slicers_pins():
    torch, said, pins = Torch(), [], []

    def pip_install(arguments):
        said.append(arguments)
        pins.append(Path(arguments[1]).read_text())

    install(
        [Requirement("torch", ">=2.4"), Requirement("monai", ">=1.6,<1.7"), Requirement("rich", ">=13")],
        torch_installer=lambda: torch, pip_install=pip_install,
    )  # fmt: skip
    assert torch.asked == [(True, {"torchVersionRequirement": ">=2.4"})]
    assert said[0][0] == "--constraint"
    assert said[0][2:] == ["monai>=1.6,<1.7", "rich>=13"]
    numpy = importlib.metadata.version("numpy")
    assert f"numpy=={numpy}" in pins[0].splitlines()
    assert re.search(r"^SimpleITK==", pins[0], re.MULTILINE)


def test_pins_name_only_what_is_installed():
    assert constraints(versions(numpy="1.26.4", SimpleITK="2.5.0")) == ("numpy==1.26.4", "SimpleITK==2.5.0")


def test_without_the_pytorch_extension_the_remedy_is_named_and_nothing_is_installed():
    said = []
    with pytest.raises(SetUpFailed, match="Extensions Manager"):
        install([Requirement("torch", ">=2.4"), Requirement("monai", "")], torch_installer=lambda: None,
                pip_install=said.append)  # fmt: skip
    assert not said


def test_declining_torch_is_a_failure_with_a_sentence():
    with pytest.raises(SetUpFailed, match="was not installed"):
        install([Requirement("torch", "")], torch_installer=lambda: Torch(None), pip_install=lambda _: None)


def test_a_failing_pip_is_a_failure_with_a_sentence():
    def pip_install(arguments):
        raise RuntimeError("exit status 1")

    with pytest.raises(SetUpFailed, match=r"could not install monai.*exit status 1"):
        install([Requirement("monai", "")], torch_installer=lambda: None, pip_install=pip_install)
