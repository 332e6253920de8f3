"""The model bundle: a MONAI Bundle folder with safetensors weights, opened only if every file is what it should be."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hnseg.errors import ConfigError, InputError, ModelError, OutputError
from hnseg.models.ensemble import Ensemble
from hnseg.models.metadata import MODEL, BundleMetadata, NetworkSettings, monai_inference, monai_metadata
from hnseg.models.networks import build_network
from hnseg.models.nnunet import DATASET, PLANS, NnunetResults, is_nnunet_folder, open_nnunet
from hnseg.models.places import find_bundle
from hnseg.plain import from_plain, to_plain
from hnseg.version import RESEARCH_USE, __version__

METADATA = "configs/metadata.json"
INFERENCE = "configs/inference.json"
CARD = "docs/README.md"
LICENCE = "LICENSE"

_REQUIRED = (INFERENCE, CARD, LICENCE)
_PICKLES = frozenset({".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".joblib"})
_METADATA_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened, verified bundle."""

    folder: Path
    metadata: BundleMetadata

    @property
    def name(self) -> str:
        """The model's name."""
        return self.metadata.name

    @property
    def card(self) -> str:
        """The model card, Markdown."""
        return (self.folder / CARD).read_text(encoding="utf-8")

    @property
    def digest(self) -> str:
        """SHA-256 of the metadata file: with it every file of the bundle is pinned."""
        return file_sha256(self.folder / METADATA)

    def load_network(self, device: torch.device | str = "cpu") -> nn.Module:
        """The first network with its weights in float32, in evaluation mode. ``ModelError`` if the two do not fit."""
        return self._load(self.metadata.network, MODEL, self.metadata.patch_kji, device)

    def load_networks(self, device: torch.device | str = "cpu") -> tuple[nn.Module, ...]:
        """The first network, then each stage's."""
        stages = self.metadata.stages
        fine = (self._load(stage.network, stage.name, stage.patch_kji, device) for stage in stages)
        return (self.load_network(device), *fine)

    def _load(
        self, settings: NetworkSettings, stem: str, patch_kji: tuple[int, int, int], device: torch.device | str
    ) -> nn.Module:
        members = []
        for name in settings.weight_files(stem):
            network = _build(settings, patch_kji, self.name)
            _load_weights(network, self._state_dict(name), self.name)
            members.append(network.eval().to(device))
        of_logits = self.metadata.nnunet is not None
        return members[0] if len(members) == 1 else Ensemble(members, of_logits=of_logits).eval()

    def _state_dict(self, weights: str) -> dict[str, Tensor]:
        """What one of ``metadata.weights`` holds."""
        return _read_weights(self.folder / weights)


@dataclass(frozen=True, slots=True)
class NnunetBundle(Bundle):
    """An nnU-Net v2 results folder, used where it lies."""

    results: NnunetResults

    @property
    def card(self) -> str:
        """What the folder says of itself, Markdown."""
        metadata = self.metadata
        organs = ", ".join(metadata.labels[1:])
        return (
            f"# {metadata.title}\n\n**{RESEARCH_USE}**\n\n- Folds: {metadata.network.members}\n- Organs: {organs}\n"
            f"- Licence and training data: {metadata.licence}\n"
        )

    @property
    def digest(self) -> str:
        """SHA-256 over those of the plans, the data set's labels and every checkpoint."""
        parts = (self.folder / PLANS, self.folder / DATASET, *self.results.checkpoints)
        return hashlib.sha256("".join(map(file_sha256, parts)).encode()).hexdigest()

    def _state_dict(self, weights: str) -> dict[str, Tensor]:
        return self.results.state_dict(self.metadata.weights.index(weights))

    def save(self, folder: Path) -> Bundle:
        """Write it as a bundle with safetensors weights."""
        first, *others = (self._state_dict(name) for name in self.metadata.weights)
        return write_bundle(
            folder, metadata=self.metadata, state_dict=first, others=others, card=self.card, half=False,
            licence_text=f"{self.metadata.licence}\n",
        )  # fmt: skip


def open_bundle(name_or_path: str | Path) -> Bundle:
    """The bundle of that name on the search path, or in that folder; verified. ``ModelError`` says what is wrong.

    The folder may also be that of a trained nnU-Net v2 model.
    """
    path = find_bundle(name_or_path)
    if is_nnunet_folder(path):
        results = open_nnunet(path.resolve())
        return NnunetBundle(results.folder, results.metadata, results)
    return verify_bundle(path)


