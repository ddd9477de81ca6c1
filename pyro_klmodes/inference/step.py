"""One gradient step, and what to do when it is not a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor

from pyro_klmodes.engine import Engine, Moments
from pyro_klmodes.errors import NonFiniteLoss
from pyro_klmodes.inference.batches import Call
from pyro_klmodes.inference.optimizers import Optimizers

__all__ = ["OnNonfinite", "Stepper", "plain_parameters"]

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
        optimizers: Optimizers,
        on_nonfinite: OnNonfinite,
        engine: Engine,
    ) -> None:
        self.model = model
        self.guide = guide
        self.loss = loss
        self.optimizers = optimizers
        self.on_nonfinite = on_nonfinite
        self.engine = engine
        self.bad_steps = 0
        self.before: dict[Tensor, Tensor] = {}
        self.touched: dict[str, Tensor] = {}

    def parameters(self) -> dict[str, Tensor]:
        """The unconstrained parameters of the last step by name."""
        return self.touched

    def __call__(
        self, where: str, call: Call, chosen: Callable[[Tensor], bool] | None = None
    ) -> float:
        """Take a step; the loss, or NaN if it was skipped.

        Args:
            where: the step, for messages.
            call: what model and guide are called with.
            chosen: which parameters to move; all of them if None.

        Raises:
            NonFiniteLoss: naming the step, if that is what is wanted, or nothing else helps.
        """
        found = self.engine.gradient(call.args, call.kwargs)
        value, problem = (found, "") if found is not None else self._eager_gradient(call)
        params = self.touched
        problem = problem or _bad_gradient(params)
        if problem:
            value = self._after_problem(where, problem + _bad_arguments(call), params.values())
        else:
            self.bad_steps = 0
            if self.on_nonfinite == "backoff":
                self.before = {p: p.detach().clone() for p in params.values()}
            if chosen is None:
                self.optimizers(params)
            else:
                self.optimizers({name: p for name, p in params.items() if chosen(p)})
        for p in params.values():
            p.grad = None
        return value

    def many(self, call: Call, count: int) -> list[float] | None:
        """Take several steps at once; their losses, or None, and nothing has changed."""

        def moments(params: Sequence[Tensor]) -> Moments | None:
            singles = self.optimizers.singles(params)
            return None if singles is None else Moments.of(singles, params)

        return self.engine.updates(call.args, call.kwargs, moments, count)

    def _eager_gradient(self, call: Call) -> tuple[float, str]:
        """The loss, and what is wrong with it, if anything is."""
        with poutine.trace(param_only=True) as tracer:
            try:
                value = _as_float(
                    self.loss.loss_and_grads(self.model, self.guide, *call.args, **call.kwargs)
                )
                problem = "" if math.isfinite(value) else f"the loss is {value}"
            except NonFiniteLoss as error:
                value, problem = math.nan, str(error)
        params = {
            site["name"]: site["value"].unconstrained() for site in tracer.trace.nodes.values()
        }
        params.update(plain_parameters(self.model, self.guide, params))
        self.touched = params
        self.engine.explanation.count("eager", 1)
        return value, problem

    def _after_problem(self, where: str, problem: str, params: Iterable[Tensor]) -> float:
        self.bad_steps += 1
        if self.on_nonfinite == "raise" or self.bad_steps > _PATIENCE:
            often = f" ({self.bad_steps} times in a row)" if self.bad_steps > 1 else ""
            raise NonFiniteLoss(f"{where}{often}: {problem}")
        if self.on_nonfinite == "backoff":
            with torch.no_grad():
                for p in params:
                    if p in self.before:
                        p.copy_(self.before[p])
            self.optimizers.halve_rates()
        return math.nan

    def state_dict(self, params: Mapping[str, Tensor]) -> dict[str, Any]:
        """What a later step depends on, with parameters by name."""
        return {
            "bad_steps": self.bad_steps,
            "before": {name: self.before[p] for name, p in params.items() if p in self.before},
            "touched": list(self.touched),
        }

    def load_state_dict(self, state: Mapping[str, Any], params: Mapping[str, Tensor]) -> None:
        """Go on from a saved state."""
        self.bad_steps = state["bad_steps"]
        self.before = {params[name]: value for name, value in state["before"].items()}
        self.touched = {name: params[name] for name in state["touched"]}


def plain_parameters(
    model: Callable[..., Any], guide: Callable[..., Any], known: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Parameters of modules that Pyro has not been told of, under names that are not taken."""
    found: dict[str, Tensor] = {}
    tensors = set(known.values())
    for label, module in (("model", model), ("guide", guide)):
        if not isinstance(module, torch.nn.Module):
            continue
        for name, p in module.named_parameters():
            if p not in tensors:
                tensors.add(p)
                taken = name in known or name in found
                found[f"{label}.{name}" if taken else name] = p
    return found


def _as_float(value: Any) -> float:
    """Pyro's wake-sleep loss returns one number for the model and one for the guide."""
    if isinstance(value, tuple):
        return sum(float(v) for v in value)
    return float(value)


def _bad_arguments(call: Call) -> str:
    """Which tensors of a batch are not finite themselves; found behind a loss that is not."""
    named = {f"argument {i}": x for i, x in enumerate(call.args)} | {
        f"argument '{name}'": x for name, x in call.kwargs.items()
    }
    counts = {
        name: int((~torch.isfinite(x)).sum()) for name, x in named.items() if isinstance(x, Tensor)
    }
    return "".join(
        f" Of what model and guide were called with, {name} has {count} of {named[name].numel()} "
        "entries that are not finite."
        for name, count in counts.items()
        if count
    )


def _bad_gradient(params: dict[str, Tensor]) -> str:
    gradients = [p.grad for p in params.values() if p.grad is not None]
    if not gradients or math.isfinite(sum(float(g.sum()) for g in gradients)):
        return ""
    for name, p in params.items():
        if p.grad is not None and not bool(torch.isfinite(p.grad).all()):
            return f"the gradient of parameter '{name}' is not finite (value {p.detach()})"
    return ""
