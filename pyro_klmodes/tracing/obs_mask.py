"""``obs_mask``: Pyro draws all values of a site, and replaces those that were observed."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_klmodes.tracing.randomness import same_random_state

__all__ = ["drawn_for", "partly_observed", "replaced"]


def drawn_for(
    name: str,
    model: Container[str],  # names of the model's sites
) -> str | None:
    """The model's site of drawn values that a guide's site is about; None if it is no such site."""
    drawn = name.removesuffix("_unconstrained")  # what Pyro's autoguides draw beside the site
    partner = f"{drawn.removesuffix('_unobserved')}_observed"
    return drawn if drawn.endswith("_unobserved") and drawn in model and partner in model else None


def replaced(model: Trace) -> list[str]:
    """Sites some of whose draws are replaced by what was observed."""
    return [
        name
        for name, site in model.nodes.items()
        if drawn_for(name, model) == name
        and isinstance(site["mask"], Tensor)
        and not bool(site["mask"].all())
    ]


@same_random_state()
def partly_observed(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[str]:
    """The same, of a model that has not been run."""
    with poutine.block(), torch.no_grad():
        return replaced(poutine.trace(model).get_trace(*args, **kwargs))
