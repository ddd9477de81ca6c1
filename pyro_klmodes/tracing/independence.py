"""Which observed sites depend on no latent value: constants, as far as the weights go."""

from __future__ import annotations

from pyro import poutine
from pyro.infer.inspect import get_dependencies

from pyro_klmodes.tracing.runs import Pair

__all__ = ["find_independent"]


def find_independent(
    pair: Pair,
) -> frozenset[str]:
    """Names of the model's sites whose distribution depends on no latent value, by provenance.

    Where provenance cannot be tracked (a prior that cannot be sampled, an operation that drops
    it), no site is called independent, which costs only granularity of the weights.
    """
    try:
        with poutine.block():
            found = get_dependencies(pair.model, pair.args, dict(pair.kwargs))
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return frozenset()
    upstream = found["prior_dependencies"]
    return frozenset(name for name, sources in upstream.items() if set(sources) <= {name})
