"""The density of a flow at given values of its parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_klmodes.guides.flow.layers import BoundLayers
from pyro_klmodes.guides.flow.tail_transforms import TailTransform
from pyro_klmodes.guides.joint.base import JointDensity

__all__ = ["FlowDensity"]


class FlowDensity(JointDensity):
    """``u = loc + scale * tail(layers(z))`` with z drawn of a base.

    Args:
        base: the density of z.
        layers: the trainable bijection.
        tail: what makes the tails heavy, or None.
        loc: ``(D,)``.
        scale: ``(D,)``.
    """

    has_rsample = True

    def __init__(
        self,
        base: JointDensity,
        layers: BoundLayers,
        tail: TailTransform | None,
        loc: Tensor,  # (D,)
        scale: Tensor,  # (D,)
    ) -> None:
        self.base, self.layers, self.tail = base, layers, tail
        self.loc, self.scale = loc, scale
        self._drawn: tuple[Tensor, Tensor] | None = None

    def rsample(
        self,
        shape: torch.Size,
    ) -> Tensor:  # (*shape, D)
        """Draw vectors, and remember the log-density of the last ones, known on the way."""
        z = self.base.rsample(shape)
        log_prob = self.base.log_prob(z)
        x, log_det = self.layers.to_values(z)
        log_prob = log_prob - log_det
        if self.tail is not None:
            x, log_det = self.tail.to_values(x)
            log_prob = log_prob - log_det
        u = self.loc + self.scale * x
        self._drawn = u, log_prob - self.scale.log().sum(-1)
        return u

    def log_prob(
        self,
        u: Tensor,  # (*batch, D)
    ) -> Tensor:  # (*batch)
        """The log-density, by inverting the flow; of the very tensor drawn last, without.

        The remembered log-density has the gradients of a function of the parameters, the noise
        held fixed: those through the draw and those at the draw together. An equal tensor, such as
        ``u.detach()``, is a given value and its gradients are those at the draw alone.
        """
        if self._drawn is not None and u is self._drawn[0] and _gradients_agree(u):
            return self._drawn[1]
        x = (u - self.loc) / self.scale
        log_prob = -self.scale.log().sum(-1)
        if self.tail is not None:
            x, log_det = self.tail.to_noise(x)
            log_prob = log_prob + log_det
        z, log_det = self.layers.to_noise(x)
        return log_prob + log_det + self.base.log_prob(z)


def _gradients_agree(drawn: Tensor) -> bool:
    """Whether a draw has its graph, or none is asked for.

    One drawn under ``no_grad`` and then scored with gradients is a given value.
    """
    return not (drawn.is_leaf and torch.is_grad_enabled())
