"""A mixture of normals for every datum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.amortized.families import LocalFamily, as_raw, positive
from pyro_klmodes.guides.joint.diagonal_mixture import DiagonalMixture
from pyro_klmodes.guides.joint.spread import Sobol, Start

__all__ = ["NormalMixture"]

_SOBOL = Sobol()


@dataclass(frozen=True)
class NormalMixture(LocalFamily):
    r"""A mixture of C normals with independent coordinates, C (2 D + 1) numbers.

    The components start at different places, since the same ones would stay the same, each with
    the initial standard deviation of the guide.

    Train it with a mass-covering loss, such as ``ForwardKL``. Under reverse KL the gradients of the
    weights are implicit: they come of draws between the components, of which there are hardly any
    where these lie many standard deviations apart, so that such weights are not learned.

    Args:
        num_components: number C of components.
        start_at: where the components start, see ``AutoMixture``.

    Raises:
        InvalidArgument: if ``num_components`` is not a positive integer.

    Example:
        >>> family = NormalMixture(3)
        >>> family.start(torch.zeros(2), 1.0).shape
        torch.Size([15])
    """

    num_components: int = 4
    start_at: Start = _SOBOL

    def __post_init__(self) -> None:
        C = self.num_components
        if isinstance(C, bool) or not isinstance(C, int) or C < 1:
            raise InvalidArgument(f"num_components={C!r} must be a positive integer.")

    def start(
        self,
        loc: Tensor,  # (D,)
        scale: float,
    ) -> Tensor:  # (P,)
        """Equal weights, locations around the given one, standard deviations."""
        C = self.num_components
        locs = self.start_at(loc, C, scale)
        return torch.cat(
            [loc.new_zeros(C), locs.reshape(-1), as_raw(torch.full_like(locs, scale)).reshape(-1)]
        )

    def distribution(
        self,
        raw: Tensor,  # (*batch, P)
        size: int,
        shift: Tensor,
    ) -> DiagonalMixture:
        """A mixture with one event dimension."""
        log_weights, locs, sd = self._parameters(raw, size)
        if shift.dim() > 0:
            locs = locs + shift.unsqueeze(-2)
        return DiagonalMixture(log_weights, locs, sd)

    def quantiles(
        self,
        raw: Tensor,  # (*batch, P)
        size: int,
        levels: Tensor,  # (Q,)
    ) -> Tensor:  # (Q, *batch, D)
        """By bisection, without gradients."""
        return DiagonalMixture(*self._parameters(raw.detach(), size)).quantiles(levels.to(raw))

    def _parameters(
        self,
        raw: Tensor,  # (*batch, P)
        size: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # (*batch, C), (*batch, C, D), (*batch, C, D)
        C = self.num_components
        logits, locs, sd = raw.split([C, C * size, C * size], -1)
        each = (C, size)
        return (
            torch.log_softmax(logits, -1),
            locs.unflatten(-1, each),
            positive(sd).unflatten(-1, each),
        )
