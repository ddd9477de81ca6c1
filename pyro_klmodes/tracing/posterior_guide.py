"""The exact posterior of a model's discrete latents at given parameters, as a guide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_klmodes.tracing.enumeration import model_terms_summed, pack
from pyro_klmodes.tracing.filled import Filled
from pyro_klmodes.tracing.fillings import sum_over_data, weights_of
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.sites import describe

__all__ = ["PosteriorGuide"]


class PosteriorGuide:
    r"""Draws discrete latents from :math:`p(z \mid x; \theta)`, and has points of other latents.

    The guide runs the model with other distributions for its latents: every discrete one has its
    posterior given the latents that its prior depends on, for whatever data it is called with.
    Point estimates are point masses.

    Args:
        model: a Pyro model whose latents are discrete or points.
        values: of its parameters and points, ``{name: (*shape)}``.
        points: which of them are latent sites.

    Limits: exact where no latent depends on what is not above it in the model, given the data:
    mixtures, Markov chains, trees. Two causes of one datum are drawn independently. Discrete
    latents other than Categorical and Bernoulli are left to the model to sum out.
    """

    def __init__(
        self, model: Callable[..., Any], values: Mapping[str, Tensor], points: frozenset[str]
    ) -> None:
        self.model = model
        self.values = dict(values)
        self.points = points

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Sample all latents, in the plates that the model has for these arguments."""
        names = [n for n in self.values if n not in self.points]
        held = poutine.substitute(data={n: self.values[n] for n in names})
        conditionals = self._conditionals(args, kwargs)
        points = {n: self.values[n] for n in self.points}
        redrawn = _Redrawn(conditionals, points)
        with poutine.block(hide=names), poutine.block(hide_fn=_observed), held, redrawn:
            self.model(*args, **kwargs)

    @same_random_state()
    def _conditionals(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> dict[str, _Conditional]:
        with poutine.block(), torch.no_grad():
            sites = describe(self.model, args, kwargs, known=self.points)
            if all(site.kind != "enumerated" for site in sites.values()):
                return {}
            nesting = max((len(s.batch_shape) for s in sites.values()), default=0)
            filled = Filled(self.model, args, kwargs, nesting, points=self.points)
            log_probs = filled.log_probs({n: v[None] for n, v in self.values.items()})
            layout = filled.trace(self.values)
            packed = pack(layout)

            def log_evidence(at: Mapping[str, Tensor]) -> Tensor:  # {site: (1, *batch)} -> (1,)
                # without a plate for starts: the guide may be called inside of one for particles
                terms = model_terms_summed(layout, {n: x[0] for n, x in at.items()})
                return sum_over_data(terms, -1 - nesting, 1, minibatch=False)

            _, weights = weights_of(log_evidence, log_probs)
        found = {}
        for name in packed.symbols.values():
            site = packed.sites[name]
            dims = site["infer"]["_dim_to_symbol"]
            own = site["infer"]["_enumerate_dim"]
            table = weights[name][0]
            if isinstance(_inner(site["fn"]), dist.Categorical | dist.Bernoulli):
                above = {
                    d: packed.symbols[dims[d]]
                    for d in range(-table.dim(), -nesting)
                    if d != own and table.shape[d] > 1
                }
                found[name] = _Conditional.of(table, own, above, nesting)
        return found


@dataclass(frozen=True)
class _Conditional:
    """The posterior of one latent given those above it."""

    probs: Tensor  # (*plates, *states of those above, states)
    above: tuple[str, ...]

    @classmethod
    def of(cls, table: Tensor, own: int, above: Mapping[int, str], nesting: int) -> _Conditional:
        """Normalise a table of joint posterior probabilities, ``(*enumerated, *plates)``."""
        total = table.sum(own, keepdim=True)
        uniform = torch.full_like(table, 1 / table.shape[own])
        probs = torch.where(total > 0, table / total.where(total > 0, 1.0), uniform)
        order = [*range(-nesting, 0), *above, own]
        rest = [d for d in range(-table.dim(), 0) if d not in order]
        shaped = probs.permute([*rest, *order])
        return cls(shaped.reshape(shaped.shape[len(rest) :]), tuple(above.values()))

    def __call__(self, states: Mapping[str, Tensor]) -> Tensor:  # (*lead, *plates, states)
        """Look the probabilities up at the states of the latents above, ``(*lead, *plates)``."""
        if not self.above:
            return self.probs
        plates = self.probs.shape[: self.probs.dim() - len(self.above) - 1]
        index = [
            torch.arange(size).reshape(size, *[1] * (len(plates) - place - 1))
            for place, size in enumerate(plates)
        ]
        found: Tensor = self.probs[(*index, *(states[name].long() for name in self.above))]
        return found


class _Redrawn(Messenger):
    """Gives latent sites other distributions, and remembers what was drawn."""

    def __init__(
        self, conditionals: Mapping[str, _Conditional], points: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        self.conditionals = conditionals
        self.points = points
        self.states: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        name, fn = msg["name"], msg["fn"]
        if name in self.points:
            value = self.points[name]
            msg["fn"] = dist.Delta(value, event_dim=fn.event_dim).expand(fn.batch_shape)
        elif name in self.conditionals:
            probs = self.conditionals[name](self.states)
            inner = _inner(fn)
            binary = isinstance(inner, dist.Bernoulli)
            own = dist.Bernoulli(probs[..., 1]) if binary else dist.Categorical(probs)
            msg["fn"] = own.to_event(fn.event_dim) if fn.event_dim else own
            msg["infer"] = {k: v for k, v in msg["infer"].items() if k != "enumerate"}

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.conditionals:
            self.states[msg["name"]] = msg["value"]


def _observed(site: Mapping[str, Any]) -> bool:
    return bool(site["type"] == "sample" and site["is_observed"])


def _inner(fn: Any) -> Any:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn
