"""Say how values lie outside of where a distribution lives: how many, where, and what it allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
from torch import Tensor
from torch.distributions import Independent

__all__ = ["elementwise", "outside_support"]


def outside_support(
    site: Mapping[str, Any],
) -> str:
    """In words, for a site of a trace; empty if all values are inside, or nobody can tell."""
    fn, value = elementwise(site["fn"]), site["value"]
    if not isinstance(value, Tensor):
        return ""
    try:
        bad = ~fn.support.check(value)
    except (NotImplementedError, AttributeError, RuntimeError):
        # no support is known; or the shapes do not fit, which the distribution says itself
        return ""
    if bad.shape != value.shape or not bool(bad.any()):  # of vectors it is not said where
        return ""
    return (
        f"{int(bad.sum())} of {value.numel()} numbers are outside of its support {fn.support!r}: "
        f"they lie in [{_range(value[bad])}], all values in [{_range(value)}]"
    )


def elementwise(fn: Any) -> Any:
    """The distribution of single numbers, if that is what it was built from."""
    while isinstance(fn, Independent | dist.ExpandedDistribution | dist.MaskedDistribution):
        fn = fn.base_dist
    return fn


def _range(values: Tensor) -> str:
    return f"{float(values.min()):.4g}, {float(values.max()):.4g}"
