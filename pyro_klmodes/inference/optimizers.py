"""The optimizers of a fit: one or one per group of parameters, clipping, and schedules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pyro.optim import PyroLRScheduler, PyroOptim
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.calling import shown
from pyro_klmodes.inference.fused import Fused
from pyro_klmodes.inference.optimizer_words import described, last_rate, parts_of, short

__all__ = ["Optimizers"]


class Optimizers:
    """What moves the parameters.

    Args:
        optim: a Pyro optimizer, or one for every beginning of a parameter's name.
        clip_norm: largest norm of the gradient of all parameters together; None not to clip.

    Raises:
        InvalidArgument: for anything else.
    """

    def __init__(
        self, optim: PyroOptim | Mapping[str, PyroOptim], clip_norm: float | None = None
    ) -> None:
        self.groups = dict(optim) if isinstance(optim, Mapping) else {"": optim}
        if not self.groups:
            raise InvalidArgument("optim is empty; give an optimizer for every parameter.")
        for prefix, each in self.groups.items():
            if not isinstance(prefix, str) or not isinstance(each, PyroOptim):
                raise InvalidArgument(
                    f"optim={shown(each)} is not an optimizer of pyro.optim, such as "
                    'pyro.optim.Adam({"lr": 1e-3}), or a dict of them by beginning of the '
                    "parameters' names."
                )
        if clip_norm is not None and not (
            isinstance(clip_norm, int | float) and math.isfinite(clip_norm) and clip_norm > 0
        ):
            raise InvalidArgument(f"clip_norm={clip_norm!r} must be a positive number, or None.")
        self.clip_norm = clip_norm
        self._fused = {prefix: Fused(each) for prefix, each in self.groups.items()}
        self._chosen: dict[str, PyroOptim] = {}

    def choose(self, names: Mapping[str, Tensor]) -> None:
        """Find the optimizer of every parameter.

        Raises:
            InvalidArgument: naming a parameter that has none, or several.
        """
        for name in names:
            if name not in self._chosen:
                self._chosen[name] = self._group_of(name)

    def unused(self) -> list[str]:
        """Beginnings of names that no parameter's name has; not the one that all have."""
        spelled = [_spelled(name) for name in self._chosen]
        return [prefix for prefix in self.groups if prefix and not _any_begins(spelled, prefix)]

    def __call__(self, params: Mapping[str, Tensor]) -> None:
        """Take a step with every parameter that has a gradient."""
        # A module may be registered under two names, as AutoIAFNormal's is: one step, not two.
        once = {id(p): (name, p) for name, p in params.items() if p.grad is not None}
        moving = dict(once.values())
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(list(moving.values()), self.clip_norm)
        if len(self.groups) == 1 and "" in self.groups:
            self._fused[""](list(moving.values()))
            return
        self.choose(moving)
        for prefix, optim in self.groups.items():
            self._fused[prefix]([p for name, p in moving.items() if self._chosen[name] is optim])

    @property
    def has_schedule(self) -> bool:
        """Whether learning rates change by a schedule."""
        return any(isinstance(optim, PyroLRScheduler) for optim in self.groups.values())

    def singles(self, params: Sequence[Tensor]) -> list[Any] | None:
        """The torch optimizers of some parameters that move by these alone, each after a step.

        None where several kinds of them or a clipped norm stand between gradient and step.
        """
        optim = self.groups.get("")
        if optim is None or len(self.groups) > 1 or self.clip_norm is not None:
            return None
        if any(p not in optim.optim_objs or optim.grad_clip[p] is not None for p in params):
            return None
        return [parts_of(optim.optim_objs[p])[1] for p in params]

    def step_schedules(self, loss: float) -> None:
        """Have schedules take a step; those that wait for a plateau are told the loss."""
        for optim in self.groups.values():
            if isinstance(optim, PyroLRScheduler):
                plateau = optim.pt_scheduler_constructor is ReduceLROnPlateau
                optim.step(loss) if plateau else optim.step()

    def halve_rates(self) -> None:
        """Halve all learning rates, also those that a schedule starts from."""
        for scheduler, inner in self._inner():
            for group in inner.param_groups:
                group["lr"] *= 0.5
            if scheduler is not None and hasattr(scheduler, "base_lrs"):
                scheduler.base_lrs = [rate * 0.5 for rate in scheduler.base_lrs]
        for fused in self._fused.values():
            fused.forget()

    def state_dict(self, params: Mapping[str, Tensor]) -> dict[str, Any]:
        """States by name of the parameter, for all that have been moved."""
        states = {}
        for name, p in params.items():
            for optim in self.groups.values():
                if p in optim.optim_objs:
                    scheduler, inner = parts_of(optim.optim_objs[p])
                    states[name] = {
                        "optimizer": inner.state_dict(),
                        "scheduler": None if scheduler is None else _without_code(scheduler),
                    }
        return states

    def load_state_dict(self, states: Mapping[str, Any], params: Mapping[str, Tensor]) -> None:
        """Go on from saved states."""
        for optim in self.groups.values():
            for p in params.values():  # it may have been used before
                optim.optim_objs.pop(p, None)
        for name, state in states.items():
            p, optim = params[name], self._group_of(name)
            # Pyro makes the optimizer of a parameter in its first step, by these two.
            optim.optim_objs[p] = optim._get_optim(p)
            optim.grad_clip[p] = optim._get_grad_clip(p)
            scheduler, inner = parts_of(optim.optim_objs[p])
            if scheduler is not None:
                scheduler.load_state_dict(state["scheduler"])
            inner.load_state_dict(state["optimizer"])
        for fused in self._fused.values():
            fused.forget()

    def describe(self) -> str:
        """Kind and arguments, without anything that differs from process to process."""
        return "; ".join(f"{prefix}{described(o)}" for prefix, o in self.groups.items())

    def words(self) -> str:
        """Kind and arguments with the learning rates there are now, for people.

        Example:
            >>> from pyro.optim import Adam
            >>> Optimizers(Adam({"lr": 0.1, "betas": (0.9, 0.999)}), clip_norm=10.0).words()
            'Adam (lr=0.1, betas=(0.9, 0.999)), norm of gradients clipped at 10'
        """
        each = [
            f"{prefix and f'{prefix}: '}{described(optim, short)}{last_rate(optim)}"
            for prefix, optim in self.groups.items()
        ]
        if self.clip_norm is not None:
            each[-1] += f", norm of gradients clipped at {self.clip_norm:g}"
        return "; ".join(each)

    def _group_of(self, name: str) -> PyroOptim:
        spelled = _spelled(name)
        matching = [prefix for prefix in self.groups if spelled.startswith(prefix)]
        if len(matching) == 1:
            return self.groups[matching[0]]
        if not matching:
            raise InvalidArgument(
                f"optim: parameter '{spelled}' begins with none of {list(self.groups)}. Give an "
                "optimizer for it."
            )
        raise InvalidArgument(
            f"optim: parameter '{spelled}' begins with each of {matching}. Make them longer: "
            f"'{matching[0]}.' is the module of that name and no other."
        )

    def _inner(self) -> Iterator[tuple[Any, Any]]:
        for optim in self.groups.values():
            for each in optim.optim_objs.values():
                yield parts_of(each)


def _spelled(name: str) -> str:
    """With a dot for what Pyro puts between a module and its parameters."""
    return name.replace("$$$", ".")


def _any_begins(names: list[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _without_code(scheduler: Any) -> dict[str, Any]:
    """The state of a scheduler but for functions, which the resuming fit brings along."""
    return {name: x for name, x in scheduler.state_dict().items() if not callable(x)}
