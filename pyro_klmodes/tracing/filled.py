"""A model whose latent sites are filled in: log-probabilities as functions of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_klmodes.tracing.particles import Particles, Single
from pyro_klmodes.tracing.runs import Pair, run_model
from pyro_klmodes.tracing.terms import scored_sites

__all__ = ["Filled"]


@dataclass(frozen=True)
class Filled:
    """A model with a value for every latent: all states of discrete sites, given ones of others.

    Parameters are inputs. Those of several starts are handled in one run of the model, by
    ``torch.func.vmap``, whatever the model does with them (``loc[z]``, loops, networks).

    Attributes:
        model: a Pyro model; its discrete sites are enumerated unless they are given.
        args: its positional arguments.
        kwargs: its keyword arguments.
        nesting: depth of its deepest plate.
        given: values of latent sites, and indices of subsampled plates.
        points: latent sites that count as parameters, by the number of their plates' dimensions.
        particles: how many values of the given sites there are, and where.
    """

    model: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    nesting: int
    given: Mapping[str, Tensor] = field(default_factory=dict)
    points: frozenset[str] = frozenset()
    particles: Particles | None = None

    def trace(
        self,
        values: Mapping[str, Tensor],  # {parameter: (*shape)}
        particles: Particles | None = None,
    ) -> Trace:
        """One run at one value of each parameter, without validation, hidden from other handlers.

        Enumerated sites have dimensions left of the particles' and the plates'.
        """
        fixed = {n: v for n, v in values.items() if n in self.points}
        marked = poutine.infer_config(self.model, config_fn=_all_values)
        around = poutine.substitute(data={n: v for n, v in values.items() if n not in fixed})
        pair = Pair(marked, marked, self.args, self.kwargs)
        where = particles or self.particles or Single(self.nesting)
        with poutine.block(), pyro.validation_enabled(is_validate=False), around:
            return run_model(pair, where, {**self.given, **fixed}, enumerated=True)

    def log_probs(
        self,
        values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
    ) -> dict[str, Tensor]:  # {scored site: (R, *batch)}
        """Log-probabilities of every site at R values of the parameters, differentiable.

        Raw: without the masks and scales of handlers. ``batch`` is that of one run.
        """
        return torch.func.vmap(self._log_probs, randomness="same")(dict(values))

    def _log_probs(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        with pyro.validation_enabled(is_validate=False):
            for site in scored_sites(self.trace(values)):
                log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
                found[site["name"]] = torch.as_tensor(log_prob)
        return found


def _all_values(site: Mapping[str, Any]) -> dict[str, Any]:
    """Marks for the sum over all values of a site, whatever it was marked for by the user."""
    if site["type"] != "sample" or site["is_observed"] or not site["fn"].has_enumerate_support:
        return {}
    return {"enumerate": "parallel", "expand": False, "num_samples": None}
