"""Where EM starts: many points at once, since it ends in the local optimum that is nearest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.em.clusters import clustered
from pyro_klmodes.inference.em.e_step import Expected
from pyro_klmodes.inference.em.m_step import MStep
from pyro_klmodes.inference.em.parameters import Parameters
from pyro_klmodes.inference.iterate_log import checked_whole
from pyro_klmodes.tracing.filled import Filled

__all__ = ["From", "KMeansPlusPlus", "RandomStarts", "Starts"]


class Starts(ABC):
    """A rule for the first values of the parameters."""

    @abstractmethod
    def values(
        self, parameters: Parameters, filled: Filled, m_step: MStep
    ) -> dict[str, Tensor]:  # {parameter: (R, *shape)}
        """R values of every parameter."""


@dataclass(frozen=True)
class RandomStarts(Starts):
    """The model's own initial values, moved by normal noise in unconstrained space.

    The first start is the model's own initial value, the others are moved.

    Args:
        count: how many starts.
        scale: standard deviation of the noise.

    Example:
        >>> RandomStarts(20)
        RandomStarts(count=20, scale=1.0)
    """

    count: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        checked_whole("count", self.count, 1)

    def values(
        self, parameters: Parameters, filled: Filled, m_step: MStep
    ) -> dict[str, Tensor]:  # {parameter: (R, *shape)}
        """Draw them."""
        first = {n: v[None] for n, v in parameters.initial().items()}
        centre = parameters.unconstrained(first)
        noise = self.scale * torch.randn(self.count, centre.shape[1]).to(centre)
        noise[0] = 0
        moved = parameters.constrained(centre + noise)
        return {n: torch.cat([first[n], v[1:]]) for n, v in moved.items()}


@dataclass(frozen=True)
class KMeansPlusPlus(Starts):
    """An M-step from data that are assigned to the nearest of some centres, spread by k-means++.

    Every datum is given to one state of the discrete latent above it. A centre is a datum drawn
    with a probability proportional to its squared distance from the nearest centre so far, in
    units of the standard deviation of every coordinate (Arthur and Vassilvitskii 2007).

    Args:
        count: how many starts.

    Example:
        >>> KMeansPlusPlus(20)
        KMeansPlusPlus(count=20)
    """

    count: int

    def __post_init__(self) -> None:
        checked_whole("count", self.count, 1)

    def values(
        self, parameters: Parameters, filled: Filled, m_step: MStep
    ) -> dict[str, Tensor]:  # {parameter: (R, *shape)}
        """Assign data to centres, and maximise over the parameters.

        Raises:
            UnsupportedStructure: if no observed site has one discrete latent above it.
        """
        first = parameters.initial()
        before = {n: v.expand(self.count, *v.shape) for n, v in first.items()}
        weights = clustered(filled, first, self.count)
        found = m_step(Expected(torch.zeros(self.count), weights, filled), before)
        return found.values


@dataclass(frozen=True)
class From(Starts):
    """Given values.

    Args:
        given: ``{parameter: (R, *shape)}``; the others start where the model has them.
    """

    given: Mapping[str, Tensor]

    def values(
        self, parameters: Parameters, filled: Filled, m_step: MStep
    ) -> dict[str, Tensor]:  # {parameter: (R, *shape)}
        """The given values.

        Raises:
            InvalidArgument: naming the parameter that does not exist, or has another shape or
                forbidden values.
        """
        for name in self.given:
            if name not in parameters:
                raise InvalidArgument(
                    f"starts: the model has no parameter '{name}'; it has {sorted(parameters)}."
                )
        given = {n: torch.as_tensor(v).to(parameters[n].value) for n, v in self.given.items()}
        counts = {len(v) if v.dim() else 0 for v in given.values()}
        for name, value in given.items():
            shape = tuple(parameters[name].value.shape)
            if not value.dim() or tuple(value.shape[1:]) != shape or len(counts) > 1:
                raise InvalidArgument(
                    f"starts: '{name}' has shape {tuple(value.shape)}; R starts of it have shape "
                    f"(R, {', '.join(map(str, shape))}), with the same R for all parameters."
                )
        (count,) = counts
        values = {
            n: given[n].detach().clone() if n in given else v.expand(count, *v.shape)
            for n, v in parameters.initial().items()
        }
        bad = (~parameters.allowed(values)).nonzero().flatten().tolist()
        if bad:
            raise InvalidArgument(
                f"starts: those of numbers {bad[:5]} are outside of what constrains the parameters."
            )
        return values
