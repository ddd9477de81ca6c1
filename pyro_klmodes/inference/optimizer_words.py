"""Kind, arguments and learning rates of a Pyro optimizer, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyro.optim import PyroLRScheduler, PyroOptim

__all__ = ["described", "last_rate", "parts_of", "short"]


def parts_of(each: Any) -> tuple[Any, Any]:
    """A scheduler or None, and the torch optimizer."""
    return (each, each.optimizer) if hasattr(each, "optimizer") else (None, each)


def last_rate(optim: PyroOptim) -> str:
    """The learning rates of the last step, where they are not those of the first."""
    groups = [g for each in optim.optim_objs.values() for g in parts_of(each)[1].param_groups]
    rates = sorted({short(float(group["lr"])) for group in groups}, key=float)
    given = optim.pt_optim_args
    first = given.get("lr") if isinstance(given, Mapping) else None
    if not rates or (first is not None and rates == [short(float(first))]):
        return ""
    return f", learning rate {' to '.join(dict.fromkeys((rates[0], rates[-1])))} at the end"


def short(value: Any) -> str:
    """Numbers to four digits."""
    if isinstance(value, tuple | list):
        return f"({', '.join(map(short, value))})"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def described(optim: PyroOptim, leaf: Callable[[Any], str] = repr) -> str:
    """Kind and arguments, without anything that differs from process to process."""
    parts = [optim.pt_optim_constructor, optim.pt_optim_args, optim.pt_clip_args]
    if isinstance(optim, PyroLRScheduler):
        parts += [optim.pt_scheduler_constructor, optim.kwargs]
    return " ".join(_spell(part, leaf) for part in parts if part != {})


def _spell(value: Any, leaf: Callable[[Any], str]) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name}={_spell(x, leaf)}" for name, x in value.items()) + ")"
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return leaf(value)
