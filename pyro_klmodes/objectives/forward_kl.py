"""Forward (inclusive) Kullback-Leibler divergence by importance weights: the wake phase."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.errors import IncompatibleEstimator
from pyro_klmodes.objectives.base import Objective, Part
from pyro_klmodes.objectives.weightings import Weighting, self_normalised, tempered

__all__ = ["ForwardKL"]


@dataclass(frozen=True)
class ForwardKL(Objective):
    r"""Self-normalised estimate of :math:`E_p[\log p(x, z) - \log q(z)] = \log Z + KL(p \| q)`,

    .. math:: L = \sum_k \bar w_k \log w_k, \qquad \bar w = \text{weighting}(\log w),

    with the weights held constant, so that the guide's gradient is that of maximum likelihood on
    weighted draws, :math:`-\sum_k \bar w_k \nabla \log q(z_k)`. Consistent as K grows; at small K
    it is biased towards the guide's own draws and can become mode-seeking.

    Sources: Bornschein and Bengio (2015); Le, Kosiorek, Siddharth, Teh and Wood (2020); Tucker,
    Lawson, Gu and Maddison (2019) for the path-only gradient.

    Example:
        >>> ForwardKL()(torch.tensor([0.0, 0.0]))
        tensor(0.)
    """

    weighting: Weighting = self_normalised

    part = Part.WAKE

    @property
    def shift(self) -> int:
        """An upper bound in expectation under p."""
        return 1

    @property
    def min_particles(self) -> int:
        """A single weight is always one: no signal."""
        return 2

    @property
    def power(self) -> float:
        """Weights are proportional to ``w``, unless a tempered one takes a power that varies."""
        return 0.0 if self.weighting is tempered else 1.0

    def __call__(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (*local)
        """``sum_k wbar_k log w_k`` with constant weights; particles of weight zero drop out."""
        w = self.weighting(log_w)
        return (w * torch.where(w > 0, log_w, torch.zeros_like(log_w))).sum(0)

    def credit(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """The normalised weights."""
        return self.weighting(log_w)

    def curvature(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """``dwbar_k/dlog w_k = wbar_k - wbar_k^2``."""
        if self.weighting is not self_normalised:
            raise IncompatibleEstimator(
                "The path-only gradient of forward KL needs weights that are a smooth function of "
                "log w. Use weights='snis' with estimators.doubly, or estimators.fixed."
            )
        w = self.weighting(log_w)
        return w - w * w
