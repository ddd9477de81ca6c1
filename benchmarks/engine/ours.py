"""This package, on the models as one writes them down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer import ELBO

from benchmarks.engine.contestants.in_pyro import stepping
from pyro_klmodes import IWAE, ForwardKL, ReverseKL

__all__ = ["LOSSES", "TIERS", "block"]

TIERS = ("eager",)

LOSSES: dict[str, Callable[[int], ELBO]] = {
    "ELBO": ReverseKL,
    "IWAE": IWAE,
    "forward KL": ForwardKL,
}


def block(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    loss: ELBO,
    args: tuple[Any, ...],
    tier: str,
    learning_rate: float = 1e-2,
) -> Callable[[int], float]:
    """A function that takes so many steps with Adam and returns the last loss.

    Raises:
        ValueError: for a tier that is not in ``TIERS``.
    """
    if tier not in TIERS:
        raise ValueError(f"tier={tier!r} is not one of {', '.join(TIERS)}.")
    return stepping(model, guide, loss, args, learning_rate).block
