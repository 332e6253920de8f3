"""Transfer learning: start from another network's weights, and keep the first layers as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from hnseg.errors import ConfigError


def start(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    partly: bool,
    classes: Sequence[str] = (),
    source_classes: Sequence[str] = (),
) -> tuple[str, ...]:
    """Load the weights that fit by name and shape; returns the names of those that start anew.

    With ``partly`` a layer that gives values by class takes those of the ``classes`` that ``source_classes`` knows too;
    the others start anew in it. ``ConfigError`` if some do not fit and ``partly`` is False, or if less than half do.
    """
    own = network.state_dict()
    given = {name: tensor for name, tensor in weights.items() if name in own}
    if partly:
        given = {name: _by_class(tensor, own[name], classes, source_classes) for name, tensor in given.items()}
    fitting = {name: tensor for name, tensor in given.items() if own[name].shape == tensor.shape}
    network.load_state_dict(fitting, strict=False)
    fresh = tuple(name for name in own if name not in fitting)
    if fresh and not partly:
        raise ConfigError(f"The weights to start from lack {fresh[0]}; use `transfer` if the networks are to differ.")
    if len(fresh) > len(own) / 2:
        raise ConfigError(f"Only {len(own) - len(fresh)} of {len(own)} weights fit this network; give a like one.")
    return fresh


def _by_class(tensor: Tensor, own: Tensor, classes: Sequence[str], source_classes: Sequence[str]) -> Tensor:
    """``own`` with the rows of the classes that both know, if its rows and the tensor's are values by class."""
    if own.shape == tensor.shape or not classes or not source_classes:
        return tensor
    if own.shape[1:] != tensor.shape[1:] or len(own) * len(source_classes) != len(tensor) * len(classes):
        return tensor
    merged = own.clone().reshape(-1, len(classes), *own.shape[1:])
    rows = tensor.reshape(-1, len(source_classes), *tensor.shape[1:])
    for n, name in enumerate(classes):
        if name in source_classes:
            merged[:, n] = rows[:, source_classes.index(name)]
    return merged.flatten(0, 1)


def freeze(network: nn.Module, share: float) -> int:
    """Keep the first ``share`` of the layers with weights, in the order of the network; returns how many that are."""
    layers = [layer for layer in network.modules() if next(layer.parameters(recurse=False), None) is not None]
    kept = layers[: round(share * len(layers))]
    for layer in kept:
        layer.requires_grad_(False)
    return len(kept)
