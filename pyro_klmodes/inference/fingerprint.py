"""What a fit is, in words and numbers, so that a checkpoint is not taken for another fit's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor

from pyro_klmodes.losses import DivergenceLoss

__all__ = ["describe_fit", "describe_parameters", "differences"]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def describe_fit(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    loss: ELBO,
    **others: object,
) -> dict[str, str]:
    """Names of the parts and their settings, the same in every process."""
    told: dict[str, object] = {
        "model": _name(model),
        "guide": _name(guide),
        "loss": type(loss).__qualname__,
        "num_particles": loss.num_particles,
    }
    if isinstance(loss, DivergenceLoss):
        told |= {
            "num_outer": loss.num_outer,
            "estimator": repr(loss.estimator),
            "objective": repr(loss.objective),
        }
    return {name: _ADDRESS.sub("", str(x)) for name, x in (told | others).items()}


def describe_parameters(
    params: Mapping[str, Tensor], constraints: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Shape, type and constraint of every parameter by name."""
    told = {}
    for name, p in params.items():
        told[f"parameter '{name}'"] = f"{tuple(p.shape)} {p.dtype}"
        if name in constraints:
            kind = constraints[name]
            of = kind["attributes"] or ""
            told[f"parameter '{name}'"] += f" {kind['class'].rpartition('.')[2]}{of}"
    return told


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What is not as it was, each in a few words."""
    found = []
    for name in {**then, **now}:
        old, new = then.get(name, "nothing"), now.get(name, "nothing")
        if old != new:
            found.append(f"{name} was {old} and is {new}")
    return found


def _name(function: Callable[..., Any]) -> str:
    bare = poutine.unwrap(function)
    return getattr(bare, "__qualname__", None) or type(bare).__qualname__
