"""The trainable bijection of a flow, run on weights that are given to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.func import functional_call

from pyro_klmodes.guides.flow.zuko_modules import LazyComposedTransform

__all__ = ["BoundLayers", "Layers", "Weights"]


class Layers(nn.Module):
    """A chain of zuko transforms between noise and values.

    Args:
        chain: the transforms.
        forward_is_to_noise: whether the transforms, in their own direction, map values to noise.
    """

    def __init__(self, chain: LazyComposedTransform, *, forward_is_to_noise: bool) -> None:
        super().__init__()
        self.chain = chain
        self.forward_is_to_noise = forward_is_to_noise

    def forward(
        self,
        x: Tensor,  # (*batch, D)
        *,
        to_noise: bool,
    ) -> tuple[Tensor, Tensor]:  # (*batch, D), (*batch)
        """The image of x and the log-determinant of the Jacobian there."""
        transform = self.chain()
        if to_noise != self.forward_is_to_noise:
            transform = transform.inv
        return transform.call_and_ladj(x)


class Weights(PyroModule):
    """The weights of a network, taken out of it.

    Pyro's parameter store has the last word on the value of a parameter: after a second fit, a
    ``deepcopy`` or ``ParamStoreDict.load`` it may hold another tensor than the module. Pyro hands
    that out for a ``PyroParam``, while an ``nn.Parameter`` or a plain ``nn.Module`` would go on
    with a tensor of its own, which no optimizer moves. So the weights live here, as ``PyroParam``,
    and the network is given them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.paths = [name for name, _ in network.named_parameters()]
        for path in self.paths:
            owner, name = _owner(network, path)
            value = getattr(owner, name).detach().clone()
            setattr(self, _flat(path), PyroParam(value, constraints.real))
            delattr(owner, name)

    def read(self) -> dict[str, Tensor]:
        """The current values, by their path in the network, each a ``param`` site."""
        return {path: getattr(self, _flat(path)) for path in self.paths}


def _flat(path: str) -> str:
    return path.replace(".", "_")


def _owner(network: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, name = path.rpartition(".")
    return network.get_submodule(parent), name


@dataclass(frozen=True)
class BoundLayers:
    """Layers at given values of their weights."""

    layers: nn.Module
    weights: Mapping[str, Tensor]

    def to_values(
        self,
        z: Tensor,  # (*batch, D)
    ) -> tuple[Tensor, Tensor]:  # (*batch, D), (*batch)
        """From noise to values, with the log-determinant."""
        return functional_call(self.layers, dict(self.weights), (z,), {"to_noise": False})

    def to_noise(
        self,
        x: Tensor,  # (*batch, D)
    ) -> tuple[Tensor, Tensor]:  # (*batch, D), (*batch)
        """From values to noise, with the log-determinant."""
        return functional_call(self.layers, dict(self.weights), (x,), {"to_noise": True})
