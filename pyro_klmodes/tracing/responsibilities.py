"""Posterior probabilities of the states of discrete latents at many values of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.tracing.enumeration import enumerated_names
from pyro_klmodes.tracing.filled import Filled
from pyro_klmodes.tracing.fillings import Enumerated, weights_of
from pyro_klmodes.tracing.sites import SiteInfo

__all__ = ["Responsibilities"]

_AT_ONCE = 16  # values of the parameters in one run


class Responsibilities:
    """The log-likelihood and the posterior of every discrete latent, one by one.

    Args:
        model: a Pyro model whose latents are discrete or parameters.
        args: its positional arguments.
        kwargs: its keyword arguments.
        sites: of the model, as ``describe`` found them.
        values: some values of its parameters, ``{parameter: (*shape)}``.
        points: latent sites that count as parameters.

    Attributes:
        states: how many states every enumerated site has.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        sites: Mapping[str, SiteInfo],
        values: Mapping[str, Tensor],
        points: frozenset[str],
    ) -> None:
        self.nesting = max((len(s.batch_shape) for s in sites.values()), default=0)
        self.filled = Filled(model, args, kwargs, self.nesting, points=points)
        self.enumerated = Enumerated(self.filled, values)
        with torch.no_grad():
            trace = self.filled.trace(values)
        names = enumerated_names(trace)
        self._dims: dict[str, int] = {n: trace.nodes[n]["infer"]["_enumerate_dim"] for n in names}
        self.states = {n: len(trace.nodes[n]["fn"].enumerate_support(expand=False)) for n in names}

    def __call__(
        self,
        values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
    ) -> tuple[Tensor, dict[str, Tensor]]:  # (R,), {latent: (R, states, elements)}
        """The log-likelihood, and the probabilities of the states; zero where a mask is."""
        count = len(next(iter(values.values())))
        parts = [
            self._some({n: v[i : i + _AT_ONCE] for n, v in values.items()})
            for i in range(0, count, _AT_ONCE)
        ]
        found = {n: torch.cat([tables[n] for _, tables in parts]) for n in self.states}
        return torch.cat([value for value, _ in parts]), found

    def _some(self, values: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            log_probs = self.filled.log_probs(values)
        value, weights = weights_of(self.enumerated.log_evidence, log_probs)
        return value, {n: self._own(n, weights[n]) for n in self.states}

    def _own(self, name: str, table: Tensor) -> Tensor:  # (R, states, elements)
        """Sum over the states of the latents above."""
        own = self._dims[name]
        others = [d for d in range(1 - table.dim(), -self.nesting) if d != own]
        summed = table.sum(others, keepdim=True) if others else table
        return summed.movedim(own, 1).reshape(len(table), self.states[name], -1)
