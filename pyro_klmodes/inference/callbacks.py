"""What a fit tells its callbacks, and which of their methods it calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.calling import shown
from pyro_klmodes.inference.checkpoint import Checkpoint

__all__ = ["Callbacks", "StepInfo"]


class StepInfo(NamedTuple):
    """What a callback is told after every step.

    Attributes:
        step: its number, from 0.
        loss: NaN if the step was skipped.
        parameters: call it for the unconstrained parameters by name, the tensors themselves.
        epoch: number of the pass over the batches, from 0; None in a fit without batches.
    """

    step: int
    loss: float
    parameters: Callable[[], Mapping[str, Tensor]] = dict
    epoch: int | None = None


class Callbacks:
    """The callbacks of one fit.

    A callback is called with a ``StepInfo`` after every step; a true result ends the fit. It may
    also have these methods:

    - ``before_fit(model, guide, parameters)``: before the first step, also of a fit that resumes;
    - ``check_length(steps)``: likewise, with the number of steps to come where it is known; it may
      raise;
    - ``after_epoch(info)``: after each pass over the batches, with the last step's ``StepInfo``; a
      true result ends the fit;
    - ``finish()``: at the end; it may change the parameters;
    - ``state_dict()`` and ``load_state_dict(state)``: what a checkpoint keeps of it.
    """

    def __init__(self, callbacks: Iterable[Callable[[StepInfo], object]]) -> None:
        self.each = _checked(callbacks)
        self.ended_by: list[str] = []

    def before_fit(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        parameters: Callable[[], Mapping[str, Tensor]],
    ) -> None:
        """Begin a fit."""
        self._tell("before_fit", model, guide, parameters)

    def check_length(self, steps: int | None) -> None:
        """Have those look that need a number of steps, if it is known beforehand."""
        if steps is not None:
            self._tell("check_length", steps)

    def after_step(self, info: StepInfo) -> bool:
        """Tell all of them of a step; whether the fit should end."""
        return self._ends([(callback, callback(info)) for callback in self.each])

    def after_epoch(self, info: StepInfo) -> bool:
        """Tell those that want to know of the end of an epoch; whether the fit should end."""
        return self._ends(self._tell("after_epoch", info))

    def finish(self) -> None:
        """The last thing that a fit does."""
        self._tell("finish")

    def end_again(self, ended_by: Sequence[str]) -> bool:
        """Whether a fit that was ended by a callback of this name stays ended."""
        self.ended_by = [name for name in ended_by if name in map(_name, self.each)]
        return bool(self.ended_by)

    def state_dict(self) -> list[dict[str, Any]]:
        """States of those that have one, in order."""
        return [{"name": _name(c), "state": c.state_dict()} for c in self._lasting()]

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on where they were.

        Raises:
            InvalidArgument: if these are not the callbacks of the fit that is to be resumed.
        """
        lasting = self._lasting()
        then, now = [s["name"] for s in states], [_name(c) for c in lasting]
        if then != now:
            raise InvalidArgument(
                f"callbacks: the checkpoint holds the states of {then}, this fit has {now}. Pass "
                "the same ones in the same order."
            )
        for callback, saved in zip(lasting, states, strict=True):
            callback.load_state_dict(saved["state"])

    def _lasting(self) -> list[Any]:
        return [c for c in self.each if hasattr(c, "state_dict") and hasattr(c, "load_state_dict")]

    def _tell(self, method: str, *args: Any) -> list[tuple[Any, object]]:
        return [(c, getattr(c, method)(*args)) for c in self.each if hasattr(c, method)]

    def _ends(self, answers: list[tuple[Any, object]]) -> bool:
        self.ended_by += [_name(callback) for callback, wish in answers if wish]
        return bool(self.ended_by)


def _checked(callbacks: Any) -> tuple[Any, ...]:
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, str | Mapping):
        name = type(callbacks).__name__
        raise InvalidArgument(
            f"callbacks is an object of type {name}; pass a list of callbacks, callbacks=[...]."
        )
    each = tuple(callbacks)
    for number, callback in enumerate(each):
        if isinstance(callback, Checkpoint):
            raise InvalidArgument(
                f"callbacks[{number}] is a Checkpoint, which is none; pass it as checkpoint=."
            )
        if not callable(callback) or isinstance(callback, type):
            raise InvalidArgument(
                f"callbacks[{number}] is {shown(callback)}; a callback is a function of a "
                "StepInfo, or an object that can be called with one."
            )
    return each


def _name(callback: Any) -> str:
    return getattr(callback, "__qualname__", None) or type(callback).__qualname__
