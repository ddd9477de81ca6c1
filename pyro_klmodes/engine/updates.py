"""The arithmetic of an optimizer's step, as functions of tensors that a graph can hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from math import sqrt
from operator import mul
from typing import Any

import torch
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor

__all__ = ["Rule", "rule_of"]


@dataclass(frozen=True)
class Rule:
    """Adam (Kingma and Ba, 2015), as in torch, or with Pyro's clipping of every element.

    Attributes:
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        weight_decay: added to the gradient, times the parameter.
        clip: largest absolute value of a gradient's element, None not to clip.
        decay: what the learning rate is multiplied by before every step.
        centered: whether the second moment is that of the gradient less the first one.
    """

    betas: tuple[float, float]
    eps: float
    weight_decay: float
    clip: float | None = None
    decay: float = 1.0
    centered: bool = False

    def factors(
        self,
        done: int,
        count: int,
        rate: float,
    ) -> Tensor:  # (count, 2)
        """What changes from step to step: the step's size, and what the root is divided by.

        Args:
            done: how many steps were taken before.
            count: how many come now.
            rate: the learning rate before them.
        """
        # Number by number, so that it does not matter in how many runs steps are taken. All in one
        # list: thousands of lists wake Python's garbage collector.
        first, second = self.betas
        flat: list[float] = []
        for t, now in enumerate(self.rates(rate, count), start=done + 1):
            size, root = 1.0 - first**t, sqrt(1.0 - second**t)
            flat += (now / size, root) if self.clip is None else (now * root / size, 1.0)
        return torch.tensor(flat, dtype=torch.float64).reshape(count, 2)

    def rates(self, rate: float, count: int) -> list[float]:
        """The learning rates of the next steps, after one of ``rate``."""
        return list(accumulate(repeat(self.decay, count), mul, initial=rate))[1:]

    def seen(self, p: Tensor, gradient: Tensor) -> Tensor:
        """The gradient after clipping and decay of the weights; NaN if it is infinite."""
        if self.clip is not None:
            clipped = gradient.clamp(-self.clip, self.clip)
            gradient = torch.where(gradient.isinf(), math.nan, clipped)
        return gradient + self.weight_decay * p if self.weight_decay != 0.0 else gradient

    def __call__(
        self,
        p: Tensor,
        gradient: Tensor,
        m: Tensor,
        v: Tensor,
        factors: Tensor,  # (2,)
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Parameter and moments after a step."""
        size, root = (factors[i].to(p.dtype) for i in range(2))
        gradient = self.seen(p, gradient)
        m = m + (1.0 - self.betas[0]) * (gradient - m)
        spread = gradient - m if self.centered else gradient
        v = self.betas[1] * v + (1.0 - self.betas[1]) * spread * spread
        return p - size * m / (v.sqrt() / root + self.eps), m, v


def rule_of(singles: Sequence[Any]) -> Rule | None:
    """The rule by which all of some torch optimizers move their parameters, None for others.

    Args:
        singles: one optimizer for every parameter, as Pyro keeps them.
    """
    if not singles or any(type(s) not in (torch.optim.Adam, ClippedAdam) for s in singles):
        return None
    options = [_options(s) for s in singles]
    if any(type(s) is not type(singles[0]) for s in singles) or any(
        o != options[0] for o in options
    ):
        return None
    group = options[0]
    betas = tuple(float(b) for b in group["betas"])
    if any(isinstance(group[name], torch.Tensor) for name in ("lr", "eps", "weight_decay")):
        return None
    if isinstance(singles[0], ClippedAdam):
        return Rule(
            (betas[0], betas[1]),
            float(group["eps"]),
            float(group["weight_decay"]),
            clip=float(group["clip_norm"]),
            decay=float(group["lrd"]),
            centered=bool(group["centered_variance"]),
        )
    unusual = ("amsgrad", "maximize", "capturable", "differentiable", "decoupled_weight_decay")
    if any(group.get(name) for name in unusual):
        return None
    return Rule((betas[0], betas[1]), float(group["eps"]), float(group["weight_decay"]))


def _options(single: Any) -> dict[str, Any]:
    return {name: x for name, x in single.param_groups[0].items() if name != "params"}
