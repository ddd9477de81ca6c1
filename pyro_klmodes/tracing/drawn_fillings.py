"""Latents filled in with draws from a guide: what every draw counts for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from pyro import poutine
from pyro.infer import config_enumerate
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.cells import Run
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.enumeration import model_terms_summed
from pyro_klmodes.tracing.filled import Filled
from pyro_klmodes.tracing.handlers import Cut, is_latent
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.particles import Together
from pyro_klmodes.tracing.runs import Pair, run
from pyro_klmodes.tracing.sampling import independent_sites
from pyro_klmodes.tracing.survey import survey
from pyro_klmodes.tracing.terms import guide_terms
from pyro_klmodes.tracing.weighing import weigh

__all__ = ["Drawn", "DrawnFillings"]


class Drawn:
    """A model and a guide to draw its continuous latents from; discrete ones are summed out.

    Args:
        model: a Pyro model.
        guide: a guide for it, or None to draw from the priors.
        args: positional arguments of both.
        kwargs: keyword arguments of both.

    Raises:
        UnsupportedStructure: if the model cannot be run at many draws at once.
        ModelGuideMismatch: if they do not fit.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any] | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self.model = config_enumerate(model, default="parallel")
        self.guide = _priors(self.model) if guide is None else guide
        self.pair = Pair(self.model, self.guide, args, kwargs)
        self.layout: Layout = survey(self.pair)
        if not self.layout.vectorised:
            raise UnsupportedStructure(
                "the model cannot be run at many draws of its latents at once, which an E-step by "
                "draws needs. Make it broadcast over a leftmost batch dimension, with "
                "Vindex(x)[..., z] for x[z] where x is drawn."
            )

    def __call__(self, values: Mapping[str, Tensor], count: int) -> DrawnFillings:
        """Draw at one value of each parameter, ``{parameter: (*shape)}``."""
        return DrawnFillings(self, values, count)


class DrawnFillings:
    """Draws of the latents, and the model with them filled in.

    Attributes:
        filled: the model at these draws, as a function of its parameters.
    """

    def __init__(self, drawn: Drawn, values: Mapping[str, Tensor], count: int) -> None:
        pair, layout = drawn.pair, drawn.layout
        self.particles = Together(count, layout.nesting)
        with torch.no_grad():
            traces = run(
                pair,
                particles=self.particles,
                cut=Cut.DRAWS,
                enumerated=bool(layout.enumerated),
                around=poutine.substitute(data=dict(values)),
            )
            self._q = guide_terms(traces.guide, model=traces.model, cut=True)
        self._model = traces.model
        self._independent = partial(independent_sites, pair, layout)
        latents = {n: s["value"] for n, s in traces.guide.nodes.items() if is_latent(s)}
        self.filled = Filled(
            drawn.model,
            pair.args,
            pair.kwargs,
            layout.nesting,
            given={**latents, **traces.indices},
            particles=self.particles,
        )

    def importance(
        self,
        log_probs: Mapping[str, Tensor],  # {site: (1, *batch)}
    ) -> Tensor:  # (1,)
        """``sum_cells log 1/K sum_k w_k``; its derivatives are the normalised weights."""
        drawn = self._weigh(log_probs, linear=False)
        cells = drawn.log_w.logsumexp(0) - math.log(self.particles.count)
        return (cells.sum() * drawn.scale + drawn.rest).reshape(1)

    def average(
        self,
        log_probs: Mapping[str, Tensor],  # {site: (1, *batch)}
    ) -> Tensor:  # (1,)
        """The ELBO, ``1/K sum_k log w_k``; every draw counts the same."""
        drawn = self._weigh(log_probs, linear=True)
        return (drawn.log_w.mean(0).sum() * drawn.scale + drawn.rest).reshape(1)

    def _weigh(self, log_probs: Mapping[str, Tensor], *, linear: bool) -> Draws:
        terms = model_terms_summed(self._model, {n: x[0] for n, x in log_probs.items()})
        found = Run(p=terms, q=self._q, values={}, sources=(), indices={})
        return weigh(
            [found], particle_dim=self.particles.dim, independent=self._independent, linear=linear
        )


def _priors(model: Callable[..., Any]) -> Callable[..., Any]:
    """A guide that draws every latent that is not summed out from its prior."""

    def hidden(site: Mapping[str, Any]) -> bool:
        if site["type"] != "sample":
            return False
        return bool(site["is_observed"] or site["infer"].get("enumerate") == "parallel")

    return poutine.block(model, hide_fn=hidden)
