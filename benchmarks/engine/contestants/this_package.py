"""This package's engines, one contestant per tier."""

from __future__ import annotations

from benchmarks.engine import ours
from benchmarks.engine.cell import Cell
from benchmarks.engine.problems.in_pyro import MODELS, arguments, pair
from benchmarks.engine.run import Run

__all__ = ["build"]


def build(cell: Cell, tier: str) -> Run:
    """The model is the plain one: nothing is asked of it."""
    model, guide = pair(cell, MODELS)
    loss = ours.LOSSES[cell.objective](cell.particles)
    rate = cell.learning_rate
    return Run(ours.block(model, guide, loss, arguments(cell.model), tier, rate))
