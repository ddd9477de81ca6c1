"""What a family has to offer a site: parameters to start from, a distribution, quantiles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor
from torch.distributions.constraints import Constraint

from pyro_klmodes.errors import NotDefined

__all__ = ["Initial", "SiteFamily"]


class Initial(NamedTuple):
    """Where a parameter starts, what constrains it, and how many of its dimensions are an event."""

    value: Tensor
    constraint: Constraint
    event_dim: int


class SiteFamily(ABC):
    """A family of distributions for one site; a value, without parameters of its own."""

    #: whether its values are counted and not measured
    discrete: ClassVar[bool] = False

    @abstractmethod
    def accepts(self, support: Constraint) -> bool:
        """Whether the family lives on this support."""

    @abstractmethod
    def initial(
        self,
        value: Tensor,  # (*batch, *event)
        event_dim: int,
        scale: float,
        support: Constraint,
    ) -> dict[str, Initial]:
        """Parameters centred at a value, with standard deviation near ``scale`` when unconstrained.

        Args:
            value: constrained, with its plates at full size.
            event_dim: number of event dimensions of the value.
            scale: standard deviation on the scale named in the class.
            support: the constraint on the value.
        """

    @abstractmethod
    def distribution(
        self, params: Mapping[str, Tensor], support: Constraint, event_dim: int
    ) -> Any:
        """The distribution of the constrained value, with ``event_dim`` event dimensions."""

    def quantile(
        self,
        params: Mapping[str, Tensor],
        levels: Tensor,  # (Q,)
        support: Constraint,
    ) -> Tensor:  # (Q, *batch, *event)
        """Marginal quantiles of every entry of the constrained value, no gradients.

        Raises:
            NotDefined: if the marginals have no closed form.
        """
        raise NotDefined(self._no_quantiles())

    def median(
        self,
        params: Mapping[str, Tensor],
        support: Constraint,
    ) -> Tensor:  # (*batch, *event)
        """Marginal median of every entry of the constrained value, no gradients.

        Raises:
            NotDefined: if the marginals have no closed form.
        """
        some = next(iter(params.values()))
        return self.quantile(params, some.new_tensor([0.5]), support)[0]

    def _no_quantiles(self) -> str:
        return (
            f"the marginal quantiles of {self!r} have no closed form here; take them of draws: "
            "torch.quantile(guide.sample(10_000, *args)[site], level, dim=0)."
        )


def column(
    levels: Tensor,  # (Q,)
    like: Tensor,  # (*shape)
) -> Tensor:  # (Q, 1, ..., 1), to broadcast against shape
    """Levels of quantiles in front of the dimensions of a parameter."""
    return levels.to(like).reshape(-1, *([1] * like.dim()))
