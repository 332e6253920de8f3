"""Transfer learning: start from another network's weights, and keep the first layers as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from hnseg.errors import ConfigError


def start(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    partly: bool,
    classes: Sequence[str] = (),
    source_classes: Sequence[str] = (),
    by_class: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> tuple[str, ...]:
    """Load the weights that fit by name and shape; returns the names of those that start anew.

    ``by_class``: the weights that go by class, with the axes along which they do. With ``partly`` these take
    the values of the ``classes`` that ``source_classes`` knows too; the others start anew in them. ``ConfigError`` if
    some do not fit or the classes differ and ``partly`` is False, or if less than half of the weights fit.
    """
    own = network.state_dict()
    same = list(classes) == list(source_classes)
    given: dict[str, Tensor | None] = {name: tensor for name, tensor in weights.items() if name in own}
    if partly and not same:
        heads = {name: axes for name, axes in by_class.items() if name in given}
        given |= {
            name: _by_class(weights[name], own[name], axes, classes, source_classes) for name, axes in heads.items()
        }
    fitting = {name: tensor for name, tensor in given.items() if tensor is not None and own[name].shape == tensor.shape}
    fresh = tuple(name for name in own if name not in fitting)
    if fresh and not partly:
        raise ConfigError(f"The weights to start from lack {fresh[0]}; use `transfer` if the networks are to differ.")
    if not (partly or same):
        raise ConfigError("The weights to start from are for other organs; use `transfer`, which renews theirs.")
    if len(fresh) > len(own) / 2:
        raise ConfigError(f"Only {len(own) - len(fresh)} of {len(own)} weights fit this network; give a like one.")
    network.load_state_dict(fitting, strict=False)
    return fresh


def _by_class(
    tensor: Tensor, own: Tensor, axes: Sequence[int], classes: Sequence[str], source_classes: Sequence[str]
) -> Tensor | None:
    """``own`` with the values of the classes that both know; None if the two do not go by class in the same way."""
    here = [torch.arange(n) for n in own.shape]
    there = [torch.arange(n) for n in tensor.shape]
    known = [(n, source_classes.index(name)) for n, name in enumerate(classes) if name in source_classes]
    for axis in axes:
        groups, rest = divmod(len(here[axis]), len(classes))
        if rest or len(there[axis]) != groups * len(source_classes):
            return None
        ours, theirs = zip(*known, strict=True) if known else ((), ())
        here[axis] = here[axis].view(groups, -1)[:, list(ours)].flatten()
        there[axis] = there[axis].view(groups, -1)[:, list(theirs)].flatten()
    if [len(n) for n in here] != [len(n) for n in there]:
        return None
    merged = own.clone()
    merged[torch.meshgrid(*here, indexing="ij")] = tensor[torch.meshgrid(*there, indexing="ij")].to(own.dtype)
    return merged


def freeze(network: nn.Module, share: float) -> int:
    """Keep the first ``share`` of the layers with weights, in the order of the network; returns how many that are."""
    layers = [layer for layer in network.modules() if next(layer.parameters(recurse=False), None) is not None]
    kept = layers[: round(share * len(layers))]
    for layer in kept:
        layer.requires_grad_(False)
    return len(kept)


def frozen_norms(network: nn.Module) -> Iterator[nn.Module]:
    """The batch norms that ``freeze`` kept, or that follow a layer that it kept and have no weights of their own."""
    kept = False
    for layer in network.modules():
        weights = list(layer.parameters(recurse=False))
        kept = not any(weight.requires_grad for weight in weights) if weights else kept
        if kept and isinstance(layer, _BATCH_NORMS):
            yield layer


_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
