"""The log-density of a model at given latent values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
from pyro import poutine
from torch import Tensor

from pyro_klmodes.tracing.enumeration import model_terms_summed
from pyro_klmodes.tracing.joint_densities import refuse_minibatch
from pyro_klmodes.tracing.particles import Single
from pyro_klmodes.tracing.plates import depth
from pyro_klmodes.tracing.runs import Pair, run_model
from pyro_klmodes.tracing.terms import scored_sites

__all__ = ["log_joint"]


def log_joint(
    model: Callable[..., Any],
    values: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Tensor:
    """Scalar ``log p(x, z)``, masked and scaled, sites marked for enumeration summed out.

    Where it is not defined, because an optimizer has gone too far, it is not finite.
    """
    pair = Pair(model, model, args, kwargs)
    with poutine.block(), pyro.validation_enabled(is_validate=False):
        nesting = depth(scored_sites(run_model(pair, Single(), values, enumerated=False)))
        trace = run_model(pair, Single(nesting), values, enumerated=True)
        terms = model_terms_summed(trace)
    total: Any = 0.0
    for term in terms:
        refuse_minibatch(term)
        total = total + (term.log_prob * term.scale).sum()
    return total
