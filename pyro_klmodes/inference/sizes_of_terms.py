"""How large the terms of a gradient are, before they cancel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress

import torch
from pyro import poutine
from torch import Tensor

from pyro_klmodes.errors import NoDensity
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.particles import Single
from pyro_klmodes.tracing.runs import Pair, run
from pyro_klmodes.tracing.terms import Term, guide_terms, model_terms

__all__ = ["sizes_of_terms"]


def sizes_of_terms(
    pair: Pair,
    params: Mapping[str, Tensor],  # unconstrained
) -> dict[str, Tensor]:
    """Sum over sites of the absolute gradient of their log-probability, at a single draw.

    Of the model's sites along the path of the draw, of the guide's at constant draws: along it,
    the two parts of their gradient cancel as well. Enumerated sites are drawn, not summed out. A
    guide without a density at given values adds nothing.
    """
    sizes = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in params.items()}
    with poutine.block(), torch.enable_grad():
        terms = model_terms(run(pair, particles=Single(), cut=Cut.NONE).model)
        traces = run(pair, particles=Single(), cut=Cut.DRAWS)
        with suppress(NoDensity):  # where its draws have a path only
            terms += guide_terms(traces.guide, model=traces.model)
        for term in terms:
            _add(sizes, term, params)
    return sizes


def _add(sizes: dict[str, Tensor], term: Term, params: Mapping[str, Tensor]) -> None:
    if not term.log_prob.requires_grad:
        return
    total = (term.log_prob * term.scale).sum() * math.prod(term.ratios.values())
    gradients = torch.autograd.grad(
        total, list(params.values()), retain_graph=True, allow_unused=True
    )
    for name, gradient in zip(params, gradients, strict=True):
        if gradient is not None:
            sizes[name] += gradient.detach().abs().double()
