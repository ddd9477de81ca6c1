"""A posterior that is a set of Markov chains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["Chains"]


@dataclass(frozen=True)
class Chains:
    """Draws of Markov chains, in the constrained space.

    Attributes:
        values: draws of every latent site, ``(chains, draws, *site_shape)``.
        model: the model, None if it is not known.
        args: its positional arguments.
        kwargs: its keyword arguments.
        statistics: per-draw statistics of the sampler, ``(chains, draws)``, for instance
            ``diverging``.
        attributes: how it was made.
    """

    values: Mapping[str, Tensor] = field(repr=False)
    model: Callable[..., Any] | None = field(default=None, repr=False)
    args: tuple[Any, ...] = field(default=(), repr=False)
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    statistics: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of chains, and of draws of each."""
        first = next(iter(self.values.values()))
        return first.shape[0], first.shape[1]

    def pooled(self) -> dict[str, Tensor]:  # {site: (chains * draws, *site_shape)}
        """All chains after one another."""
        return {name: x.flatten(0, 1) for name, x in self.values.items()}
