"""A model with its parameters held at values that can be set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyro import poutine
from torch import Tensor

__all__ = ["Held"]


class Held:
    """A model whose parameters have given values and are hidden from everybody outside.

    Args:
        model: a Pyro model.
        values: of its parameters.

    Attributes:
        values: what they are in the next run.
    """

    def __init__(self, model: Callable[..., Any], values: Mapping[str, Tensor]) -> None:
        self.model = model
        self.values = values

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model."""
        held = poutine.substitute(data=dict(self.values))
        with poutine.block(hide=list(self.values)), held:
            return self.model(*args, **kwargs)
