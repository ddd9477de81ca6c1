"""Pyro as it comes: ``SVI.step`` with its own losses, particles vectorised, validation on."""

from __future__ import annotations

from collections.abc import Callable

import pyro
from pyro import infer
from pyro.infer import SVI

from benchmarks.engine.cell import AMORTISED, Cell
from benchmarks.engine.problems.in_pyro import BROADCASTING, MARGINAL, arguments, pair
from benchmarks.engine.run import Run

__all__ = ["build", "loss_for", "models_for", "stepping", "warm_up"]

ENUMERATED = ("enumerated mixture", "hidden Markov, T = 20")


def loss_for(cell: Cell) -> infer.ELBO:
    """The nearest loss of Pyro's. The wake phase alone is what the forward divergence asks for."""
    options = {"num_particles": cell.particles, "vectorize_particles": cell.particles > 1}
    if cell.objective == "IWAE":
        return infer.RenyiELBO(alpha=0.0, **options)
    if cell.objective == "forward KL":
        learns = cell.guide == AMORTISED
        return infer.ReweightedWakeSleep(insomnia=1.0, model_has_params=learns, **options)
    return (infer.TraceEnum_ELBO if cell.model in ENUMERATED else infer.Trace_ELBO)(**options)


def models_for(cell: Cell) -> dict[str, Callable]:
    """Only Pyro's ELBO sums out sites, so its other losses get the sum written out."""
    return BROADCASTING if cell.objective == "ELBO" else MARGINAL


def build(cell: Cell) -> Run:
    """The interpreter's own loop."""
    model, guide = pair(cell, models_for(cell))
    return stepping(model, guide, loss_for(cell), arguments(cell.model), cell.learning_rate)


def stepping(
    model: Callable, guide: Callable, loss: infer.ELBO, args: tuple, learning_rate: float
) -> Run:
    """``SVI.step`` again and again, with parameters of its own in Pyro's store."""
    svi = SVI(model, guide, pyro.optim.Adam({"lr": learning_rate}), loss)
    parameters = None

    def block(steps: int) -> float:
        nonlocal parameters
        with pyro.get_param_store().scope(parameters) as parameters:
            for _ in range(steps):
                value = svi.step(*args)
        # wake-sleep has two values, the second that of the guide
        return float(value[-1] if isinstance(value, tuple) else value)

    return Run(block)


def warm_up() -> None:
    """Modules that torch loads at its first gradient."""
    build(Cell("mixture potential", "mean field", "ELBO", 1)).block(1)
