"""One call of a torch optimizer for many parameters, instead of one call for each."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from pyro.optim import PyroOptim
from torch import Tensor

__all__ = ["Fused"]


class Fused:
    """Moves parameters as a Pyro optimizer does, which keeps a torch optimizer for each of them.

    The calls cost more than the arithmetic for networks of usual size. The states stay those of the
    single optimizers, so that they are saved and restored as ever, and so are the numbers, bit by
    bit. Pyro makes a parameter's optimizer in its first step, and takes that step.
    """

    def __init__(self, optim: PyroOptim) -> None:
        self.optim = optim
        self.together: dict[tuple[Tensor, ...], Any] = {}

    def __call__(self, params: Sequence[Tensor]) -> None:
        """Take a step with all of them."""
        key = tuple(params)
        if key in self.together and not self._up_to_date(key):  # somebody has changed a rate
            del self.together[key]
        if key not in self.together:
            known = all(p in self.optim.optim_objs for p in key)
            if not known or not key or not self._alike(key):
                self.optim(key)
                return
            self.together[key] = self._fuse(key)
        self.together[key].step()

    def forget(self) -> None:
        """Begin anew, after states or learning rates of the single optimizers were changed."""
        self.together.clear()

    def _up_to_date(self, params: tuple[Tensor, ...]) -> bool:
        """Whether all of them still have the options that they are moved with."""
        options = _options(self.together[params])
        return all(_options(self.optim.optim_objs[p]) == options for p in params)

    def _alike(self, params: Sequence[Tensor]) -> bool:
        """Whether their optimizers are torch's own, with the same options and nothing around."""
        singles = [self.optim.optim_objs[p] for p in params]
        if any(self.optim.grad_clip[p] is not None for p in params):
            return False
        # others may change their options from step to step, each its own
        if not all(type(single).__module__.startswith("torch.optim.") for single in singles):
            return False
        if not all(hasattr(single, "param_groups") for single in singles):  # a schedule
            return False
        options = [_options(single) for single in singles]
        return all(each == options[0] for each in options)

    def _fuse(self, params: Sequence[Tensor]) -> Any:
        first = self.optim.optim_objs[params[0]]
        # AdamW has defaults that it does not take
        known = inspect.signature(type(first)).parameters
        options = {name: x for name, x in first.defaults.items() if name in known}
        fused = type(first)(list(params), **options)
        fused.param_groups[0].update(_options(first))
        for p in params:
            fused.state[p] = self.optim.optim_objs[p].state[p]  # the very dictionary
        return fused


def _options(single: Any) -> dict[str, Any]:
    return {name: x for name, x in single.param_groups[0].items() if name != "params"}
