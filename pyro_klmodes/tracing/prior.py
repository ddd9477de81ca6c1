"""What the sites of a model are drawn from, at given values of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.util import get_rng_state, set_rng_state
from torch import Tensor

from pyro_klmodes.tracing.handlers import FixValues
from pyro_klmodes.tracing.randomness import same_random_state

__all__ = ["priors_at"]


def priors_at(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    points: Iterable[Mapping[str, Tensor]],
) -> Iterator[dict[str, Any]]:
    """The distributions of all latent sites at each of several points, by name.

    The model is run once for each point, always from the same random state, so that minibatches
    are the same ones.
    """
    with same_random_state():
        start = get_rng_state()
        for values in points:
            set_rng_state(start)
            with poutine.block(), torch.no_grad(), FixValues(values):
                trace = poutine.trace(model).get_trace(*args, **kwargs)
            yield {name: trace.nodes[name]["fn"] for name in values}
