"""Transfer learning: start from another network's weights, and keep the first layers as they are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from hnseg.errors import ConfigError


def start(network: nn.Module, weights: Mapping[str, Tensor], *, partly: bool) -> tuple[str, ...]:
    """Load the weights that fit by name and shape; returns the names of those that start anew.

    ``ConfigError`` if some do not fit and ``partly`` is False, or if less than half do.
    """
    own = network.state_dict()
    fitting = {name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape}
    network.load_state_dict(fitting, strict=False)
    fresh = tuple(name for name in own if name not in fitting)
    if fresh and not partly:
        raise ConfigError(f"The weights to start from lack {fresh[0]}; use `transfer` if the networks are to differ.")
    if len(fresh) > len(own) / 2:
        raise ConfigError(f"Only {len(own) - len(fresh)} of {len(own)} weights fit this network; give a like one.")
    return fresh


def freeze(network: nn.Module, share: float) -> int:
    """Keep the first ``share`` of the layers with weights, in the order of the network; returns how many that are."""
    layers = [layer for layer in network.modules() if next(layer.parameters(recurse=False), None) is not None]
    kept = layers[: round(share * len(layers))]
    for layer in kept:
        layer.requires_grad_(False)
    return len(kept)
