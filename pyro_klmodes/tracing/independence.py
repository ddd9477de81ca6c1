"""Which observed sites depend on no latent value: constants, as far as the weights go."""

from __future__ import annotations

from pyro_klmodes.tracing.dependencies import dependencies_of
from pyro_klmodes.tracing.runs import Pair

__all__ = ["find_independent"]


def find_independent(
    pair: Pair,
) -> frozenset[str]:
    """Names of the model's sites whose distribution depends on no latent value, by provenance.

    Where provenance cannot be tracked no site is called independent, which costs only granularity
    of the weights.
    """
    found = dependencies_of(pair.model, pair.args, pair.kwargs)
    if found is None:
        return frozenset()
    upstream = found["prior_dependencies"]
    return frozenset(name for name, sources in upstream.items() if set(sources) <= {name})
