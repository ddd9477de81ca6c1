"""The E-step by importance weights: Monte Carlo EM with more and more particles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.em.e_step import EStep, Expected, check_guide, expected
from pyro_klmodes.inference.em.parameters import Parameters
from pyro_klmodes.inference.iterate_log import checked_whole
from pyro_klmodes.tracing.drawn_fillings import Drawn
from pyro_klmodes.tracing.filled import Filled

__all__ = ["MonteCarlo"]


@dataclass(frozen=True)
class MonteCarlo(EStep):
    r"""Average over weighted draws of the continuous latents; discrete ones are summed out.

    The posterior expectation in :math:`Q(\theta \mid \theta_t)` becomes
    :math:`\sum_k \bar w_k \log p(x, z_k; \theta)`, with self-normalised weights :math:`\bar w_k
    \propto p(x, z_k; \theta_t) / q(z_k)` for every cell of the local plates: these are the
    derivatives of the importance-weighted bound, which is what the history shows. Steps have noise
    of order :math:`K^{-1/2}`, so that the likelihood may fall; the number of draws grows by a
    factor each step to make it vanish (Wei and Tanner 1990; Booth and Hobert 1999).

    Args:
        guide: what to draw from, as it is; None for the priors, at the present parameters.
        num_particles: draws in the first step.
        growth: factor from step to step.
        most: draws that no step exceeds.

    Limits: one start, no acceleration. Weights of a poor guide have a large variance; the history's
    bound then stays below the log-likelihood by much more than its noise.

    Source: Wei and Tanner (1990); Booth and Hobert (1999).

    Example:
        >>> MonteCarlo(num_particles=200).count(step=10)
        326
    """

    guide: Callable[..., Any] | None = None
    num_particles: int = 100
    growth: float = 1.05
    most: int = 10_000

    def __post_init__(self) -> None:
        if self.guide is not None:
            check_guide(self.guide)
        checked_whole("num_particles", self.num_particles, 2)
        checked_whole("most", self.most, 2)
        if not (math.isfinite(self.growth) and self.growth >= 1):
            raise InvalidArgument(f"growth={self.growth!r} must be a factor of at least 1.")

    def count(self, step: int) -> int:
        """How many draws a step makes, counted from 0."""
        grown = self.num_particles * self.growth ** min(step, 10_000 / self.growth)
        return int(min(self.most, math.ceil(grown)))

    def start(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        parameters: Parameters,
    ) -> RunningMonteCarlo:
        """Get ready for one model and its data.

        Raises:
            ModelGuideMismatch, UnsupportedStructure: as training would.
        """
        return RunningMonteCarlo(self, Drawn(model, self.guide, args, kwargs), parameters)


class RunningMonteCarlo:
    """Monte Carlo E-steps of one model and its data."""

    def __init__(self, options: MonteCarlo, drawn: Drawn, parameters: Parameters) -> None:
        self.options = options
        self.guide = drawn.guide
        self.drawn = drawn
        self.steps = 0
        self.filled: Filled = drawn(parameters.initial(), 2).filled

    def expect(
        self,
        values: dict[str, Tensor],  # {parameter: (1, *shape)}
    ) -> Expected:
        """Draw anew, and weigh."""
        one = {n: v[0].detach() for n, v in values.items()}
        fillings = self.drawn(one, self.options.count(self.steps))
        self.steps += 1
        return expected(fillings.filled, fillings.importance, values)
