"""A batch of mixtures of normals with independent coordinates, as a distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from pyro_klmodes.guides.joint.elliptical import log_prefixes
from pyro_klmodes.guides.joint.implicit import implicit_draw
from pyro_klmodes.guides.joint.mixture_quantiles import mixture_quantiles
from pyro_klmodes.guides.joint.radial import Gaussian
from pyro_klmodes.guides.joint.scale_diagonal import DiagonalScale

__all__ = ["DiagonalMixture"]


class DiagonalMixture(TorchDistribution):
    r"""A batch of mixtures :math:`\sum_c \pi_c N(\mu_c, \mathrm{diag}\, \sigma_c^2)`.

    Draws carry gradients of all parameters, by implicit reparameterisation (Figurnov, Mohamed and
    Mnih, 2018): first derivatives only, and of large variance between far components.

    Args:
        log_weights: normalised, ``(*batch, C)``.
        locs: ``(*batch, C, D)``.
        sd: ``(*batch, C, D)``.
        batch_shape: to which the parameters broadcast; theirs if not given.

    Example:
        >>> locs = torch.tensor([[[-1.0], [1.0]], [[-5.0], [5.0]]])
        >>> q = DiagonalMixture(torch.full((2, 2), 0.5).log(), locs, torch.ones_like(locs))
        >>> q.batch_shape, q.event_shape, q.rsample((3,)).shape
        (torch.Size([2]), torch.Size([1]), torch.Size([3, 2, 1]))
        >>> q.quantiles(torch.tensor([0.75])).squeeze()
        tensor([1.0505, 5.0000])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        log_weights: Tensor,  # (*batch, C)
        locs: Tensor,  # (*batch, C, D)
        sd: Tensor,  # (*batch, C, D)
        batch_shape: torch.Size | None = None,
    ) -> None:
        self.log_weights, self.locs, self.sd = log_weights, locs, sd
        if batch_shape is None:
            batch_shape = torch.broadcast_shapes(log_weights.shape[:-1], locs.shape[:-2])
        super().__init__(batch_shape, locs.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiagonalMixture:
        """The same parameters for a larger batch; they broadcast and are not copied."""
        return DiagonalMixture(self.log_weights, self.locs, self.sd, torch.Size(batch_shape))

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw vectors, ``(*sample_shape, *batch, D)``."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            value = self._draw(shape)
        if not torch.is_grad_enabled():
            return value
        one = torch.ones((), dtype=value.dtype, device=value.device)
        return implicit_draw(value, self.log_weights, self.locs, DiagonalScale(self.sd), one)

    def log_prob(self, value: Tensor) -> Tensor:  # (*batch)
        """The log-density at vectors ``(*batch, D)``."""
        radial = Gaussian().parameters(self.locs).radial()
        delta = value.unsqueeze(-2) - self.locs
        each = log_prefixes(DiagonalScale(self.sd), radial, delta, [delta.shape[-1]]).squeeze(-1)
        log_prob: Tensor = torch.logsumexp(self.log_weights + each, -1)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def quantiles(
        self,
        levels: Tensor,  # (Q,)
    ) -> Tensor:  # (Q, *batch, D)
        """Marginal quantiles of every coordinate, by bisection, without gradients."""
        found = mixture_quantiles(
            levels,
            self.log_weights.detach().exp(),
            self.locs.detach(),
            self.sd.detach(),
            Gaussian().parameters(self.locs).radial(),
        )
        return found.expand(len(levels), *self.batch_shape, *self.event_shape)

    def _draw(
        self,
        shape: torch.Size,  # (*batch, D)
    ) -> Tensor:  # (*batch, D)
        below = self.log_weights.exp().cumsum(-1)[..., :-1]
        uniform = torch.rand((*shape[:-1], 1), dtype=below.dtype, device=below.device)
        component = (uniform > below).sum(-1)[..., None, None].expand(*shape[:-1], 1, shape[-1])
        every = (*shape[:-1], *self.locs.shape[-2:])
        locs, sd = (x.expand(every).gather(-2, component).squeeze(-2) for x in (self.locs, self.sd))
        return locs + sd * torch.randn(shape, dtype=locs.dtype, device=locs.device)
