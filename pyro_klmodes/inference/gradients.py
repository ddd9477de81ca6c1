"""Gradients at parameters that stand still, for looking at their noise and their mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.step import plain_parameters
from pyro_klmodes.losses import DivergenceLoss

__all__ = ["FrozenParameters", "frozen_parameters"]


@dataclass(frozen=True)
class FrozenParameters:
    """A pair and a loss whose gradients can be asked for again and again.

    Attributes:
        params: unconstrained parameters by name.
        guide: names of the guide's.
        model: names of the model's.
    """

    params: Mapping[str, Tensor]
    guide: tuple[str, ...]
    model: tuple[str, ...]
    _gradient: Callable[[], object]

    def gradient(self) -> dict[str, Tensor]:
        """One stochastic gradient, in double precision."""
        for p in self.params.values():
            p.grad = None
        self._gradient()
        return {
            name: (torch.zeros_like(p) if p.grad is None else p.grad).detach().double()
            for name, p in self.params.items()
        }


@contextmanager
def frozen_parameters(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    loss: ELBO,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    seed: int,
) -> Iterator[FrozenParameters]:
    """Parameters, random states, ``.grad`` and the state of the loss are put back at the end.

    Raises:
        InvalidArgument: if ``loss`` is none, or there are no parameters.
    """
    if not isinstance(loss, ELBO):
        raise InvalidArgument(f"loss={loss!r} is not a loss; pass an instance such as ReverseKL().")
    store = pyro.get_param_store()
    # in a scope, so that parameters that a first run makes do not stay
    with seeded(seed), store.scope(store.get_state()), _same_state(loss):
        params = _parameters(model, guide, loss, args, kwargs)
        if not params:
            raise InvalidArgument("neither guide nor model has a parameter with a gradient.")
        of_guide = _touched(guide, args, kwargs)
        before = {name: p.grad for name, p in params.items()}
        try:
            yield FrozenParameters(
                params,
                guide=tuple(n for n, p in params.items() if p in of_guide),
                model=tuple(n for n, p in params.items() if p not in of_guide),
                _gradient=lambda: loss.loss_and_grads(model, guide, *args, **kwargs),
            )
        finally:
            for name, p in params.items():
                p.grad = before[name]


@contextmanager
def _same_state(loss: ELBO) -> Iterator[None]:
    """What a loss keeps from step to step is as it was in the end."""
    if not isinstance(loss, DivergenceLoss):
        yield
        return
    before = loss.state_dict()
    try:
        yield
    finally:
        loss.load_state_dict(before)


def _parameters(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    loss: ELBO,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> dict[str, Tensor]:
    """Unconstrained parameters that a step would touch."""
    with poutine.trace(param_only=True) as tracer:
        loss.loss(model, guide, *args, **kwargs)
    params = {n: s["value"].unconstrained() for n, s in tracer.trace.nodes.items()}
    params.update(plain_parameters(model, guide, params))
    return {n: p for n, p in params.items() if p.requires_grad}


def _touched(
    guide: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> set[Tensor]:
    """Unconstrained parameters of the guide."""
    with poutine.trace(param_only=True) as tracer, torch.no_grad():
        guide(*args, **kwargs)
    found = {site["value"].unconstrained() for site in tracer.trace.nodes.values()}
    return found | set(plain_parameters(guide, guide, {}).values())
