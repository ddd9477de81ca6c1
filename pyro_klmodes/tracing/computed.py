"""Sites that only record what was computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist

__all__ = ["is_deterministic"]


def is_deterministic(site: Mapping[str, Any]) -> bool:
    """Whether a site is one of ``pyro.deterministic``, or one that a reparameterisation replaced.

    Both observe the value of a point mass whose density is masked; only the former are marked.
    """
    if site["infer"].get("_deterministic", False):
        return True
    fn = site["fn"]
    if not site["is_observed"] or not isinstance(fn, dist.MaskedDistribution):
        return False
    return fn._mask is False and isinstance(fn.base_dist, dist.Delta)
