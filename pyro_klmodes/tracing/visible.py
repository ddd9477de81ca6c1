"""The model as a guide should see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyro import poutine

from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.randomness import same_random_state

__all__ = ["without_enumerated"]


@same_random_state()
def without_enumerated(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Callable[..., Any]:
    """The model with the sites hidden that are summed out, for an autoguide to be built on.

    Pyro's autoguides take every latent site they see, also those marked for enumeration.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("c", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> seen = without_enumerated(model, (), {})
        >>> [n for n, s in poutine.trace(seen).get_trace().nodes.items() if s["type"] == "sample"]
        ['z']
    """
    with poutine.block():
        trace = poutine.trace(model).get_trace(*args, **kwargs)
    marked = [
        name
        for name, site in trace.nodes.items()
        if is_latent(site) and site["infer"].get("enumerate") == "parallel"
    ]
    return poutine.block(model, hide=marked) if marked else model
