"""Maximum likelihood on draws whose weights something else has decided, such as a Markov chain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyro_klmodes.errors import IncompatibleEstimator
from pyro_klmodes.objectives.base import Objective, Part

__all__ = ["GivenWeights"]


@dataclass(frozen=True, eq=False)
class GivenWeights(Objective):
    r"""Forward KL on K draws with constant weights :math:`\omega_k` that sum to one,

    .. math:: L = \sum_k \omega_k \log w_k \approx KL(p \| q) + \log Z,

    for draws that are distributed as the posterior under these weights. Guide and model both follow
    maximum likelihood on them, :math:`-\sum_k \omega_k \nabla \log q(z_k)` and
    :math:`-\sum_k \omega_k \nabla \log p(x, z_k)`. The latter is the gradient of the negated
    log-evidence (Fisher's identity), and not that of a bound.

    Attributes:
        weights: ``(K, *local)``.
        sign: 1 for the guide, -1 for the model.

    Source: Naesseth, Lindsten and Blei (2020); Ou and Song (2020).

    Example:
        >>> GivenWeights(torch.tensor([0.25, 0.75]))(torch.tensor([4.0, 8.0]))
        tensor(7.)
    """

    weights: Tensor  # (K, *local)
    sign: int = 1

    part = Part.WAKE

    @property
    def shift(self) -> int:
        """As the log-weights shift, up to the sign."""
        return self.sign

    def __call__(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (*local)
        """``sum_k omega_k log w_k``; draws of weight zero drop out."""
        w = self.weights
        return self.sign * (w * torch.where(w == 0, torch.zeros_like(log_w), log_w)).sum(0)

    def credit(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """The given weights."""
        return self.sign * self.weights

    def curvature(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """There is none: the weights are no function of ``log_w``."""
        raise IncompatibleEstimator(
            "Given weights do not change with log w, so there is no path-only gradient. Use "
            "estimators.fixed."
        )

    def for_model(self) -> Objective:
        """The same weights, on ``log p(x, z)``, which is to be raised."""
        return replace(self, sign=-1)
