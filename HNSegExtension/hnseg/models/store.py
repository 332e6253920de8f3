"""Bundles on this machine: list, install, remove."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import stat
import tempfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hnseg.errors import ModelError, OutputError
from hnseg.models.bundle import Bundle, NnunetBundle, file_sha256, open_bundle, replace_folder, verify_bundle
from hnseg.models.places import bundle_folders, is_bundle_folder, user_folder
from hnseg.plain import nearest

SIZE_LIMIT = 4 << 30
"""Bytes that a bundle may have, packed or unpacked."""

_CHUNK = 1 << 20
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Listed:
    """A bundle folder on the search path: the bundle, or the sentence that says why it cannot be used."""

    name: str
    folder: Path
    bundle: Bundle | None
    fault: str = ""


def list_bundles() -> tuple[Listed, ...]:
    """Every bundle on the search path, by name; broken ones with their fault instead of an exception."""
    return tuple(_listed(name, folder) for name, folder in sorted(bundle_folders().items()))


def _listed(name: str, folder: Path) -> Listed:
    try:
        return Listed(name, folder, verify_bundle(folder))
    except ModelError as error:
        return Listed(name, folder, None, str(error))


def install_bundle(
    source: str | Path, *, sha256: str | None = None, replace: bool = False, into: Path | None = None
) -> Bundle:
    """Put a bundle (folder, zip file, or http(s) address of a zip file) into the user's folder, under its own name.

    The folder may also be that of a trained nnU-Net v2 model: its weights are then stored as safetensors.
    ``sha256`` (hex) is that of the zip file and required for an address. The bundle is verified before anything is
    changed. Raises ``ModelError``, or ``OutputError`` when the folder cannot be written; nothing partial stays.
    """
    target = into or user_folder()
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".install-", dir=target) as scratch:
            bundle = verify_bundle(_unpacked(str(source), sha256, Path(scratch)))
            place = target / bundle.name
            if place.exists() and not replace:
                raise ModelError(f"A model {bundle.name!r} is already installed; remove it first or use --replace.")
            replace_folder(bundle.folder, place)
    except OSError as error:
        raise OutputError(f"Nothing can be installed in {target} ({error.strerror or error}); free it up.") from error
    return verify_bundle(place)


def remove_bundle(name: str, *, installed_in: Path | None = None) -> Path:
    """Delete an installed bundle, working or not; returns where it was. Bundles elsewhere are left alone."""
    place = installed_in or user_folder()
    folders = place.iterdir() if place.is_dir() else ()
    installed = {folder.name: folder for folder in folders if is_bundle_folder(folder)}
    if name in installed:
        shutil.rmtree(installed[name])
        return installed[name]
    if name in bundle_folders():
        raise ModelError(f"{name!r} was not installed by you but lies in {bundle_folders()[name]}; it was left there.")
    remedy = nearest(name, installed) if installed else "no model is installed."
    raise ModelError(f"There is no model {name!r} to remove; {remedy}")


def _unpacked(source: str, sha256: str | None, scratch: Path) -> Path:
    """The bundle's folder inside ``scratch``."""
    if source.startswith(("http://", "https://")):
        return _extracted(_downloaded(source, sha256, scratch / "download.zip"), scratch / "unpacked")
    path = Path(source).expanduser()
    if path.is_dir():
        bundle = open_bundle(path)
        if isinstance(bundle, NnunetBundle):
            return bundle.save(scratch / "copy").folder
        return Path(shutil.copytree(bundle.folder, scratch / "copy"))
    if not path.is_file():
        raise ModelError(f"There is no bundle at {source!r}; give a folder, a zip file or an http(s) address.")
    if sha256 is not None:
        _check_digest(file_sha256(path), sha256, path.name)
    return _extracted(path, scratch / "unpacked")


def _check_digest(found: str, expected: str, name: str) -> None:
    if found != expected.strip().lower():
        raise ModelError(f"{name} has SHA-256 {found}, not the one given; ask whoever published it.")


def _downloaded(address: str, sha256: str | None, path: Path) -> Path:
    if sha256 is None:
        raise ModelError("A model from the network needs its SHA-256; give the one that its publisher states.")
    digest, size = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer, path.open("wb") as stream:
            while chunk := answer.read(_CHUNK):
                size += len(chunk)
                if size > SIZE_LIMIT:
                    raise ModelError(f"{address} holds more than {SIZE_LIMIT >> 30} GiB, no bundle; check the address.")
                digest.update(chunk)
                stream.write(chunk)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        raise ModelError(f"{address} cannot be downloaded ({error}); check the address and the network.") from error
    _check_digest(digest.hexdigest(), sha256, address)
    return path


def _extracted(archive: Path, folder: Path) -> Path:
    """Unpack a zip file; the folder that holds the bundle, which may lie one level down."""
    try:
        with zipfile.ZipFile(archive) as packed:
            members = packed.infolist()
            _check_members(members, archive.name)
            packed.extractall(folder)
    except zipfile.BadZipFile as error:
        raise ModelError(f"{archive.name} is not a whole zip file; download or pack it anew.") from error
    inner = list(folder.iterdir()) if folder.is_dir() else []
    return inner[0] if len(inner) == 1 and inner[0].is_dir() else folder


def _check_members(members: list[zipfile.ZipInfo], name: str) -> None:
    """No absolute, climbing or linking names, and no more bytes than a bundle may have."""
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member.filename:
            raise ModelError(f"{name} holds {member.filename!r}, which would leave its folder; do not use it.")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ModelError(f"{name} holds the link {member.filename!r}; a bundle holds plain files only.")
    if sum(member.file_size for member in members) > SIZE_LIMIT:
        raise ModelError(f"{name} unpacks to more than {SIZE_LIMIT >> 30} GiB, no bundle; do not use it.")
