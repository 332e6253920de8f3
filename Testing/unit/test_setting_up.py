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


SLICER_5_10 = {
    "numpy": "2.0.2", "scipy": "1.13.1", "SimpleITK": "2.5.2", "pydicom": "2.4.4", "pillow": "11.2.1",
    "requests": "2.32.3", "packaging": "25.0", "setuptools": "75.8.2", "pip": "25.0.1",
}  # fmt: skip
"""As its superbuild pins them."""


def test_the_extensions_requirements_are_a_part_of_the_projects():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    of_project = {text.replace(" ", "") for text in project["dependencies"]}
    differing = {str(one) for one in requirements()} - of_project
    assert differing == {"pydicom>=2.4,<4", "torch>=2.8.0"}  # what Slicer brings; what monai asks for
    assert {one.name for one in requirements()} <= {re.split("[<>=]", text)[0] for text in of_project}


def test_nothing_that_slicer_brings_needs_another_version():
    absent = missing(version_of=versions(**SLICER_5_10))
    assert [one.name for one in absent] == ["torch", "monai", "safetensors", "psutil", "scikit-image"]


def test_torch_is_new_enough_for_monai():
    (of_monai,) = (
        text for text in importlib.metadata.requires("monai") if re.match(r"torch\b", text) and ";" not in text
    )
    assert of_monai.replace(" ", "") in [str(one) for one in requirements()]


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


def test_a_torch_that_fails_to_install_is_a_failure_with_a_sentence():
    class Failing:
        def installTorch(self, **options):
            raise RuntimeError("exit status 1")

    with pytest.raises(SetUpFailed, match=r"PyTorch could not be installed \(exit status 1\); check the network"):
        install([Requirement("torch", "")], torch_installer=Failing, pip_install=lambda _: None)


def test_a_failing_pip_is_a_failure_with_a_sentence():
    def pip_install(arguments):
        raise RuntimeError("exit status 1")

    with pytest.raises(SetUpFailed, match=r"could not install monai.*exit status 1"):
        install([Requirement("monai", "")], torch_installer=lambda: None, pip_install=pip_install)
