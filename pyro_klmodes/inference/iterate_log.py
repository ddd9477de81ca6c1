"""What callbacks remember of the parameters: thinned, and not of all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_klmodes.diagnostics.iterates import iterate_rhat
from pyro_klmodes.errors import InvalidArgument

__all__ = ["IterateLog", "Window", "checked_whole", "longest_window"]

_MOST_ROWS = 1000
_MOST_PARAMETERS = 500
_WINDOWS = 5
_LEAST_ROWS = 20


class Window(NamedTuple):
    """The most stationary of the last windows: its first step, and its largest R-hat."""

    start: int
    rhat: float


class IterateLog:
    """Iterates of up to 500 evenly spaced parameters, and the loss.

    When 1000 rows are full every other one is dropped and half as many are kept from then on, so
    that memory does not grow with the length of a fit.
    """

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._steps: list[int] = []
        self._every = 1

    def add(self, step: int, parameters: Mapping[str, Tensor], loss: float) -> None:
        """Remember a step, unless it was skipped."""
        if step % self._every or not math.isfinite(loss) or not parameters:
            return
        flat = torch.cat([p.detach().reshape(-1) for p in parameters.values()])
        row = flat[:: math.ceil(len(flat) / _MOST_PARAMETERS)].double().cpu()
        if self._rows and len(self._rows[0]) != len(row) + 1:  # parameters have come or gone
            self._rows, self._steps = [], []
        self._rows.append(torch.cat([row, row.new_tensor([loss])]))
        self._steps.append(step)
        if len(self._rows) > _MOST_ROWS:
            self._every *= 2
            kept = [i for i, s in enumerate(self._steps) if s % self._every == 0]
            self._rows = [self._rows[i] for i in kept]
            self._steps = [self._steps[i] for i in kept]

    def state_dict(self) -> dict[str, Any]:
        """All of it, in tensors."""
        return {"rows": self.since(0), "steps": list(self._steps), "every": self._every}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what was saved."""
        self._rows = list(state["rows"])
        self._steps = list(state["steps"])
        self._every = state["every"]

    def since(self, start: int) -> Tensor:  # (T, P + 1)
        """Parameters of the steps from ``start`` on; the last column is the loss."""
        first = next((i for i, s in enumerate(self._steps) if s >= start), len(self._steps))
        return torch.stack(self._rows[first:]) if self._rows[first:] else torch.empty(0, 0)

    def rhat(self, start: int) -> float:
        """Largest R-hat of parameters and loss since a step, infinite for too few rows."""
        rows = self.since(start)
        return float(iterate_rhat(rows).max()) if len(rows) >= _LEAST_ROWS else math.inf

    def best_window(self, least: int) -> Window | None:
        """Of five windows that end now, the longest 95 % of the fit, that of the least R-hat.

        Args:
            least: length of the shortest in steps.
        """
        if not self._steps:
            return None
        now = self._steps[-1] + 1
        longest = longest_window(now)
        if longest < least:
            return None
        lengths = {int(n) for n in torch.linspace(least, longest, _WINDOWS)}
        windows = [Window(now - n, self.rhat(now - n)) for n in sorted(lengths)]
        return min(windows, key=lambda window: window.rhat)


def longest_window(steps: int) -> int:
    """The longest window of a fit of so many steps: what comes first is never stationary."""
    return int(0.95 * steps)


def checked_whole(name: str, value: int, least: int) -> int:
    """A whole number.

    Raises:
        InvalidArgument: naming the argument, if it is none or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidArgument(f"{name}={value!r} must be an integer of at least {least}.")
    return value
