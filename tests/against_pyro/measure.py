"""What the comparison measures: estimates with their standard error, gradients, and defects."""

from __future__ import annotations

import math
from typing import NamedTuple

import pyro
import pytest
import torch
from pyro.infer import ReweightedWakeSleep, TraceTailAdaptive_ELBO

# Four standard errors: one honest estimate in 16,000 is further off, and the seed is fixed.
ERRORS = 4.0
EXACT = 1e-8


class Estimate(NamedTuple):
    """Mean of independent estimates, and its standard error."""

    mean: float
    se: float


def estimate(values):
    """Mean and standard error of independent values."""
    values = torch.as_tensor(values, dtype=torch.float64)
    return Estimate(values.mean().item(), values.std().item() / math.sqrt(len(values)))


def bound(loss, model, guide, repeats):
    """Mean of the negated loss over independent calls."""
    return estimate([-loss.loss(model, guide) for _ in range(repeats)])


def gradient(loss, model, guide, *leaves):
    """Gradients that one call of a loss leaves at some leaf tensors."""
    for leaf in leaves:
        leaf.grad = None
    loss.loss_and_grads(model, guide)
    return [torch.zeros_like(x) if x.grad is None else x.grad.clone() for x in leaves]


def param(name):
    """The unconstrained leaf behind a parameter of the param store."""
    return pyro.param(name).unconstrained()


def assert_right(found, exact, at_most):
    """An estimate lies within four standard errors, and they are small enough to tell."""
    assert abs(found.mean - exact) < ERRORS * found.se, (found, exact)
    assert found.se < at_most, f"standard error {found.se} is too large to show the defect"


def assert_converged(found, start, exact, tolerance):
    """A fit ends within a tolerance of the exact numbers that its start exceeds fivefold."""
    for end, begin, right in zip(found, start, exact, strict=True):
        assert abs(begin - right) > 5 * tolerance
        assert abs(end - right) < tolerance, (found, exact)


def assert_pyro_is_off(error, more_than, noise=0.0):
    """Pyro's distance from the exact answer exceeds a margin.

    A version of Pyro that gives the right answer skips the test; anything in between fails it.
    """
    if abs(error) <= max(ERRORS * noise, EXACT):
        skip_because_pyro_is_right()
    assert abs(error) > more_than + ERRORS * noise, (error, more_than, noise)


def skip_because_pyro_is_right():
    """There is no defect to document any more; what is ours has been tested before."""
    pytest.skip(f"Pyro {pyro.__version__} gives the right answer here")


class KeepsTraces:
    """Mixin for Pyro's losses: remembers the traces of the last call, to redo it by hand."""

    def _get_traces(self, model, guide, args, kwargs):
        self.traces = []
        for pair in super()._get_traces(model, guide, args, kwargs):
            self.traces.append(pair)
            yield pair

    def drawn(self, name):
        """Values of a guide site, particles along the first dimension."""
        return torch.cat([g.nodes[name]["value"].detach().reshape(-1) for _, g in self.traces])


class WakeSleep(KeepsTraces, ReweightedWakeSleep):
    """Pyro's reweighted wake-sleep with its traces."""


class Tail(KeepsTraces, TraceTailAdaptive_ELBO):
    """Pyro's tail-adaptive loss with its traces."""