def verify_bundle(path: str | Path) -> Bundle:
    """Check a bundle folder file by file; returns it, opened. Nothing of it is executed or unpickled.

    ``ModelError`` when a file is missing, was altered, is not listed, is a link or a pickle, when a listed name leaves
    the folder, or when the metadata cannot be understood.
    """
    folder = Path(path).expanduser().resolve()
    metadata = _read_metadata(folder)
    present = _files_in(folder)
    for name in sorted(present | set(metadata.files)):
        _refuse_pickle(name)
    for name in metadata.files:
        _refuse_escape(name)
    _compare_names(metadata, present)
    for name, expected in metadata.files.items():
        if file_sha256(folder / name) != expected.lower():
            raise ModelError(f"{name} in {metadata.name!r} is not the file that was published; install the model anew.")
    return Bundle(folder, metadata)


def write_bundle(
    folder: str | Path,
    *,
    metadata: BundleMetadata,
    state_dict: Mapping[str, Tensor],
    card: str,
    licence_text: str,
    half: bool = True,
    others: Sequence[Mapping[str, Tensor]] = (),
    documents: Mapping[str, bytes] = MappingProxyType({}),
) -> Bundle:
    """Write a bundle and open it again; with ``half`` the weights are stored in float16. Replaces what was there.

    ``others``: the weights after the first, in the order of ``metadata.weights``: further members, then the stages'.
    ``documents``: the card's pictures, by their names beside it. ``metadata.files`` is filled in. The networks that the
    metadata name must take the weights. Raises ``ModelError`` if not, ``OutputError`` if the folder cannot be written;
    nothing partial is left behind.
    """
    target = Path(folder)
    states = (state_dict, *others)
    if len(states) != len(metadata.weights):
        due = ", ".join(metadata.weights)
        raise ModelError(f"{metadata.name!r} needs weights for {due}; got {len(states)} sets of them.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".bundle-", dir=target.parent) as partial:
            draft = Path(partial) / target.name
            _write_documents(draft / CARD, card, documents)
            _write_files(draft, metadata, states, licence_text, half=half)
            verify_bundle(draft).load_networks()
            replace_folder(draft, target)
    except OSError as error:
        raise OutputError(f"The bundle cannot be written to {target} ({error.strerror}); choose another.") from error
    return verify_bundle(target)


def replace_folder(source: Path, target: Path) -> None:
    """Move ``source`` to ``target`` in one step as others see it; what was there goes only after that."""
    old = source.with_name(f"{source.name}.replaced")
    if target.exists():
        target.rename(old)
    source.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex; ``ModelError`` if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path.name} of the model cannot be read ({error.strerror}); install it anew.") from error


def _read_metadata(folder: Path) -> BundleMetadata:
    path = folder / METADATA
    if not path.is_file():
        raise ModelError(f"{folder} is no model bundle: it has no {METADATA}; give the bundle's own folder.")
    if path.stat().st_size > _METADATA_LIMIT:
        raise ModelError(f"{METADATA} in {folder.name!r} is larger than any metadata; install the model anew.")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{METADATA} in {folder.name!r} is not readable JSON; install the model anew.") from error
    if not isinstance(document, dict) or "hnseg" not in document:
        raise ModelError(f"{folder.name!r} is a bundle without the 'hnseg' part in {METADATA}; export it with HNSeg.")
    try:
        return from_plain(BundleMetadata, document["hnseg"], where=f"The metadata of {folder.name!r}")
    except InputError as error:
        raise ModelError(str(error)) from error


def _files_in(folder: Path) -> set[str]:
    """Relative POSIX names of all files but the metadata; links are refused."""
    names = set()
    for root, folders, files in os.walk(folder):
        for entry in (*folders, *files):
            path = Path(root) / entry
            if path.is_symlink():
                raise ModelError(f"{entry} in {folder.name!r} is a link; a bundle holds plain files only.")
        names |= {(Path(root) / name).relative_to(folder).as_posix() for name in files}
    return names - {METADATA}


def _refuse_pickle(name: str) -> None:
    if PurePosixPath(name).suffix.lower() in _PICKLES:
        raise ModelError(f"{name} can hold code that runs when it is opened; HNSeg takes safetensors weights only.")


