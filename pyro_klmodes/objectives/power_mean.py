"""The power means of the importance weights: IWAE, the variational Renyi bound and CUBO."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pyro_klmodes.errors import IncompatibleEstimator
from pyro_klmodes.objectives.base import Objective
from pyro_klmodes.weights import power_mean, self_normalise

__all__ = ["PowerMean"]


@dataclass(frozen=True)
class PowerMean(Objective):
    r"""``sign`` times the K-sample variational Renyi bound of order ``alpha``,

    .. math:: L_\alpha = \frac{1}{1-\alpha} \log \frac1K \sum_k w_k^{1-\alpha},

    in the convention of Li and Turner (2016) and of Pyro's ``RenyiELBO``: alpha = 1 is the ELBO,
    0 the importance-weighted bound, :math:`-\infty` the largest weight, :math:`+\infty` the
    smallest. ``sign=-1`` raises the bound (alpha >= 0: a lower bound on ``log Z``); ``sign=+1``
    lowers it (alpha < 0: :math:`CUBO_n = L_{1-n}`, an upper bound in expectation over q but not
    at finite K, where the estimate is biased down).

    Attributes:
        alpha: any real number or an infinity.
        sign: -1 or +1.

    Sources: Burda, Grosse and Salakhutdinov (2016); Li and Turner (2016); Dieng et al. (2017);
    Daudel, Benton, Shi and Doucet (2023) for the path-only gradient.

    Example:
        >>> import torch
        >>> PowerMean(0.0)(torch.tensor([1.0, 3.0]).log())
        tensor(-0.6931)
    """

    alpha: float
    sign: Literal[-1, 1] = -1

    @property
    def shift(self) -> int:
        """The bound moves with the log-weights."""
        return self.sign

    @property
    def linear(self) -> bool:
        """Only the ELBO is."""
        return self.alpha == 1.0

    @property
    def lower_bound(self) -> bool:
        """For non-negative orders, by Jensen's inequality."""
        return self.sign < 0 and self.alpha >= 0.0

    @property
    def min_particles(self) -> int:
        """One particle is the ELBO whatever alpha; lowering that runs away from the posterior."""
        return 1 if self.sign < 0 else 2

    @property
    def power(self) -> float:
        """``1 - alpha``."""
        return 0.0 if math.isinf(self.alpha) else 1.0 - self.alpha

    def __call__(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (*local)
        """``sign * L_alpha``."""
        return self.sign * power_mean(log_w, 1.0 - self.alpha)

    def credit(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """``sign`` times the weights normalised after raising them to ``1 - alpha``."""
        if math.isinf(self.alpha):
            return super().credit(log_w)
        return self.sign * self._normalised_powers(log_w)

    def curvature(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """``sign * (1 - alpha) * (v - v^2)`` with v the normalised powers."""
        if math.isinf(self.alpha):
            raise IncompatibleEstimator(
                f"PowerMean(alpha={self.alpha}) follows one particle only; its path-only gradient "
                "does not exist. Use estimators.pathwise or estimators.score, or a finite alpha."
            )
        v = self._normalised_powers(log_w)
        return self.sign * (1.0 - self.alpha) * (v - v * v)

    def _normalised_powers(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """Sum to one over particles; zero in a cell of value ``-inf``, which has no gradient."""
        order, log_w = 1.0 - self.alpha, log_w.detach()
        empty = power_mean(log_w, order) == -math.inf
        return self_normalise(order * log_w).masked_fill(empty, 0.0)

    @property
    def has_wake(self) -> bool:
        """Where the weighted likelihood has positive weights: CUBO, and Renyi between 0 and 1."""
        return self._likelihood_share > 0.0

    def wake_credit(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """``(1 - 1/n) v`` for CUBO, ``alpha / (1 - alpha) v`` for Renyi, v normalised powers."""
        if not self.has_wake:
            return super().wake_credit(log_w)
        return self._likelihood_share * self._normalised_powers(log_w)

    @property
    def _likelihood_share(self) -> float:
        """Factor of the weighted likelihood in the gradient of ``sign * L_alpha``."""
        if math.isinf(self.alpha) or self.alpha == 1.0:
            return 0.0
        return -self.sign * self.alpha / (1.0 - self.alpha)

    def for_model(self) -> Objective:
        """A bound that is raised serves the model too; one that is lowered would unfit it."""
        return self if self.sign < 0 else super().for_model()
