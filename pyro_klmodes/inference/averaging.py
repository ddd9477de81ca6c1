"""``AverageIterates``: replace the last parameters of a fit by the mean of many."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.inference.callbacks import StepInfo
from pyro_klmodes.inference.iterate_log import IterateLog, checked_whole, longest_window

__all__ = ["AverageIterates"]


class AverageIterates:
    r"""A callback of ``fit`` that averages the parameters once the optimiser is stationary.

    At a constant learning rate the last iterate is a random draw around the optimum. The mean of n
    iterates of autocorrelation time :math:`\tau` has :math:`n/\tau` times less variance. Averages
    are of unconstrained parameters, from the step ``start`` on, or else from when the split R-hat
    of the iterates is at most ``max_rhat`` in one of the windows of ``StopWhenConverged``. If they
    never become stationary nothing is replaced, as the mean would lag behind, and a warning says
    so.

    Args:
        start: step from which to average; None to wait for stationarity.
        replace: whether the fit ends with the mean as its parameters.
        every: steps between two looks for stationarity.
        window: shortest window, in steps.
        max_rhat: what counts as stationary.

    Attributes:
        since: first step of the average; None if there is none.
        count: how many iterates are in it.
        average: unconstrained means by name.
        rhat: largest R-hat in the best window at the last look; infinite before.
        words: all this in a sentence.

    Raises:
        InvalidArgument: for numbers out of range; and by ``fit`` before its first step, if it has
            too few of them to replace anything.

    Warns:
        KLModesWarning: at the end of a fit, if nothing was replaced although it should have been.

    Source: Polyak and Juditsky (1992); Dhaka et al. (2020), "Robust, accurate stochastic
        optimization for variational inference".

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from pyro.infer.autoguide import AutoNormal
        >>> from pyro_klmodes import ReverseKL, fit
        >>> def model():
        ...     pyro.sample("z", dist.Normal(1.0, 1.0))
        >>> averaging = AverageIterates(start=200)
        >>> result = fit(model, AutoNormal(model), ReverseKL(1), steps=600, progress=False,
        ...              optim=pyro.optim.Adam({"lr": 0.05}), callbacks=[averaging])
        >>> averaging.count, abs(float(result.params["AutoNormal.locs.z"]) - 1.0) < 0.2
        (400, True)
    """

    def __init__(
        self,
        *,
        start: int | None = None,
        replace: bool = True,
        every: int = 100,
        window: int = 200,
        max_rhat: float = 1.1,
    ) -> None:
        self.start = None if start is None else checked_whole("start", start, 0)
        self.replace = replace
        self.every = checked_whole("every", every, 1)
        self.window = checked_whole("window", window, 20)
        if not max_rhat > 1:
            raise InvalidArgument(f"max_rhat={max_rhat!r} must be above 1; 1.1 is usual.")
        self.max_rhat = max_rhat
        self._begin()

    def _begin(self) -> None:
        self.since = self.start
        self.count = 0
        self.rhat = math.inf
        self.average: dict[str, Tensor] = {}
        self._parameters: Callable[[], Mapping[str, Tensor]] = dict
        self._log = IterateLog()

    def before_fit(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        parameters: Callable[[], Mapping[str, Tensor]],
    ) -> None:
        """Begin a fit: forget another one."""
        self._begin()
        self._parameters = parameters

    def check_length(self, steps: int) -> None:
        """Refuse a fit that has too few steps for its parameters to be replaced.

        Raises:
            InvalidArgument: saying how many there have to be.
        """
        needed, halfway = self._fewest_steps(), max(0, min(steps // 2, steps - 2))
        if not self.replace or steps >= needed:
            return
        if self.start is None:
            raise InvalidArgument(
                f"AverageIterates would replace nothing: with window={self.window} and "
                f"every={self.every} it takes {needed} steps to see that iterates are stationary "
                f"and to average two of them, and the fit has {steps}. Take more steps, a shorter "
                "window, or say from which step on to average: "
                f"AverageIterates(start={halfway})."
            )
        raise InvalidArgument(
            f"AverageIterates(start={self.start}) would replace nothing: the fit has {steps} "
            f"steps. Take at least {needed}, or an earlier start, such as start={halfway}."
        )

    def _fewest_steps(self) -> int:
        """How many steps it takes at least to average two iterates."""
        if self.start is not None:
            return self.start + 2
        looks = count(self.every, self.every)
        return next(n for n in looks if longest_window(n) >= self.window) + 2

    def __call__(self, info: StepInfo) -> None:
        """Take a step into the average, or look whether it is time to begin."""
        if info.step == 0:  # of another fit, perhaps
            self._begin()
        self._parameters = info.parameters
        if self.since is None:
            self._log.add(info.step, info.parameters(), info.loss)
            if (info.step + 1) % self.every == 0:
                best = self._log.best_window(self.window)
                self.rhat = math.inf if best is None else best.rhat
                if self.rhat <= self.max_rhat:
                    self.since = info.step + 1
        elif info.step >= self.since:
            self._take(info.parameters())

    def _take(self, live: Mapping[str, Tensor]) -> None:
        if self.average.keys() != live.keys():  # parameters have come or gone
            self.average = {name: torch.zeros_like(p) for name, p in live.items()}
            self.count = 0
        self.count += 1
        with torch.no_grad():
            for name, p in live.items():
                self.average[name] += (p - self.average[name]) / self.count

    def finish(self) -> None:
        """Put the average in the place of the last iterate, if wanted."""
        if self.replace and self.count <= 1:
            warnings.warn(
                "AverageIterates replaced nothing, the parameters are those of the last step: "
                f"{self.words}.",
                KLModesWarning,
                stacklevel=6,
            )
        elif self.replace:
            with torch.no_grad():
                for name, p in self._parameters().items():
                    p.copy_(self.average[name])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the average, or the iterates while it has not begun."""
        return {
            "since": self.since,
            "count": self.count,
            "average": self.average,
            "rhat": self.rhat,
            "log": self._log.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.since, self.count = state["since"], state["count"]
        self.average = dict(state["average"])
        self.rhat = state.get("rhat", math.inf)
        self._log.load_state_dict(state["log"])

    @property
    def words(self) -> str:
        """What was averaged, in a sentence."""
        if self.count > 1:
            return f"averaged {self.count} iterates from step {self.since} on"
        if self.start is not None:
            return f"nothing averaged: the fit ended before step {self.start + 2}; start earlier"
        if self.since is not None:
            return (
                f"nothing averaged: the iterates were stationary only at step {self.since}, when "
                "the fit ended; take more steps"
            )
        seen = f"R-hat of the iterates is {self.rhat:.3g}, at most {self.max_rhat:g} is wanted"
        return (
            f"nothing averaged: the iterates were not stationary long enough ({seen}); take more "
            "steps or a larger learning rate"
        )
