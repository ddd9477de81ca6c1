"""How all experiments fit: Adam whose rate falls to a fiftieth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer import ELBO
from pyro.optim import ClippedAdam

from pyro_klmodes import FitResult, fit

__all__ = ["fitted"]


def fitted(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    loss: ELBO,
    *args: Any,
    steps: int,
    pace: float = 1.0,
    **kwargs: Any,
) -> FitResult:
    """A fit without clipping, which would move the optimum of noisy gradients.

    The learning rate is ``pace / 10`` in a fit of 300 steps, and larger in a shorter one.
    """
    rate = 0.1 * pace * (300 / steps) ** 0.5
    optim = ClippedAdam({"lr": rate, "lrd": 0.02 ** (1 / steps), "clip_norm": 1e6})
    return fit(model, guide, loss, *args, steps=steps, optim=optim, progress=False, **kwargs)
