"""A graph is used only after it has given what eager code gives, at several random points."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_klmodes.engine.errors import CannotLift
from pyro_klmodes.engine.reference import Gradient, Point, Reference
from pyro_klmodes.tracing.randomness import same_random_state

__all__ = ["difference", "reordered", "same_operations", "verify"]

#: tensors far smaller than the loss and the largest gradient may be rounding errors themselves
_SMALL = 1e-3
#: How many times as far as another rounding of the parameters moves a gradient another order of
#: operations may move it, and how far at most.
_TIMES, _MOST = 10.0, 1e-2


def same_operations(eps: float) -> float:
    """The relative difference that the same operations in the same order may make."""
    return 1e3 * eps


def reordered(eps: float) -> float:
    """The one that a compiler's other order of sums may make: half of the digits."""
    return math.sqrt(eps)


def verify(
    reference: Reference,
    gradient: Callable[[Point], Gradient],
    allowed: Callable[[float], float],
) -> None:
    """Compare a graph, or a program made of it, with eager code.

    Args:
        reference: what eager code gives.
        gradient: loss and gradients at the parameters and the step of a point, drawing from torch's
            generator.
        allowed: the relative difference that may be, given the rounding error of the data type.

    Raises:
        CannotLift: saying how large the difference is.
    """
    for point in reference.points:
        with same_random_state():
            torch.manual_seed(point.seed)
            value, found = gradient(point)
            after = torch.get_rng_state()
        if not torch.equal(after, point.after):
            raise CannotLift(
                "a step leaves torch's generator in another state than the graph does. Does the "
                "model or the guide set its seed, or its state?"
            )
        expected, got = _flat(point.gradient), _flat((value, found))
        floor = _SMALL * max(_largest(x) for x in expected)
        apart = _apart(expected, got, floor)
        limits = [allowed(_eps(x)) for x in got]
        if _exceed(apart, limits) is not None and max(apart) <= _MOST:
            # sums of large terms that cancel: rounding alone may move the gradient further
            others = [_apart(expected, _flat(g), floor) for g in reference.rounded(point)]
            limits = [
                max(limit, min(_MOST, _TIMES * max(moved)))
                for limit, *moved in zip(limits, *others, strict=True)
            ]
        worst = _exceed(apart, limits)
        if worst is not None:
            raise CannotLift(
                "the graph gives other numbers than the code it was made of (they differ by "
                f"{worst:.2g} of the largest at a random point). Does the model use random "
                "numbers of its own, or anything else that changes from run to run?"
            )


def _flat(gradient: Gradient) -> list[Tensor | None]:
    return [gradient[0], *gradient[1]]


def _apart(
    expected: Sequence[Tensor | None], got: Sequence[Tensor | None], floor: float
) -> list[float]:
    return [difference(a, b, floor) for a, b in zip(expected, got, strict=True)]


def _exceed(apart: Sequence[float], limits: Sequence[float]) -> float | None:
    """The first difference beyond its limit."""
    return next((a for a, limit in zip(apart, limits, strict=True) if not a <= limit), None)


def difference(
    a: Tensor | None,
    b: Tensor | None,
    floor: float,
) -> float:
    """The largest difference of two tensors, relative to the largest element or a floor.

    Infinite where one of the two is missing or shapes differ, or infinities and NaN are not in the
    same places.
    """
    if a is None or b is None:  # optimizers treat none and zero differently
        return 0.0 if a is b else math.inf
    if a.shape != b.shape:
        return math.inf
    a, b = a.double(), b.double()
    same = (a == b) | (a.isnan() & b.isnan())
    apart = torch.where(same, torch.zeros_like(a), (a - b).abs())
    if not bool(apart.any()):
        return 0.0
    worst = float(apart.max()) / max(_largest(a), floor)
    return math.inf if math.isnan(worst) else worst


def _largest(x: Tensor | None) -> float:
    if x is None or x.numel() == 0:
        return 0.0
    return float(x.abs().nan_to_num(nan=0.0, posinf=0.0).max())


def _eps(x: Tensor | None) -> float:
    return torch.finfo(torch.float64 if x is None else x.dtype).eps
