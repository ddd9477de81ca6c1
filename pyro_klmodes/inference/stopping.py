"""``StopWhenConverged``: end a fit when its iterates are stationary and their mean is exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from pyro_klmodes.diagnostics.iterates import iterate_average
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.callbacks import StepInfo
from pyro_klmodes.inference.iterate_log import IterateLog, checked_whole

__all__ = ["StopWhenConverged"]

#: what it says about the last look
_SEEN = ("converged", "stationary_since", "rhat", "mcse", "ess")


class StopWhenConverged:
    r"""A callback of ``fit`` that stops once more steps would change little.

    Every ``every`` steps, from ``min_steps`` on:

    1. The iterates of the last n steps, for five n between ``window`` and 95 % of the fit, are
       taken as a Markov chain. If the largest split R-hat over parameters and loss is at most
       ``max_rhat`` for one of them, the optimiser counts as stationary since its start.
    2. The mean of the iterates since then has the Monte Carlo error :math:`sd / \sqrt{ESS}` in
       every unconstrained parameter. The fit stops if it is at most ``tolerance`` times the larger
       of 1 and the mean's size, with at least ``min_ess`` effective iterates. If R-hat since the
       start has risen above ``max_rhat``, the search begins again.

    What it stops at is a *scatter* around the optimum of the size of the learning rate; take the
    mean with ``AverageIterates``, or go on with a smaller rate. A fit that creeps along a plateau
    for all of the window looks stationary. Of more than 500 parameters every n-th is looked at.

    Args:
        min_steps: never stop before so many.
        every: steps between two looks.
        window: shortest window, in steps.
        max_rhat: what counts as stationary.
        tolerance: largest error of the mean.
        min_ess: fewest effective iterates.

    Attributes:
        converged: whether it stopped the fit.
        stationary_since: the step since which iterates are stationary; None if they are not.
        rhat: largest R-hat at the last look.
        mcse: largest (relative) error of the mean at the last look; infinite before stationarity.
        ess: fewest effective iterates of a parameter at the last look.
        words: all this in a sentence.

    Raises:
        InvalidArgument: for numbers out of range.

    Source: Dhaka, Catalina, Andersen, Magnusson, Huggins and Vehtari (2020), "Robust, accurate
        stochastic optimization for variational inference"; Welandawe, Andersen, Vehtari and
        Huggins (2022) for the windows. The scale of the tolerance is ours.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from pyro.infer.autoguide import AutoNormal
        >>> from pyro_klmodes import ReverseKL, fit
        >>> def model():
        ...     pyro.sample("z", dist.Normal(1.0, 1.0))
        >>> stop = StopWhenConverged(tolerance=0.2, min_steps=200)
        >>> result = fit(model, AutoNormal(model), ReverseKL(8), steps=5000, progress=False,
        ...              optim=pyro.optim.Adam({"lr": 0.2}), callbacks=[stop])
        >>> stop.converged, result.steps < 5000
        (True, True)
    """

    def __init__(
        self,
        *,
        min_steps: int = 500,
        every: int = 100,
        window: int = 200,
        max_rhat: float = 1.1,
        tolerance: float = 0.02,
        min_ess: float = 50.0,
    ) -> None:
        self.min_steps = checked_whole("min_steps", min_steps, 0)
        self.every = checked_whole("every", every, 1)
        self.window = checked_whole("window", window, 20)
        if not max_rhat > 1:
            raise InvalidArgument(f"max_rhat={max_rhat!r} must be above 1; 1.1 is usual.")
        if not (tolerance > 0 and min_ess > 0):
            raise InvalidArgument(
                f"tolerance={tolerance!r} and min_ess={min_ess!r} must be positive."
            )
        self.max_rhat = max_rhat
        self.tolerance = tolerance
        self.min_ess = min_ess
        self._begin()

    def _begin(self) -> None:
        self.converged = False
        self.stationary_since: int | None = None
        self.rhat = self.mcse = math.inf
        self.ess = 0.0
        self._log = IterateLog()

    def before_fit(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        parameters: Callable[[], Mapping[str, Tensor]],
    ) -> None:
        """Begin a fit: forget another one."""
        self._begin()

    def __call__(self, info: StepInfo) -> bool:
        """Look at a step; true if the fit should end."""
        if info.step == 0:  # of another fit, perhaps
            self._begin()
        self._log.add(info.step, info.parameters(), info.loss)
        done = info.step + 1
        if done < self.min_steps or done % self.every:
            return False
        self._look()
        return self.converged

    def _look(self) -> None:
        if self.stationary_since is not None:
            self.rhat = self._log.rhat(self.stationary_since)
        if self.stationary_since is None or self.rhat > self.max_rhat:
            best = self._log.best_window(self.window)
            self.rhat = best.rhat if best else math.inf
            self.stationary_since = best.start if best and best.rhat <= self.max_rhat else None
        self.mcse, self.ess = math.inf, 0.0
        if self.stationary_since is not None:
            average = iterate_average(self._log.since(self.stationary_since)[:, :-1])
            self.mcse = float((average.mcse / average.mean.abs().clamp(min=1)).max())
            self.ess = float(average.ess.min())
            self.converged = self.mcse <= self.tolerance and self.ess >= self.min_ess

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the iterates, and what was last seen in them."""
        seen = {name: getattr(self, name) for name in _SEEN}
        return {"seen": seen, "log": self._log.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        for name in _SEEN:
            setattr(self, name, state["seen"][name])
        self._log.load_state_dict(state["log"])

    @property
    def words(self) -> str:
        """What it saw, in a sentence."""
        if self.stationary_since is None:
            return (
                f"not stationary: R-hat of the iterates is {self.rhat:.3g} (at most "
                f"{self.max_rhat:g} is wanted); take more steps or a larger learning rate"
            )
        seen = (
            f"stationary since step {self.stationary_since} (R-hat {self.rhat:.3g}), error of the "
            f"mean iterate {self.mcse:.2g} from {self.ess:.0f} effective iterates"
        )
        return seen if self.converged else f"{seen}; that error is not small enough yet"
