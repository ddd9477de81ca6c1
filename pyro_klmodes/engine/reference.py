"""What eager code gives at several random points, to hold graphs against."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_klmodes.engine.causes import cause_of
from pyro_klmodes.engine.errors import CannotLift
from pyro_klmodes.engine.parameters import Parameters
from pyro_klmodes.engine.python_state import PythonState
from pyro_klmodes.losses import DivergenceLoss
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import Pair

__all__ = ["Gradient", "Point", "Reference", "eager_gradient", "runs_change"]

#: loss and gradients in the order of the parameters; None for those that get none
Gradient = tuple[Tensor, tuple[Tensor | None, ...]]

#: how many points, how far apart their steps are, and how far the parameters are moved for them
_POINTS, _STEPS_APART, _FIRST_MOVE, _SMALLEST_MOVE = 3, 7, 0.1, 1e-4
#: how often parameters are rounded otherwise, see ``Reference.rounded``
_ROUNDINGS = 3


class Point(NamedTuple):
    """Where eager code was run, and what it gave.

    Attributes:
        seed: of torch's generator.
        step: of the loss, which has schedules.
        at: the parameters.
        gradient: loss and gradients.
        after: the state of torch's generator at the end.
    """

    seed: int
    step: int
    at: list[Tensor]
    gradient: Gradient
    after: Tensor


class Reference:
    """Eager gradients at random points, to hold programs against.

    Args:
        points: all of them.
        elsewhere: runs eager code with the seed and step of a point, at other parameters.
    """

    def __init__(
        self,
        points: Sequence[Point],
        elsewhere: Callable[[Point, list[Tensor]], Point],
    ) -> None:
        self.points = tuple(points)
        self._elsewhere = elsewhere

    @classmethod
    def of(cls, pair: Pair, loss: DivergenceLoss, parameters: Parameters) -> Reference:
        """Run the eager step at points around the present one, with generators seeded anew.

        Raises:
            CannotLift: if a run changes what the next one reads, or uses other generators.
        """
        known = set(pyro.get_param_store())
        with same_random_state(), poutine.block(), parameters.unchanged():
            state = PythonState(pair.model, pair.guide, *parameters.modules)
            points = [_point(pair, loss, parameters, seed) for seed in range(_POINTS)]
            changed = state.changed()
        _refuse_new_parameters(known)
        if changed is not None:
            raise CannotLift(runs_change(changed))

        def elsewhere(point: Point, at: list[Tensor]) -> Point:
            torch.manual_seed(point.seed)
            with poutine.block(), parameters.unchanged(), _moved(parameters, at):
                gradient = eager_gradient(pair, loss, parameters, point.step)
            return point._replace(at=at, gradient=gradient)

        return cls(points, elsewhere)

    def through(self, change: Callable[[Tensor, Tensor], Tensor]) -> Reference:
        """The same points with a function of parameter and gradient in the gradient's place."""
        return Reference(
            [_through(point, change) for point in self.points],
            lambda point, at: _through(self._elsewhere(point, at), change),
        )

    def rounded(self, point: Point) -> list[Gradient]:
        """What eager code gives with parameters that are rounded otherwise."""
        with same_random_state():
            torch.manual_seed(point.seed)
            signs = [[torch.randn_like(p).sign() for p in point.at] for _ in range(_ROUNDINGS)]
            moved = [
                [
                    p * (1.0 + torch.finfo(p.dtype).eps * sign)
                    for p, sign in zip(point.at, each, strict=True)
                ]
                for each in signs
            ]
            return [self._elsewhere(point, at).gradient for at in moved]


def runs_change(what: str) -> str:
    """The cause, if a step of eager code changes something."""
    return f"a step changes {what}, so the next one may be another function"


def _refuse_new_parameters(known: set[str]) -> None:
    """Parameters that a run has made on the way are to be made by the steps themselves."""
    store = pyro.get_param_store()
    new = [name for name in store if name not in known]
    for name in new:
        del store[name]
    if new:
        raise CannotLift(f"parameter '{new[0]}' is made by a later step only")


def eager_gradient(pair: Pair, loss: DivergenceLoss, parameters: Parameters, step: int) -> Gradient:
    """Loss and gradients as training without an engine has them; nothing is left behind."""
    grads = [p.grad for p in parameters.leaves]
    for p in parameters.leaves:
        p.grad = None
    state = copy.deepcopy(loss.state_dict())
    loss.step = step
    try:
        value = loss.loss_and_grads(pair.model, pair.guide, *pair.args, **pair.kwargs)
        found = tuple(None if p.grad is None else p.grad.clone() for p in parameters.leaves)
    finally:
        loss.load_state_dict(state)
        for p, grad in zip(parameters.leaves, grads, strict=True):
            p.grad = grad
    return torch.tensor(value, dtype=torch.float64), found


def _point(pair: Pair, loss: DivergenceLoss, parameters: Parameters, seed: int) -> Point:
    """The gradient at parameters that were moved, less far if the loss is not finite there."""
    move = 0.0 if seed == 0 else _FIRST_MOVE
    step = loss.step + seed * _STEPS_APART
    while True:
        torch.manual_seed(seed)
        at = [p.detach() + move * torch.randn_like(p) for p in parameters.leaves]
        torch.manual_seed(seed)
        try:
            with _moved(parameters, at):
                gradient = eager_gradient(pair, loss, parameters, step)
            if move == 0.0 or bool(gradient[0].isfinite()):
                return Point(seed, step, at, gradient, torch.get_rng_state())
        except Exception as error:  # a parameter that is not allowed, a matrix without a root
            if move == 0.0:
                raise CannotLift(f"a step fails: {cause_of(error)}") from error
        move = move * 0.1 if move > _SMALLEST_MOVE else 0.0


def _through(point: Point, change: Callable[[Tensor, Tensor], Tensor]) -> Point:
    value, found = point.gradient
    changed = [None if g is None else change(p, g) for p, g in zip(point.at, found, strict=True)]
    return point._replace(gradient=(value, tuple(changed)))


@contextmanager
def _moved(parameters: Parameters, at: Sequence[Tensor]) -> Iterator[None]:
    """Give the parameters other values for a while."""
    before = [p.detach().clone() for p in parameters.leaves]
    with torch.no_grad():
        for p, value in zip(parameters.leaves, at, strict=True):
            p.copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, value in zip(parameters.leaves, before, strict=True):
                p.copy_(value)
