"""The state of the optimizers of some parameters, taken out for a run of steps and put back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.engine.updates import Rule, rule_of

__all__ = ["Moments"]


class Moments:
    """First and second moments, number of steps and learning rate of parameters that move alike.

    Attributes:
        rule: how they move.
        pairs: first and second moments, parameter by parameter.
        done: how many steps were taken.
        rate: the learning rate now.
    """

    def __init__(self, rule: Rule, singles: Sequence[Any], parameters: Sequence[Tensor]) -> None:
        self.rule = rule
        self._parameters = parameters
        self._groups = [single.param_groups[0] for single in singles]
        self._states = [single.state[p] for single, p in zip(singles, parameters, strict=True)]
        self.pairs = [(s["exp_avg"], s["exp_avg_sq"]) for s in self._states]
        self.done = int(self._states[0]["step"])
        self.rate = float(self._groups[0]["lr"])

    @classmethod
    def of(cls, singles: Sequence[Any], parameters: Sequence[Tensor]) -> Moments | None:
        """Take them out of torch optimizers, one per parameter; None where they are of no use.

        Args:
            singles: the optimizers, each of which has taken a step.
            parameters: theirs.
        """
        rule = rule_of(singles)
        if rule is None:
            return None
        states = [single.state.get(p) for single, p in zip(singles, parameters, strict=True)]
        if any(not state for state in states):
            return None
        if len({int(state["step"]) for state in states if state}) != 1:
            return None
        return cls(rule, singles, parameters)

    @property
    def _rates(self) -> set[float]:
        return {group["lr"] for group in self._groups}

    def write(
        self,
        values: Sequence[Tensor],
        pairs: Sequence[tuple[Tensor, Tensor]],
        steps: int,
    ) -> None:
        """Put everything back as it is after some more steps."""
        with torch.no_grad():
            torch._foreach_copy_(list(self._parameters), list(values))
            old = [x for pair in self.pairs for x in pair]
            torch._foreach_copy_(old, [x for pair in pairs for x in pair])
        for state in self._states:
            state["step"] += steps
        after = {rate: [rate, *self.rule.rates(rate, steps)][-1] for rate in self._rates}
        for group in self._groups:
            group["lr"] = after[group["lr"]]
