"""Say where a log-probability went wrong: the site, its parameters, its value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.tracing.terms import Term

__all__ = ["describe_nonfinite"]


def describe_nonfinite(
    terms: Iterable[tuple[str, Term]],  # ("model" or "guide", term)
) -> str:
    """The first site whose log-probability is NaN, or else infinite, in words."""
    listed = list(terms)
    for is_bad, word in ((torch.isnan, "nan"), (torch.isinf, "infinite")):
        for where, term in listed:
            if bool(is_bad(term.log_prob).any()):
                return f"log-probability of {where} site '{term.name}' is {word}" + _detail(term)
    return "every site is finite, but their sum is not"


def _detail(term: Term) -> str:
    if term.site is None:
        return ""
    fn = term.site["fn"]
    while hasattr(fn, "base_dist") and not getattr(fn, "arg_constraints", None):
        fn = fn.base_dist
    parts = []
    for name in getattr(fn, "arg_constraints", {}):
        value = getattr(fn, name, None)
        if isinstance(value, Tensor):
            parts.append(f"{name} {_range(value)}")
    parameters = ", ".join(parts) or "no parameters"
    return f" ({type(fn).__name__}: {parameters}; value {_range(term.site['value'])})"


def _range(value: Any) -> str:
    """A tensor in a few words."""
    if not isinstance(value, Tensor) or value.numel() == 0:
        return repr(value)
    x = value.detach()
    bad = int((~torch.isfinite(x)).sum()) if x.is_floating_point() else 0
    if bad:
        return f"with {bad} of {x.numel()} entries not finite"
    low, high = float(x.min()), float(x.max())
    return f"{low:.4g}" if low == high else f"in [{low:.4g}, {high:.4g}]"
