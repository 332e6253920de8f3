"""What HNSeg needs beside Slicer, what of it is missing, and how to install it. Standard library only.

Installing happens when the user asks for it in the set-up panel, never at import. Packages that belong to Slicer
(numpy, SimpleITK, …) are pinned to the versions that it runs with: replacing them under it breaks the application.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hnseg.errors import HNSegError

TORCH = "torch"
_OF_SLICER = ("numpy", "scipy", "SimpleITK", "pydicom", "pillow", "requests", "packaging", "setuptools", "pip", "torch")
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
CURATION = Path(__file__).with_name("curation_requirements.txt")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A distribution and the versions that will do, as in ``monai`` ``>=1.6,<1.7``."""

    name: str
    versions: str

    def __str__(self) -> str:
        """As pip reads it."""
        return self.name + self.versions


class TorchInstaller(Protocol):
    """What we use of the PyTorch extension's ``PyTorchUtilsLogic``."""

    def installTorch(self, askConfirmation: bool = False, **options: Any) -> Any:
        """Install torch for this machine's graphics card; None when the user declined."""


class SetUpFailed(HNSegError):
    """A package could not be installed; the message says what to do."""


def requirements(path: Path = _REQUIREMENTS) -> tuple[Requirement, ...]:
    """Those of the extension, in file order."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(_parsed(line) for line in lines if line and not line.startswith("#"))


def missing(
    wanted: Iterable[Requirement] | None = None, *, version_of: Callable[[str], str] = importlib.metadata.version
) -> tuple[Requirement, ...]:
    """Those that are not installed, or in a version that will not do."""
    return tuple(one for one in (requirements() if wanted is None else wanted) if not _is_met(one, version_of))


def check_curation() -> None:
    """For the doors without a set-up box. Raises ``SetUpFailed``, naming what is missing and how to install it."""
    if absent := [str(one) for one in missing(requirements(CURATION))]:
        quoted = " ".join(f'"{one}"' for one in absent)
        raise SetUpFailed(
            f"Curation needs {', '.join(absent)}, which this Python lacks; click Install in Slicer's module "
            f'"Head-neck curation (HNSeg)", or run: "{sys.executable}" -m pip install {quoted}'
        )


def install(
    absent: Iterable[Requirement],
    *,
    torch_installer: Callable[[], TorchInstaller | None],
    pip_install: Callable[[list[str]], Any],
) -> None:
    """Install what is missing: torch by the PyTorch extension, the rest by pip under Slicer's own pins.

    ``pip_install`` takes pip's arguments. Raises ``SetUpFailed`` with a remedy.
    """
    absent = tuple(absent)
    torch = [one for one in absent if one.name == TORCH]
    if torch:
        _install_torch(torch[0], torch_installer())
    others = [str(one) for one in absent if one.name != TORCH]
    if not others:
        return
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "constraints.txt"
        pins.write_text("\n".join(constraints()) + "\n", encoding="utf-8")
        try:
            pip_install(["--constraint", str(pins), *others])
        except Exception as error:  # pip's failures have no common type across Slicer's versions
            raise SetUpFailed(f"pip could not install {', '.join(others)} ({error}); check the network.") from error
    importlib.invalidate_caches()


def constraints(version_of: Callable[[str], str] = importlib.metadata.version) -> tuple[str, ...]:
    """``name==version`` of the installed packages that must stay as they are."""
    return tuple(f"{name}=={version}" for name in _OF_SLICER if (version := _version(name, version_of)))


def torch_installer_of_slicer() -> TorchInstaller | None:
    """The PyTorch extension's logic; None when the extension is not installed."""
    try:
        import PyTorchUtils
    except ImportError:
        return None
    logic: TorchInstaller = PyTorchUtils.PyTorchUtilsLogic()
    return logic


def pip_install_of_slicer(arguments: list[str]) -> None:
    """Slicer's own pip."""
    import slicer.util

    slicer.util.pip_install(arguments)


def _install_torch(wanted: Requirement, installer: TorchInstaller | None) -> None:
    if installer is None:
        raise SetUpFailed(
            "PyTorch is installed by Slicer's PyTorch extension, which is not there; install it with the Extensions "
            "Manager, restart Slicer and come back."
        )
    try:
        torch = installer.installTorch(askConfirmation=True, torchVersionRequirement=wanted.versions)
    except Exception as error:  # the extension lets pip's failures through
        raise SetUpFailed(f"PyTorch could not be installed ({error}); check the network.") from error
    if torch is None:
        raise SetUpFailed("PyTorch was not installed; HNSeg cannot segment without it.")


def _parsed(line: str) -> Requirement:
    name = re.match(r"[A-Za-z0-9_.-]+", line)
    if name is None:
        raise SetUpFailed(f"{line!r} is not a requirement; reinstall the extension.")
    return Requirement(name.group(), line[name.end() :].strip())


def _is_met(requirement: Requirement, version_of: Callable[[str], str]) -> bool:
    installed = _version(requirement.name, version_of)
    clauses = filter(None, requirement.versions.split(","))
    return bool(installed) and all(_fits(installed, clause.strip()) for clause in clauses)


def _version(name: str, version_of: Callable[[str], str]) -> str:
    try:
        return version_of(name) or ""
    except importlib.metadata.PackageNotFoundError:
        return ""


def _fits(installed: str, clause: str) -> bool:
    operator = re.match(r"[<>=!]+", clause)
    symbol = operator.group() if operator else "=="
    have, want = _numbers(installed), _numbers(clause.removeprefix(symbol))
    width = max(len(have), len(want))
    have, want = have + (0,) * (width - len(have)), want + (0,) * (width - len(want))
    return {">=": have >= want, "<": have < want, "==": have == want, "<=": have <= want, ">": have > want}[symbol]


def _numbers(version: str) -> tuple[int, ...]:
    """The release part: ``2.13.0+cpu`` is (2, 13, 0)."""
    release = re.match(r"\s*(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in release.group(1).split(".")) if release else ()
