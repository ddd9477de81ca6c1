"""What EM leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from pyro_klmodes.inference.result import FitResult

__all__ = ["EMResult", "Restarts"]


@dataclass(frozen=True)
class Restarts:
    """How every start ended.

    Attributes:
        params: constrained values of all parameters, ``{name: (R, *shape)}``.
        log_likelihood: in the end; -inf where a start has failed.
        history: after every evaluation, ``(T, R)``.
        evaluations: how many E-steps were needed.
        converged: whether the last step was below the tolerance.
        faults: by number of the start, what made it fail.
    """

    params: Mapping[str, Tensor]  # {name: (R, *shape)}
    log_likelihood: Tensor  # (R,)
    history: Tensor  # (T, R)
    evaluations: Tensor  # (R,)
    converged: Tensor  # (R,)
    faults: Mapping[int, str]

    @property
    def best(self) -> int:
        """The number of the start with the largest log-likelihood."""
        return int(self.log_likelihood.argmax())


@dataclass(frozen=True, repr=False)
class EMResult(FitResult):
    """A fit by EM: a ``FitResult`` of the best start, and what became of the others.

    ``losses`` are minus the log-likelihood (or its bound) at the evaluations of the best start.

    Attributes:
        restarts: all starts.
        closed_form: parameters with closed-form updates.
        optimised: why the other parameters have none, by name.
    """

    restarts: Restarts = field(kw_only=True)
    closed_form: tuple[str, ...] = field(kw_only=True)
    optimised: Mapping[str, str] = field(kw_only=True)

    def __repr__(self) -> str:
        starts = len(self.restarts.log_likelihood)
        ended = ", interrupted" if self.interrupted else ""
        return (
            f"EMResult(log_likelihood={self.log_likelihood:.6g}, steps={self.steps}, "
            f"starts={starts}, seed={self.seed}{ended})"
        )

    @property
    def log_likelihood(self) -> float:
        """Of the best start: the exact one after exact E-steps, else the bound."""
        return float(self.restarts.log_likelihood.max())
