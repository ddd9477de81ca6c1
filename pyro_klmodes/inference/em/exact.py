"""The exact E-step: every discrete latent is summed over."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.inference.batches import Call
from pyro_klmodes.inference.em.e_step import EStep, Expected, expected
from pyro_klmodes.inference.em.parameters import Parameters
from pyro_klmodes.tracing.filled import Filled
from pyro_klmodes.tracing.fillings import Enumerated
from pyro_klmodes.tracing.number_of_states import check_number_of_states
from pyro_klmodes.tracing.plates import subsampled
from pyro_klmodes.tracing.sites import SiteInfo, describe

__all__ = ["Exact"]

_IN_CACHE = 2**20  # numbers in the tables of all starts that share a run
_LARGEST = 2**26  # numbers in a table: half a gigabyte in double precision


@dataclass(frozen=True)
class Exact(EStep):
    r"""Sum over all values of every latent, which are discrete: the classical E-step.

    The posterior given the parameters is exact after it, so that the free energy *is* the
    log-likelihood, :math:`\log p(x; \theta) = \mathcal{L}(q, \theta) + KL(q \| p(z \mid x;
    \theta))` with a KL divergence of zero, and no step of EM decreases it. Sums are done by
    variable elimination (Obermeyer et al. 2019): linear in the length of a ``pyro.markov`` chain.

    Args:
        largest: how many numbers the table of a sum may have.

    Source: Dempster, Laird and Rubin (1977); Neal and Hinton (1998).

    Example:
        >>> Exact()
        Exact(largest=67108864)
    """

    monotone: ClassVar[bool] = True
    batched: ClassVar[bool] = True

    largest: int = _LARGEST

    def start(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        parameters: Parameters,
    ) -> RunningExact:
        """Get ready for one model and its data.

        Raises:
            UnsupportedStructure: naming a latent that cannot be summed over and the way out, or the
                latents that have too many states together and how many.
        """
        points = frozenset(n for n, info in parameters.items() if info.point)
        sites = describe(model, args, kwargs, known=points)
        _check_latents(sites, points)
        check_number_of_states(model, args, kwargs, points, largest=self.largest)
        nesting = max((len(s.batch_shape) for s in sites.values()), default=0)
        filled = Filled(model, args, kwargs, nesting, points=points)
        observed = [n for n, s in sites.items() if s.kind == "observed"]
        if not observed:
            raise UnsupportedStructure(
                "the model has no observed site: is the argument with the data missing?"
            )
        return RunningExact(filled, parameters, observed[0])


class RunningExact:
    """The exact E-step of one model and its data.

    Attributes:
        filled: the model with its latents enumerated.
        observed: the name of an observed site.
    """

    def __init__(self, filled: Filled, parameters: Parameters, observed: str) -> None:
        self.filled = filled
        self.parameters = parameters
        self.observed = observed
        self.enumerated = Enumerated(filled, parameters.initial())

    @property
    def at_once(self) -> int:
        """How many starts share a run: so many that their tables do not leave the cache."""
        return max(1, _IN_CACHE // self.enumerated.largest)

    @property
    def ratio(self) -> float:
        """For how many times its own data a minibatch stands."""
        found = subsampled(self.enumerated.layout.nodes[self.observed])
        return math.prod(found.values())

    def on(self, call: Call, *, minibatch: bool) -> RunningExact:
        """The same on a batch; a minibatch stands for all data that its plate says there are."""
        other = copy(self)
        other.filled = replace(self.filled, args=call.args, kwargs=call.kwargs)
        start = self.parameters.initial()
        other.enumerated = Enumerated(other.filled, start, minibatch=minibatch)
        return other

    def expect(
        self,
        values: dict[str, Tensor],  # {parameter: (R, *shape)}
    ) -> Expected:
        """The log-likelihood, and the posterior of the latents as weights."""
        return expected(self.filled, self.enumerated.log_evidence, values)


def _check_latents(
    sites: Mapping[str, SiteInfo],
    points: frozenset[str],
) -> None:
    for name, site in sites.items():
        if site.kind == "latent" and name not in points:
            raise UnsupportedStructure(
                f"latent site '{name}' cannot be summed over: it has no finite list of values. "
                f"For its posterior mode: points=['{name}']. To average over it: "
                "e_step=CoordinateAscent(), a mean field without noise; MonteCarlo(guide), exact "
                "with many draws; or Variational(guide)."
            )
