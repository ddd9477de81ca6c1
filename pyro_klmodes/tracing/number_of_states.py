"""How large the sums over enumerated sites would get, before anything of that size is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from pyro import poutine

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.dependencies import dependencies_of
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.randomness import same_random_state

__all__ = ["check_number_of_states"]


@same_random_state()
def check_number_of_states(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    known: Collection[str],
    *,
    largest: int,
) -> None:
    """Refuse sums that would not fit in memory.

    A site that depends on several discrete latents has a table with an entry for all of their
    joint states. What depends on what is found by provenance; where that cannot be known nothing
    is refused.

    Raises:
        UnsupportedStructure: naming the site, its latents, and how many joint states they have.
    """
    found = dependencies_of(model, args, kwargs)
    if found is None:
        return
    with poutine.block(), torch.no_grad():
        nodes = poutine.trace(model).get_trace(*args, **kwargs).nodes
    states = {
        n: _states(s)
        for n, s in nodes.items()
        if is_latent(s) and n not in known and s["fn"].has_enumerate_support
    }
    for name, upstream in found["prior_dependencies"].items():
        joined = [n for n in {*upstream, name} if n in states]
        entries = math.prod(states[n] for n in joined)
        data = math.prod(nodes[name]["fn"].batch_shape)
        if entries * data > largest:
            shown = ", ".join(f"'{n}'" for n in sorted(joined)[:5])
            more = "" if len(joined) <= 5 else f" and {len(joined) - 5} more"
            raise UnsupportedStructure(
                f"site '{name}' depends on {len(joined)} discrete latents ({shown}{more}) with "
                f"{entries:,} joint states, for {data:,} elements: too many to enumerate. Use "
                "e_step=Variational(AutoMeanField(model)), which takes them to be independent, or "
                "e_step=MonteCarlo(guide)."
            )


def _states(site: Mapping[str, Any]) -> int:
    return len(site["fn"].enumerate_support(expand=False))
