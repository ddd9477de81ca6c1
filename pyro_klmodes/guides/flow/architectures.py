"""How the layers of a flow depend on the coordinates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.flow.layers import Layers
from pyro_klmodes.guides.flow.maps import Map, Spline
from pyro_klmodes.guides.flow.zuko_modules import (
    GeneralCouplingTransform,
    LazyComposedTransform,
    MaskedAutoregressiveTransform,
)

__all__ = ["Architecture", "Autoregressive", "Coupling", "Direction"]


class Direction(Enum):
    """The direction in which an autoregressive layer is a single pass of its network.

    The other direction takes D passes one after the other, for D coordinates.
    """

    #: inverse autoregressive flow (Kingma et al., 2016): for losses that differentiate draws
    FAST_SAMPLING = "fast sampling"
    #: masked autoregressive flow (Papamakarios et al., 2017): for densities at given values
    FAST_DENSITY = "fast density"


@dataclass(frozen=True)
class Architecture(ABC):
    """The layers of a flow, as a value; use one of the subclasses.

    Every architecture starts as the identity: the last layer of each network is zero, and both an
    affine map and a rational-quadratic spline whose unconstrained parameters are zero are the
    identity.
    """

    map: Map = field(default_factory=Spline)
    _: KW_ONLY
    transforms: int = 3
    hidden_features: tuple[int, ...] = (64, 64)
    activation: type[nn.Module] = nn.SiLU

    def __post_init__(self) -> None:
        if self.transforms < 1:
            raise InvalidArgument(f"transforms is {self.transforms}; a flow has at least one.")
        if not self.hidden_features or min(self.hidden_features) < 1:
            raise InvalidArgument(
                f"hidden_features is {self.hidden_features}; give the positive width of at least "
                "one hidden layer, such as (64, 64)."
            )

    def build(
        self,
        like: Tensor,  # (D,)
    ) -> Layers:
        """New layers for vectors of the length, type and device of ``like``.

        Raises:
            InvalidArgument: if the architecture does not exist in this dimension.
        """
        chain = [self._layer(like.numel(), index) for index in range(self.transforms)]
        for layer in chain:
            _zero_output(layer)
        layers = Layers(
            LazyComposedTransform(*chain), forward_is_to_noise=self._forward_is_to_noise
        )
        return layers.to(dtype=like.dtype, device=like.device)

    @property
    @abstractmethod
    def _forward_is_to_noise(self) -> bool:
        """Whether the layers' own direction maps values to noise."""

    @abstractmethod
    def _layer(self, dim: int, index: int) -> nn.Module:
        """The layer number ``index``."""

    @property
    def _options(self) -> dict[str, Any]:
        return {
            **self.map.univariate,
            "hidden_features": self.hidden_features,
            "activation": self.activation,
        }


@dataclass(frozen=True)
class Autoregressive(Architecture):
    """Each coordinate is mapped in a way that depends on all those before it in the order.

    ``Autoregressive(Spline())`` is a neural spline flow, ``Autoregressive(Affine())`` an inverse or
    a masked autoregressive flow. The order is reversed from layer to layer. In one dimension there
    is nothing to depend on, and the layers are plain monotone maps.

    Cost: in the fast direction one pass of the network per layer, in the other D + 1. With three
    layers, 64 draws and the gradient, on one core, in milliseconds:

    =========================  ==============  ==============
    map                        fast direction  slow direction
    =========================  ==============  ==============
    ``Spline``, D = 10                      9              95
    ``Spline``, D = 50                     28            1100
    ``Affine``, D = 10                      4              25
    ``Affine``, D = 50                      7             125
    =========================  ==============  ==============

    A flow knows the density of its own draws without the slow direction. With FAST_SAMPLING,
    losses that follow draws (ReverseKL, IWAE) are fast; with FAST_DENSITY a density at given values
    is. Losses that need both, such as ForwardKL, which draws and then holds the draws fixed, take
    the slow direction once either way; in many dimensions use ``Coupling`` for them.

    Args:
        map: the monotone map, ``Spline()`` or ``Affine()``.
        transforms: the number of layers.
        hidden_features: the widths of the hidden layers of each network.
        activation: their activation; smooth by default, as the density inherits its kinks.
        direction: which direction is fast.

    Raises:
        InvalidArgument: for no layer, or no or empty hidden layers.

    Example:
        >>> from pyro_klmodes.guides.flow import Affine
        >>> masked = Autoregressive(Affine(), direction=Direction.FAST_DENSITY)
        >>> masked.transforms
        3
    """

    direction: Direction = Direction.FAST_SAMPLING

    @property
    def _forward_is_to_noise(self) -> bool:
        return self.direction is Direction.FAST_DENSITY

    def _layer(self, dim: int, index: int) -> nn.Module:
        order = torch.arange(dim)
        if dim == 1:
            # without other coordinates zuko takes no network, and no options of one
            return MaskedAutoregressiveTransform(1, order=order, **self.map.univariate)
        order = order if index % 2 == 0 else order.flip(0)
        return MaskedAutoregressiveTransform(dim, order=order, **self._options)


@dataclass(frozen=True)
class Coupling(Architecture):
    """Every other coordinate is mapped in a way that depends on those in between.

    ``Coupling(Affine())`` is RealNVP (Dinh, Sohl-Dickstein and Bengio, 2017) and
    ``Coupling(Spline())`` a neural spline flow with coupling layers. Each layer moves half of the
    coordinates, so take more layers than of ``Autoregressive``.

    Cost: one pass of the network per layer in the direction from values to noise, two in the
    other, in any dimension. With four layers of splines, 64 draws and the gradient, on one core,
    in milliseconds:

    =========================  =======  ====================
    map                        drawing  density given values
    =========================  =======  ====================
    ``Spline``, D = 10              20                    12
    ``Spline``, D = 50              39                    26
    ``Affine``, D = 10               8                     4
    ``Affine``, D = 50               8                     5
    =========================  =======  ====================

    Args:
        map: the monotone map, ``Spline()`` or ``Affine()``.
        transforms: the number of layers, at least two.
        hidden_features: the widths of the hidden layers of each network.
        activation: their activation; smooth by default, as the density inherits its kinks.

    Raises:
        InvalidArgument: for fewer than two layers, no or empty hidden layers, or a model with a
            single coordinate.

    Example:
        >>> from pyro_klmodes.guides.flow import Affine
        >>> Coupling(Affine(), transforms=6).transforms
        6
    """

    transforms: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transforms < 2:
            raise InvalidArgument(
                f"transforms is {self.transforms}; coupling needs at least two layers, because one "
                "leaves half of the coordinates as they are."
            )

    @property
    def _forward_is_to_noise(self) -> bool:
        return True

    def _layer(self, dim: int, index: int) -> nn.Module:
        if dim < 2:
            raise InvalidArgument(
                "architecture is Coupling, which needs at least two coordinates, and the latent "
                "space has one; use Autoregressive."
            )
        mask = torch.arange(dim) % 2 == index % 2
        return GeneralCouplingTransform(dim, mask=mask, **self._options)


def _zero_output(layer: nn.Module) -> None:
    """Make the map's parameters zero whatever the coordinates they depend on."""
    network = getattr(layer, "hyper", None)
    # in one dimension there is no network and the layer holds the map's parameters themselves
    output = layer if network is None else network[-1]
    for parameter in output.parameters():
        nn.init.zeros_(parameter)
