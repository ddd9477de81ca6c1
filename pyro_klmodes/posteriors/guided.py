"""A posterior that is a guide with its fitted parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_klmodes.tracing.runs import Pair

__all__ = ["Guided"]


@dataclass(frozen=True)
class Guided:
    """A model, a guide whose parameters are fitted, and what both are called with.

    Attributes:
        model: the model.
        guide: the guide, not bound to its parameters: run it inside of ``scope``.
        args: positional arguments of both.
        kwargs: keyword arguments of both.
        state: param store with the fitted parameters; None if they are in the global store.
        losses: loss of every step, empty if nobody kept them.
        attributes: how it was made (``loss``, ``guide``, ``seed``, ``steps``, ``seconds``,
            ``versions``), as far as that is known.
    """

    model: Callable[..., Any] = field(repr=False)
    guide: Callable[..., Any] = field(repr=False)
    args: tuple[Any, ...] = field(default=(), repr=False)
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    state: dict[str, Any] | None = field(default=None, repr=False)
    losses: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pair(self) -> Pair:
        """Model and guide with what they are called with."""
        return Pair(self.model, self.guide, self.args, self.kwargs)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Make the fitted parameters those of the global param store, inside."""
        if self.state is None:
            yield
            return
        with pyro.get_param_store().scope(self.state):
            yield

    def on(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Guided:
        """The same guide for other arguments, such as the full data."""
        return replace(self, args=tuple(args), kwargs=dict(kwargs))
