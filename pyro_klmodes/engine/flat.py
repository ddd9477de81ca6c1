"""A loss at fixed random numbers, as a function of one vector, and its minimum by L-BFGS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from pyro_klmodes.engine.backends import Tier
from pyro_klmodes.engine.lift import Lifted
from pyro_klmodes.engine.steps import GradientStep
from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.tracing.randomness import same_random_state

__all__ = ["FlatObjective", "Minimum", "minimise"]


class Minimum(NamedTuple):
    """Where L-BFGS stopped.

    Attributes:
        x: ``(n,)``.
        value: of the loss.
        largest: absolute value of the largest element of the gradient.
        evaluations: of loss and gradient.
        message: why it stopped, as scipy says it.
    """

    x: np.ndarray
    value: float
    largest: float
    evaluations: int
    message: str


class FlatObjective:
    r"""The sample average :math:`x \mapsto L(x; \epsilon_1, \ldots, \epsilon_K)` of a lifted step.

    The draws are made once, so that the loss is an ordinary function: deterministic optimizers
    apply, and their stopping rules mean what they say. Its minimum is that of the expectation up to
    an error of order :math:`K^{-1/2}` (Giordano, Ingram and Broderick, 2024, who call this DADVI);
    with few particles and many parameters it can be far off, or not exist.

    Args:
        lifted: a step whose draws are made from noise that no parameter decides.
        parameters: where to begin; all that have a gradient are in the vector.
        tier: what runs it.
        seed: of the noise.

    Attributes:
        start: the vector to begin at, ``(n,)``, in double precision.

    Raises:
        UnsupportedStructure: if draws depend on parameters (Gamma, Dirichlet or discrete guides),
            or the loss has a schedule.
    """

    def __init__(
        self, lifted: Lifted, parameters: Sequence[Tensor], tier: Tier = "graph", seed: int = 0
    ) -> None:
        if lifted.dials:
            raise UnsupportedStructure(
                f"'{lifted.dials[0]}' has a schedule, so there is no one function to minimise. "
                "Make it a number."
            )
        step = GradientStep(lifted, parameters)
        if step.split.draws_follow:
            raise UnsupportedStructure(
                "the guide's draws depend on its parameters beyond scaled and shifted noise, so "
                "they cannot be held fixed. Use a guide of Normal distributions, or a flow of them."
            )
        if tier != "graph":
            step.split.use(step.split.program(tier), tier)
        self._lifted = lifted
        self._all = [p.detach().clone() for p in parameters]
        self._shapes = [p.shape for p, m in zip(self._all, lifted.moved, strict=True) if m]
        data, settings = lifted.arguments.tensors, lifted.example
        with torch.no_grad(), same_random_state():
            torch.manual_seed(seed)
            noise = step.split.draws([*self._all, settings], data)
        self._run = lambda values: step.split.run([*values, settings], data, noise)
        moving = [p for p, m in zip(self._all, lifted.moved, strict=True) if m]
        self.start = torch.cat([p.reshape(-1).double() for p in moving]).numpy()

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Loss and gradient, ``(n,)``, at a vector."""
        with torch.no_grad():
            loss, *found = self._run(self.parameters(x))
        flat = torch.cat([g.reshape(-1).double() for g in found])
        return float(loss), flat.numpy()

    def parameters(self, x: np.ndarray) -> list[Tensor]:
        """All parameters, with those that move as a vector says."""
        sizes = [shape.numel() for shape in self._shapes]
        parts = iter(zip(torch.as_tensor(x).split(sizes), self._shapes, strict=True))
        values = []
        for p, moves in zip(self._all, self._lifted.moved, strict=True):
            if moves:
                part, shape = next(parts)
                values.append(part.to(p.dtype).reshape(shape))
            else:
                values.append(p)
        return values


def minimise(
    objective: FlatObjective, *, tolerance: float = 1e-6, max_evaluations: int = 10_000
) -> Minimum:
    """Go down to where no element of the gradient is larger than a tolerance.

    Args:
        objective: the loss at fixed random numbers.
        tolerance: for the largest element of the gradient.
        max_evaluations: of loss and gradient at most.

    Raises:
        InvalidArgument: if the tolerance is not positive.
    """
    if not tolerance > 0:
        raise InvalidArgument(f"tolerance={tolerance!r} must be positive.")
    found = minimize(
        objective,
        objective.start,
        jac=True,
        method="L-BFGS-B",
        options={"gtol": tolerance, "ftol": 0.0, "maxfun": max_evaluations, "maxiter": 100_000},
    )
    largest = float(np.abs(found.jac).max(initial=0.0))
    return Minimum(found.x, float(found.fun), largest, int(found.nfev), str(found.message))
