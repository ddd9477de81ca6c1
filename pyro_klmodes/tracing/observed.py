"""What a model observes, for guides that look at the data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_klmodes.tracing.computed import is_deterministic
from pyro_klmodes.tracing.handlers import FixValues
from pyro_klmodes.tracing.masks import mask_of
from pyro_klmodes.tracing.plates import subsampled
from pyro_klmodes.tracing.randomness import same_random_state

__all__ = ["Observed", "hiding", "is_data", "observed_sites", "parameter_names", "takes_keyword"]


@dataclass(frozen=True)
class Observed:
    """An observed site in one run of a model.

    Attributes:
        value: what was observed, ``(*batch, *event)``.
        event_dim: number of its event dimensions.
        plates: names of its vectorised plates with their batch dimension.
        indices: those of the elements it saw of each of its plates.
        subsampled: names of its plates that see a minibatch.
        mask: which of its batch elements count, ``(*batch)`` or less; None for all.
    """

    value: Tensor
    event_dim: int
    plates: dict[str, int]
    indices: dict[str, Tensor]
    subsampled: frozenset[str]
    mask: Tensor | None = None

    @classmethod
    def of(cls, msg: Mapping[str, Any], indices: Mapping[str, Tensor]) -> Observed:
        """What a message says, given the indices of all plates."""
        plates = {f.name: f.dim for f in msg["cond_indep_stack"] if f.vectorized}
        return cls(
            torch.as_tensor(msg["value"]),
            msg["fn"].event_dim,
            plates,
            {name: indices[name] for name in plates if name in indices},
            frozenset(subsampled(msg)) & plates.keys(),
            mask_of(msg),
        )


def is_data(msg: Mapping[str, Any]) -> bool:
    """Whether a site observes a tensor: deterministic sites and factors do so in form only."""
    if not msg["is_observed"] or isinstance(msg["fn"], dist.Unit):
        return False
    return not is_deterministic(msg) and isinstance(msg["value"], Tensor)


@same_random_state()
def observed_sites(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    indices: Mapping[str, Tensor] | None = None,
    only: str | None = None,
) -> dict[str, Observed]:
    """Run a model, hidden from outer handlers, and collect what it observes.

    Args:
        model: a Pyro model.
        args: its positional arguments.
        kwargs: its keyword arguments.
        indices: the minibatches of subsampled plates, by name; others are drawn.
        only: the name of a site after which the rest of the model need not run.
    """
    seen = _Observations(only)
    with poutine.block(), torch.no_grad(), FixValues(indices or {}), seen, suppress(_Seen):
        model(*args, **kwargs)
    return seen.found


class _Seen(Exception):
    """The rest of the model need not run."""


class _Observations(Messenger):
    def __init__(self, only: str | None) -> None:
        super().__init__()
        self.only = only
        self.indices: dict[str, Tensor] = {}
        self.found: dict[str, Observed] = {}

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if site_is_subsample(msg):
            self.indices[msg["name"]] = torch.as_tensor(msg["value"])
            return
        if not is_data(msg):
            return
        self.found[msg["name"]] = Observed.of(msg, self.indices)
        if msg["name"] == self.only:
            raise _Seen


def hiding(model: Callable[..., Any], names: Collection[str]) -> Callable[..., Any]:
    """The model without some of its sites, for another guide to be built on."""
    hidden: Callable[..., Any] = poutine.block(model, hide=list(names))
    return hidden


def parameter_names(model: Callable[..., Any]) -> list[str]:
    """Names of a model's positional parameters in order; empty if it does not tell."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in _parameters(model) if p.kind in positional]


def takes_keyword(model: Callable[..., Any], name: str) -> bool:
    """Whether a model says that it has a parameter of that name."""
    return any(p.name == name for p in _parameters(model) if p.kind is not p.POSITIONAL_ONLY)


def _parameters(model: Callable[..., Any]) -> list[inspect.Parameter]:
    bare = poutine.unwrap(model)
    if isinstance(bare, torch.nn.Module):
        bare = bare.forward
    try:
        return list(inspect.signature(bare).parameters.values())
    except (TypeError, ValueError):
        return []