def _refuse_escape(name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
        raise ModelError(f"The bundle lists {name!r}, which leaves its folder; do not use this bundle.")


def _compare_names(metadata: BundleMetadata, present: set[str]) -> None:
    missing = sorted((set(metadata.files) | set(_due(metadata))) - present)
    extra = sorted(present - set(metadata.files))
    if missing:
        raise ModelError(f"{metadata.name!r} lacks {', '.join(missing)}; install the model anew.")
    if extra:
        raise ModelError(f"{metadata.name!r} holds files that it does not list: {', '.join(extra)}; install it anew.")


def _due(metadata: BundleMetadata) -> tuple[str, ...]:
    """The files that a bundle must hold besides its metadata."""
    return (*_REQUIRED, *metadata.weights)


def _build(settings: NetworkSettings, patch_kji: tuple[int, int, int], name: str) -> nn.Module:
    try:
        network = build_network(settings.name, **settings.arguments)
    except ConfigError as error:
        raise ModelError(f"The network of {name!r} cannot be built: {error}") from error
    divisor = getattr(network, "divisor", (1, 1, 1))
    if any(n % d for n, d in zip(patch_kji, divisor, strict=True)):
        raise ModelError(f"The patch {patch_kji} of {name!r} is no multiple of {divisor}; correct its metadata.")
    return network


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path.name} is not a whole safetensors file; install the model anew.") from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _load_weights(network: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Strict: the same names (of a shared tensor, the first) and shapes on both sides."""
    due = _unshared(network)
    faults = [f"{key} is missing" for key in due.keys() - state.keys()]
    faults += [f"{key} is not the network's" for key in state.keys() - due.keys()]
    faults += [
        f"{key} is {tuple(state[key].shape)}, not {tuple(due[key].shape)}"
        for key in due.keys() & state.keys()
        if state[key].shape != due[key].shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        first = "; ".join(sorted(faults)[:3])
        raise ModelError(f"The weights of {name!r} do not fit its network ({first}{more}); install the model anew.")
    with torch.no_grad():
        for key, tensor in due.items():
            tensor.copy_(state[key])


def _unshared(network: nn.Module) -> dict[str, Tensor]:
    """The network's state without second names of one tensor: MONAI's DynUNet registers each block twice."""
    found: dict[tuple[int, torch.Size], str] = {}
    state = network.state_dict()
    for name, tensor in state.items():
        found.setdefault((tensor.data_ptr() or -id(tensor), tensor.shape), name)
    return {name: state[name] for name in found.values()}


def _write_files(
    draft: Path,
    metadata: BundleMetadata,
    states: Sequence[Mapping[str, Tensor]],
    licence_text: str,
    *,
    half: bool,
) -> None:
    """Everything but the documents, whose digests are taken too."""
    for name in (METADATA, metadata.weights[0]):
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
    for name, network, state in zip(metadata.weights, _built(metadata), states, strict=True):
        second_names = network.state_dict().keys() - _unshared(network).keys()
        kept = {key: _stored(tensor, half=half) for key, tensor in state.items() if key not in second_names}
        save_file(kept, draft / name)
    _write_json(draft / INFERENCE, monai_inference(metadata, metadata.weights[0]))
    (draft / LICENCE).write_text(licence_text, encoding="utf-8")
    complete = replace(metadata, files={name: file_sha256(draft / name) for name in sorted(_files_in(draft))})
    document = {**monai_metadata(complete, versions=_versions()), "hnseg": to_plain(complete)}
    _write_json(draft / METADATA, document)


def _write_documents(path: Path, card: str, documents: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(card, encoding="utf-8")
    for name, content in documents.items():
        (path.parent / name).parent.mkdir(exist_ok=True)
        (path.parent / name).write_bytes(content)


def _built(metadata: BundleMetadata) -> Iterator[nn.Module]:
    """A network for each of ``metadata.weights``."""
    stages = ((stage.network, stage.patch_kji) for stage in metadata.stages)
    for settings, patch_kji in ((metadata.network, metadata.patch_kji), *stages):
        for _ in range(settings.members):
            yield _build(settings, patch_kji, metadata.name)


def _stored(tensor: Tensor, *, half: bool) -> Tensor:
    """A copy of its own (safetensors refuses shared memory), in plain layout."""
    kept = tensor.detach().cpu().clone().contiguous(memory_format=torch.contiguous_format)
    return kept.half() if half and kept.is_floating_point() else kept


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    packages = ("monai", "torch", "numpy", "safetensors")
    return {"hnseg": __version__, **{name: importlib.metadata.version(name) for name in packages}}
