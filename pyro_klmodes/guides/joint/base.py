"""What a joint density over all unconstrained latents has to offer a guide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_klmodes.errors import NotDefined

__all__ = ["ChainDensity", "JointDensity", "JointFamily"]


class JointDensity(ABC):
    """A density over the flat vector u of length D, at the current values of its parameters.

    A guide places the coordinates of u at several sample sites, one block of u after the other, and
    each site needs a log-probability of its own. ``log_conditionals`` hands them out.
    """

    #: whether draws carry gradients of the parameters
    has_rsample: bool = True

    @abstractmethod
    def rsample(
        self,
        shape: torch.Size,
    ) -> Tensor:  # (*shape, D)
        """Draw vectors."""

    @abstractmethod
    def log_prob(
        self,
        u: Tensor,  # (*batch, D)
    ) -> Tensor:  # (*batch)
        """The log-density of whole vectors."""

    def log_conditionals(
        self,
        u: Tensor,  # (*batch, D)
        ends: Sequence[int],
    ) -> Tensor:  # (*batch, len(ends))
        """``log q(u[e_{i-1}:e_i] | u[:e_{i-1}])`` for block ends e_1 < ... < e_n = D.

        They sum to ``log_prob``. A density without closed conditionals leaves all of it to the last
        block and zero to the others, so that no block depends on a later one.
        """
        whole = self.log_prob(u).unsqueeze(-1)
        return torch.cat([whole.new_zeros((*whole.shape[:-1], len(ends) - 1)), whole], -1)

    def quantiles(
        self,
        levels: Tensor,  # (Q,)
    ) -> Tensor:  # (Q, D)
        """Marginal quantiles of every coordinate.

        Raises:
            NotDefined: if the marginals have no closed form.
        """
        raise NotDefined(
            "the marginal quantiles of this density have no closed form; take them of draws: "
            "torch.quantile(guide.sample(10_000, *args)[site], level, dim=0)."
        )


class ChainDensity(JointDensity):
    """A density whose marginals over leading coordinates are closed, hence its conditionals too."""

    @abstractmethod
    def log_prefixes(
        self,
        u: Tensor,  # (*batch, D)
        ends: Sequence[int],
    ) -> Tensor:  # (*batch, len(ends))
        """``log q(u[:e])`` for every e of ``ends``."""

    def log_prob(
        self,
        u: Tensor,  # (*batch, D)
    ) -> Tensor:  # (*batch)
        """The log-density of whole vectors."""
        return self.log_prefixes(u, [u.shape[-1]]).squeeze(-1)

    def log_conditionals(
        self,
        u: Tensor,  # (*batch, D)
        ends: Sequence[int],
    ) -> Tensor:  # (*batch, len(ends))
        """The true conditional density of every block given those before it."""
        prefixes = self.log_prefixes(u, ends)
        return torch.diff(prefixes, dim=-1, prepend=torch.zeros_like(prefixes[..., :1]))


class JointFamily(PyroModule):
    """The parameters of a joint density."""

    def density(self) -> JointDensity:
        """The density at the current parameters, which are read (as ``param`` sites) once."""
        raise NotImplementedError
