"""Any f-divergence from posterior to guide, from a callable in log space."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pyro_klmodes.errors import IncompatibleEstimator, InvalidArgument
from pyro_klmodes.objectives.base import Objective
from pyro_klmodes.weights import log_mean_exp

__all__ = ["FDivergence"]


@dataclass(frozen=True)
class FDivergence(Objective):
    r"""Estimate of :math:`D_f = E_q f(p(z \mid x) / q(z))` from K unnormalised weights,

    .. math:: L = \frac1K \sum_k f(w_k / \hat Z), \qquad \hat Z = \frac1K \sum_k w_k .

    Normalising by the weights themselves keeps the optimum independent of the scale of the
    density (for f other than powers it would not be), keeps the ratios below K, and makes the
    value non-negative and zero for equal weights. The gradient passes through the normaliser.
    At finite K the estimate is biased down; for ``f = -log r`` it is the gap between the
    importance-weighted and the evidence lower bound, for which ``ReverseKL`` is the better loss.
    With a known ``log_evidence`` the ratios are exact, and the path-only gradient is
    :math:`-E[f''(r) r^2 P]` (Wan et al., 2020).

    Attributes:
        f: function of the log-ratio, elementwise: ``f(t)`` is f at ``exp(t)``.
        log_evidence: the exact ``log Z`` if it is known, else None.

    Raises:
        InvalidArgument: if ``f`` is not an elementwise tensor function, finite at ``t = 0``.

    Example:
        >>> from pyro_klmodes.objectives.f_functions import hellinger
        >>> FDivergence(hellinger)(torch.tensor([0.0, 0.0]))
        tensor(0.)
    """

    f: Callable[[Tensor], Tensor]
    log_evidence: float | None = None

    def __post_init__(self) -> None:
        if not callable(self.f):
            raise InvalidArgument(
                f"f={self.f!r} is not callable. Pass a function of the log-ratio t, for instance "
                "f_functions.jensen_shannon or `lambda t: torch.expm1(2 * t)`."
            )
        at_one = self.f(torch.zeros(2))
        if not (isinstance(at_one, Tensor) and at_one.shape == (2,) and at_one.isfinite().all()):
            raise InvalidArgument(
                f"f(zeros(2)) is {at_one!r}; f must map a tensor of log-ratios elementwise and be "
                "finite at log-ratio 0. Remember that it receives t = log r, not r."
            )

    @property
    def shift(self) -> int:
        """Ratios are normalised."""
        return 0

    @property
    def min_particles(self) -> int:
        """One self-normalised weight is always one."""
        return 2 if self.log_evidence is None else 1

    @property
    def smooth(self) -> bool:
        """As the function says; an ordinary callable is taken to be smooth."""
        return bool(getattr(self.f, "smooth", True))

    def __call__(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (*local)
        """Mean of f over the (self-normalised) ratios."""
        log_ratio, dead = self._log_ratio(log_w)
        return self.f(log_ratio).mean(0).masked_fill(dead, float("inf"))

    def _log_ratio(self, log_w: Tensor) -> tuple[Tensor, Tensor]:  # (K, *local), (*local)
        """Log-ratios, and the cells in which every weight is zero: there is no ratio."""
        if self.log_evidence is not None:
            return log_w - self.log_evidence, torch.zeros_like(log_w[0], dtype=torch.bool)
        log_z = log_mean_exp(log_w)
        dead = torch.isneginf(log_z)
        return torch.where(dead, torch.zeros_like(log_w), log_w - log_z), dead

    @property
    def has_wake(self) -> bool:
        """Where f is finite at ratio zero, so that the divergence covers rather than seeks."""
        return math.isfinite(self._at_zero)

    def wake_credit(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """``(r f'(r) - f(r) + f(0)) / K``, at least zero and zero for a draw of weight zero."""
        if not self.has_wake:
            return super().wake_credit(log_w)
        with torch.enable_grad():
            t = self._log_ratio(log_w.detach())[0].requires_grad_()
            value = self.f(t)
            (slope,) = torch.autograd.grad(value.sum(), t)
        credit = slope - value.detach() + self._at_zero
        return torch.where(torch.isneginf(t.detach()), 0.0, credit) / log_w.shape[0]

    @cached_property
    def _at_zero(self) -> float:
        """The limit of f at ratio zero; whatever is as large as a logarithm there is infinite."""
        far, farther = self.f(torch.tensor([-600.0, -700.0], dtype=torch.float64)).unbind()
        converged = (far - farther).abs() < 1e-6
        return float(farther) if converged else math.inf

    def curvature(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """By differentiation; refused for functions with a kink."""
        if not self.smooth:
            raise IncompatibleEstimator(
                f"f-divergence {getattr(self.f, 'name', self.f)!r} has a kink, so its path-only "
                "gradient does not exist. Use estimators.pathwise or estimators.score."
            )
        return super().curvature(log_w)
