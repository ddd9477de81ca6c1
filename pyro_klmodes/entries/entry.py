"""One fit of a comparison: finished, or failed with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyro_klmodes.diagnosis import Diagnosis
from pyro_klmodes.entries.moments import Moments
from pyro_klmodes.entries.recipe import Recipe
from pyro_klmodes.inference_data import Elpd

__all__ = ["USABLE", "Failed", "Fitted", "Outcome"]

#: verdicts under which weighted draws can be believed
USABLE = ("reliable", "reweight")


@dataclass(frozen=True)
class Fitted:
    """What is known of one finished inference.

    Attributes:
        label: What it is called in tables and legends.
        guide: The guide's name, or the kernel's of Markov chains.
        loss: The loss's name; None of Markov chains, or if nobody knows.
        diagnosis: Whether to believe it, and all that was found out.
        moments: Posterior mean and standard deviation of every site, of its own draws: not
            reweighted.
        data: Its draws as inference data.
        corrected: Moments of the weighted draws, where the weights can be believed.
        seconds: Wall-clock time of the fit, None if nobody took it.
        gradient_evaluations: Steps times particles (times outer particles): how many draws were
            differentiated; None if nobody counted.
        training: The loss of every step, ``(steps,)``; empty if nobody kept it.
        loo: Leave-one-out estimate, None if there is none.
        without_loo: Why there is none.
        notes: Warnings, and what could not be found out.
        model: The model it is a fit of; only fits of one model share their evidence.
        learns: Whether the model has parameters of its own, so that its evidence is another one in
            every fit.
        recipe: How it was trained, None if nobody knows.
    """

    label: str
    guide: str
    loss: str | None
    diagnosis: Diagnosis = field(repr=False)
    moments: Mapping[str, Moments] = field(repr=False)
    data: Any = field(repr=False)
    corrected: Mapping[str, Moments] = field(default_factory=dict, repr=False)
    seconds: float | None = None
    gradient_evaluations: int | None = None
    training: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)
    loo: Elpd | None = field(default=None, repr=False)
    without_loo: str = field(default="", repr=False)
    notes: tuple[str, ...] = ()
    model: Callable[..., Any] | None = field(default=None, repr=False)
    learns: bool = False
    recipe: Recipe | None = field(default=None, repr=False)

    @property
    def verdict(self) -> str:
        """The word of the diagnosis."""
        return self.diagnosis.verdict.word

    @property
    def bad_loo(self) -> int:
        """How many data have a Pareto k that is too high for the leave-one-out estimate."""
        return 0 if self.loo is None else int((~(self.loo.pareto_k <= self.loo.good_k)).sum())

    @property
    def method(self) -> str:
        """Guide and loss in one line."""
        return self.guide if self.loss is None else f"{self.guide}, {self.loss}"


@dataclass(frozen=True)
class Failed:
    """A fit of which nothing can be said, and why.

    Attributes:
        label: What it is called in tables.
        message: The error, in one line.
        guide: The guide's name, empty if it is not known.
        loss: The loss's name, None if it is not known.
    """

    label: str
    message: str
    guide: str = ""
    loss: str | None = None


Outcome = Fitted | Failed
