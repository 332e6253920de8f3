"""Where model bundles live on a machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hnseg.errors import ModelError
from hnseg.plain import nearest

MODELS_VARIABLE = "HNSEG_MODELS"
"""Folders that are searched first, separated as in PATH."""


def user_folder() -> Path:
    """Where ``install_bundle`` puts bundles: the platform's folder for a user's application data."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "hnseg" / "models"


def shipped_folders() -> tuple[Path, ...]:
    """Resources/Models of an installed extension (beside the package) and of a checkout (one level up)."""
    beside = Path(__file__).resolve().parents[2]
    return beside / "Resources" / "Models", beside.parent / "Resources" / "Models"


def search_path() -> tuple[Path, ...]:
    """Folders that hold bundles, the first hit wins: $HNSEG_MODELS, the user's, those that ship."""
    named = [Path(text).expanduser() for text in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if text]
    return (*named, user_folder(), *shipped_folders())


def bundle_folders() -> dict[str, Path]:
    """Bundle folders by folder name, in search order; those that an earlier one hides are left out."""
    found: dict[str, Path] = {}
    for place in search_path():
        if place.is_dir():
            for folder in sorted(place.iterdir()):
                if is_bundle_folder(folder):
                    found.setdefault(folder.name, folder)
    return found


def is_bundle_folder(folder: Path) -> bool:
    """Whether a folder looks like a bundle, by its metadata file; hidden (half-installed) ones do not."""
    return not folder.name.startswith(".") and (folder / "configs" / "metadata.json").is_file()


def find_bundle(name_or_path: str | Path) -> Path:
    """That folder, or the bundle of that name on the search path. ``ModelError`` if there is neither."""
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    known = bundle_folders()
    if str(name_or_path) not in known:
        remedy = nearest(str(name_or_path), known) if known else "install one with `hnseg models install`."
        raise ModelError(f"There is no model {str(name_or_path)!r}; {remedy}")
    return known[str(name_or_path)]
