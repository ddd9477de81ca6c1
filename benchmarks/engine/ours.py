"""This package, on the models as one writes them down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
from pyro.infer import ELBO

from benchmarks.engine.contestants.in_pyro import stepping
from pyro_klmodes import IWAE, ForwardKL, ReverseKL
from pyro_klmodes.engine import Engine
from pyro_klmodes.inference.batches import Call
from pyro_klmodes.inference.modules import Modules, called_modules
from pyro_klmodes.inference.optimizers import Optimizers
from pyro_klmodes.inference.step import Stepper

__all__ = ["LOSSES", "TIERS", "block"]

TIERS = ("eager", "graph", "inductor", "aot")

LOSSES: dict[str, Callable[[int], ELBO]] = {
    "ELBO": ReverseKL,
    "IWAE": IWAE,
    "forward KL": ForwardKL,
}

#: as many as a fit takes before it looks at the losses
_AT_ONCE = 1000


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
    if tier == "eager":
        return stepping(model, guide, loss, args, learning_rate).block
    return _compiled(model, guide, loss, args, tier, learning_rate)


def _compiled(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    loss: ELBO,
    args: tuple[Any, ...],
    tier: Any,
    learning_rate: float,
) -> Callable[[int], float]:
    """Steps as ``fit`` takes them, with all that it looks at, and without its progress."""
    engine = Engine(tier, model, guide, loss, None)
    optimizers = Optimizers(pyro.optim.Adam({"lr": learning_rate}))
    stepper = Stepper(model, guide, loss, optimizers, "raise", engine)
    call, modules, state = Call(args, {}), Modules(model, guide), None
    begun = False

    def begin() -> None:
        nonlocal begun
        with called_modules() as called:
            stepper("the first step", call)
        modules.add_called(called)
        begun = engine.begin(stepper.touched, modules.roots())

    def run(steps: int) -> float:
        nonlocal state
        value = float("nan")
        with pyro.get_param_store().scope(state) as state:
            while not begun:
                begin()
            while steps > 0:
                losses = stepper.many(call, min(steps, _AT_ONCE))
                if losses is None:
                    raise RuntimeError(engine.explanation.cause or "a loss is not finite")
                value = losses[-1]
                steps -= len(losses)
        return value

    return run
