"""What was found without a guide, once per model and shared by all of its fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.diagnosis.second_opinion import SecondOpinion
from pyro_klmodes.entries import Fitted, Outcome

__all__ = ["Opinions"]

STARTS = 16


@dataclass
class Opinions:
    """Remembers what a search for modes found, for each model with its arguments."""

    _known: list[tuple[tuple[Any, ...], SecondOpinion | None]] = field(default_factory=list)

    def of(
        self, model: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Options for `summarise`: what was found before, else leave to search."""
        for known, opinion in self._known:
            if _same(known, (model, tuple(args), dict(kwargs))):
                # A search that found nothing is not made again.
                return {"opinion": opinion, "num_starts": 0}
        return {"opinion": None, "num_starts": STARTS}

    def remember(
        self,
        model: Callable[..., Any] | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        outcome: Outcome,
    ) -> None:
        """Keep what the search of a fit found, unless the model is another one in every fit."""
        searched = self.of(model, args, kwargs)["num_starts"] > 0
        if searched and isinstance(outcome, Fitted) and not outcome.learns:
            key = (model, tuple(args), dict(kwargs))
            self._known.append((key, outcome.diagnosis.opinion))


def _same(one: Any, other: Any) -> bool:
    """Whether two arguments of a model are equal; what cannot be told is not."""
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return isinstance(one, (int, float, str, bytes, type(None))) and one == other
