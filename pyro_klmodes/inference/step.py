"""One gradient step, and what to do when it is not a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.optim import PyroOptim
from torch import Tensor

from pyro_klmodes.errors import NonFiniteLoss

__all__ = ["OnNonfinite", "Stepper"]

OnNonfinite = Literal["raise", "skip", "backoff"]

#: this many bad steps in a row are no accident
_PATIENCE = 50


class Stepper:
    """Computes gradients, looks at them, and only then moves the parameters.

    The parameters are those that model and guide touch through ``pyro.param`` during the step, as
    in ``pyro.infer.SVI``, and in addition those of modules that Pyro has not been told of.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        loss: ELBO,
        optim: PyroOptim,
        on_nonfinite: OnNonfinite,
    ) -> None:
        self.model = model
        self.guide = guide
        self.loss = loss
        self.optim = optim
        self.on_nonfinite = on_nonfinite
        self.bad_steps = 0
        self.before: dict[Tensor, Tensor] = {}
        self.touched: dict[str, Tensor] = {}

    def parameters(self) -> dict[str, Tensor]:
        """The unconstrained parameters of the last step by name."""
        return self.touched

    def __call__(self, step: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        """Take a step; the loss, or NaN if it was skipped.

        Raises:
            NonFiniteLoss: naming the step, if that is what is wanted, or nothing else helps.
        """
        with poutine.trace(param_only=True) as tracer:
            try:
                value = _as_float(self.loss.loss_and_grads(self.model, self.guide, *args, **kwargs))
                problem = "" if math.isfinite(value) else f"the loss is {value}"
            except NonFiniteLoss as error:
                value, problem = math.nan, str(error)
        params = {
            site["name"]: site["value"].unconstrained() for site in tracer.trace.nodes.values()
        }
        known = set(params.values())
        for module in (self.model, self.guide):
            if isinstance(module, torch.nn.Module):
                params.update((n, p) for n, p in module.named_parameters() if p not in known)
        self.touched = params
        problem = problem or _bad_gradient(params)
        if problem:
            value = self._after_problem(step, problem, params.values())
        else:
            self.bad_steps = 0
            if self.on_nonfinite == "backoff":
                self.before = {p: p.detach().clone() for p in params.values()}
            self.optim([p for p in params.values() if p.grad is not None])
        for p in params.values():
            p.grad = None
        return value

    def _after_problem(self, step: int, problem: str, params: Iterable[Tensor]) -> float:
        self.bad_steps += 1
        if self.on_nonfinite == "raise" or self.bad_steps > _PATIENCE:
            often = f" ({self.bad_steps} times in a row)" if self.bad_steps > 1 else ""
            raise NonFiniteLoss(f"step {step}{often}: {problem}")
        if self.on_nonfinite == "backoff":
            with torch.no_grad():
                for p in params:
                    if p in self.before:
                        p.copy_(self.before[p])
            for inner in self.optim.optim_objs.values():
                for group in inner.param_groups:
                    group["lr"] *= 0.5
        return math.nan


def _as_float(value: Any) -> float:
    """Pyro's wake-sleep loss returns one number for the model and one for the guide."""
    if isinstance(value, tuple):
        return sum(float(v) for v in value)
    return float(value)


def _bad_gradient(params: dict[str, Tensor]) -> str:
    for name, p in params.items():
        if p.grad is not None and not bool(torch.isfinite(p.grad).all()):
            return f"the gradient of parameter '{name}' is not finite (value {p.detach()})"
    return ""
