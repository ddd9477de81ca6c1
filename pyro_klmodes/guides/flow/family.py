"""The parameters of a normalizing flow over all unconstrained latents."""

from __future__ import annotations

from pyro.distributions import constraints
from pyro.nn import PyroParam
from torch import Tensor

from pyro_klmodes.guides.flow.architectures import Architecture
from pyro_klmodes.guides.flow.bases import Base
from pyro_klmodes.guides.flow.density import FlowDensity
from pyro_klmodes.guides.flow.layers import BoundLayers, Weights
from pyro_klmodes.guides.flow.tails import TailLayer
from pyro_klmodes.guides.joint.base import JointFamily

__all__ = ["FlowFamily"]


class FlowFamily(JointFamily):
    """A base density sent through trainable layers, a tail layer, and a location and scale.

    ``u = loc + scale * tail(layers(z))``. At the start the layers are the identity, so u is the
    base, with the tails of the tail layer, scaled by ``init_scale`` around ``loc``.

    The tail layer comes after the layers, which would learn badly from heavy-tailed inputs, and
    before the location and scale, which leave the weight of a tail as it is and take up at once
    what the layers would have to learn: the place and the size of the target.

    Args:
        loc: ``(D,)`` the initial location; its type and device are the flow's.
        init_scale: the initial scale.
        architecture: the layers.
        base: the noise.
        tails: the tail layer, or None.

    Raises:
        InvalidArgument: if the architecture or the tail layer does not fit the dimension.

    Example:
        >>> import torch
        >>> from pyro_klmodes.guides.flow import Autoregressive, GaussianBase
        >>> family = FlowFamily(
        ...     torch.zeros(2), 10.0, architecture=Autoregressive(), base=GaussianBase()
        ... )
        >>> torch.distributions.Normal(0.0, 10.0).log_prob(torch.tensor([3.0, 4.0])).sum()
        tensor(-6.5680)
        >>> family.density().log_prob(torch.tensor([3.0, 4.0])).detach()
        tensor(-6.5680)
    """

    def __init__(
        self,
        loc: Tensor,  # (D,)
        init_scale: float,
        *,
        architecture: Architecture,
        base: Base,
        tails: TailLayer | None = None,
    ) -> None:
        super().__init__()
        loc = loc.detach()
        self.loc = PyroParam(loc.clone(), constraints.real)
        # positive through the exponential, so that a scale ten times off is soon made up for
        self.scale = PyroParam(loc.new_full(loc.shape, init_scale), constraints.positive)
        self.base = base.build(loc)
        self.layers = architecture.build(loc)
        self.weights = Weights(self.layers)
        self.tails = None if tails is None else tails.build(loc)

    def density(self) -> FlowDensity:
        """The density at the current parameters, which are read (as ``param`` sites) once."""
        return FlowDensity(
            self.base.density(),
            BoundLayers(self.layers, self.weights.read()),
            None if self.tails is None else self.tails.transform(),
            self.loc,
            self.scale,
        )
