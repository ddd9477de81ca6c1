"""The log-density of a model at many latent values in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
from pyro import poutine
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.cells import to_cells
from pyro_klmodes.tracing.enumeration import model_terms_summed
from pyro_klmodes.tracing.particles import Together
from pyro_klmodes.tracing.runs import Pair, run_model
from pyro_klmodes.tracing.terms import Term

__all__ = ["log_joints", "refuse_minibatch"]


def log_joints(
    model: Callable[..., Any],
    values: Mapping[str, Tensor],  # (n, 1, ..., 1, *site_shape), n left of `nesting` dimensions
    count: int,
    nesting: int,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Tensor:  # (n,)
    """``log p(x, z_i)`` for i = 1..n, masked and scaled, enumerated sites summed out.

    For models that broadcast over particles, see ``survey``; ``log_joint`` is for the others. Not
    finite where it is not defined.

    Raises:
        UnsupportedStructure: if the model looks at a minibatch, so that its density is another
            one every time.
    """
    pair = Pair(model, model, args, kwargs)
    particles = Together(count, nesting)
    with poutine.block(), pyro.validation_enabled(is_validate=False):
        trace = run_model(pair, particles, values, enumerated=True)
        terms = model_terms_summed(trace)
    total: Any = 0.0
    for term in terms:
        refuse_minibatch(term)
        total = total + to_cells(term.log_prob * term.scale, particles.dim, [])
    joint: Tensor = total.expand(count)
    return joint


def refuse_minibatch(term: Term) -> None:
    """A density that is another one in every run is none."""
    for plate, ratio in term.ratios.items():
        if ratio != 1:
            raise UnsupportedStructure(
                f"site '{term.name}' is in subsampled plate '{plate}', so the model has another "
                "density in every run. Give it the full data."
            )
