"""`hnseg models`: list, show, install, verify, remove."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from hnseg.cli.console import say, say_error, table

if TYPE_CHECKING:
    from hnseg.models.store import Listed


def add_parser(subparsers: Any) -> None:
    """Add `models` and its five actions."""
    parser = subparsers.add_parser("models", help="list, show, install, verify or remove models")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    listing = actions.add_parser("list", help="the models on this machine")
    listing.add_argument("--json", action="store_true", help="as JSON, for programs")
    show = actions.add_parser("show", help="a model's card and settings")
    show.add_argument("name", metavar="NAME", help="a model's name or folder")
    show.add_argument("--json", action="store_true", help="the settings as JSON instead of the card")
    install = actions.add_parser(
        "install", help="install a bundle (folder, zip file or address) or an nnU-Net v2 results folder"
    )
    install.add_argument(
        "source", metavar="SOURCE",
        help="folder of a bundle or of an nnU-Net v2 result (nnUNetTrainer__nnUNetPlans__3d_fullres, say, with "
        "plans.json, dataset.json and fold_*), which becomes a bundle; zip file; or http(s) address of a zip file",
    )  # fmt: skip
    install.add_argument("--sha256", metavar="HEX", help="SHA-256 of the zip file; required for an address")
    install.add_argument("--replace", action="store_true", help="replace a model of the same name")
    verify = actions.add_parser("verify", help="check every file of a model against its SHA-256")
    verify.add_argument("name", metavar="NAME", nargs="+", help="a model's name or folder")
    remove = actions.add_parser("remove", help="delete an installed model")
    remove.add_argument("name", metavar="NAME", help="a model's name")


def run(args: argparse.Namespace) -> int:
    """Do the action; returns the exit code."""
    action = {"list": _list, "show": _show, "install": _install, "verify": _verify, "remove": _remove}[args.action]
    action(args)
    return 0


def _list(args: argparse.Namespace) -> None:
    from hnseg.models.places import search_path
    from hnseg.models.store import list_bundles

    found = list_bundles()
    if args.json:
        say(json.dumps([_plain(entry) for entry in found], indent=2))
    elif found:
        say(table(("name", "version", "organs", "licence", "folder"), [_row(entry) for entry in found]))
    else:
        say_error("No model was found in " + ", ".join(map(str, search_path())) + "; use `hnseg models install`.")
    for entry in found:
        if entry.fault:
            say_error(f"Warning: {entry.fault}")


def _row(entry: Listed) -> tuple[str, ...]:
    if entry.bundle is None:
        return entry.name, "", "", "broken", str(entry.folder)
    metadata = entry.bundle.metadata
    return entry.name, metadata.version, str(len(metadata.organs)), metadata.licence, str(entry.folder)


def _plain(entry: Listed) -> dict[str, Any]:
    metadata = entry.bundle.metadata if entry.bundle else None
    return {
        "name": entry.name,
        "folder": str(entry.folder),
        "version": metadata.version if metadata else None,
        "licence": metadata.licence if metadata else None,
        "organs": list(metadata.organs) if metadata else [],
        "fault": entry.fault or None,
    }


def _show(args: argparse.Namespace) -> None:
    from hnseg.models.bundle import open_bundle
    from hnseg.plain import to_plain

    bundle = open_bundle(args.name)
    say(json.dumps(to_plain(bundle.metadata), indent=2, ensure_ascii=False) if args.json else bundle.card)


def _install(args: argparse.Namespace) -> None:
    from hnseg.models.store import install_bundle

    bundle = install_bundle(args.source, sha256=args.sha256, replace=args.replace)
    say(f"Installed {bundle.name} {bundle.metadata.version} in {bundle.folder}")


def _verify(args: argparse.Namespace) -> None:
    from hnseg.models.bundle import open_bundle

    for name in args.name:
        bundle = open_bundle(name)
        say(f"{bundle.name} {bundle.metadata.version}: {len(bundle.metadata.files)} files as published")


def _remove(args: argparse.Namespace) -> None:
    from hnseg.models.store import remove_bundle

    say(f"Removed {remove_bundle(args.name)}")
