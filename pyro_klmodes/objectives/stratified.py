"""Objectives on draws that are spread over the components of a mixture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.errors import IncompatibleEstimator
from pyro_klmodes.objectives.base import Objective, Part

__all__ = ["Stratified"]


@dataclass(frozen=True, eq=False)
class Stratified(Objective):
    r"""An objective on K draws, draw k from component c_k of :math:`q = \sum_c \pi_c q_c`.

    With n_c draws from component c the average of f over q is
    :math:`\sum_k \omega_k f(z_k)`, :math:`\omega_k = \pi_{c_k} / n_{c_k}`, and no component is left
    to chance: the ELBO is :math:`\sum_k \omega_k \log w_k`, the importance-weighted bound
    :math:`\log \sum_k \omega_k w_k`, and the self-normalised weights of forward KL are proportional
    to :math:`\omega_k w_k`. The shares carry the gradient of the component weights, which a draw
    does not.

    Attributes:
        base: the objective.
        log_share: ``(K,)``, :math:`\log K \omega_k`, or ``(K, M)`` with M outer particles.

    Raises:
        IncompatibleEstimator: if the base has no such form.

    Source: Morningstar, Vikram, Ham, Gallagher and Dillon (2021).

    Example:
        >>> from pyro_klmodes.objectives import ReverseKL
        >>> shares = torch.tensor([1.5, 0.5])
        >>> Stratified(ReverseKL(), shares.log())(torch.tensor([2.0, 4.0]))
        tensor(-2.5000)
    """

    base: Objective
    log_share: Tensor  # (K,) or (K, M)

    def __post_init__(self) -> None:
        if not self.base.takes_strata:
            raise IncompatibleEstimator(
                f"{type(self.base).__name__} has no form for draws of unequal shares; draw from "
                "the mixture itself."
            )
        object.__setattr__(self, "part", self.base.part)

    @property
    def shift(self) -> int:
        """That of the base."""
        return self.base.shift

    @property
    def linear(self) -> bool:
        """That of the base."""
        return self.base.linear

    @property
    def lower_bound(self) -> bool:
        """That of the base."""
        return self.base.lower_bound

    @property
    def min_particles(self) -> int:
        """That of the base."""
        return self.base.min_particles

    def __call__(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (*local)
        """The base's value under the weighted draws."""
        if self.linear:
            return (self._share(log_w).exp() * self.base.credit(log_w) * log_w).sum(0)
        if self.part is Part.WAKE:
            w = self.credit(log_w)
            return (w * torch.where(w > 0, log_w, torch.zeros_like(log_w))).sum(0)
        return self.base(self._shared(log_w))

    def credit(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """The derivative by ``log_w``."""
        if self.linear:
            return self._share(log_w).detach().exp() * self.base.credit(log_w)
        return self.base.credit(self._shared(log_w))

    @property
    def has_wake(self) -> bool:
        """That of the base."""
        return self.base.has_wake

    def wake_credit(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """The base's at weights that hold the shares."""
        return self.base.wake_credit(self._shared(log_w))

    def for_model(self) -> Objective:
        """The model's objective, on the same draws."""
        theirs = self.base.for_model()
        return self if theirs == self.base else Stratified(theirs, self.log_share)

    def _share(self, log_w: Tensor) -> Tensor:  # (K, 1, ...) or (K, M, 1, ...)
        share = self.log_share
        return share.reshape(share.shape + (1,) * (log_w.dim() - share.dim()))

    def _shared(self, log_w: Tensor) -> Tensor:  # (K, *local)
        """Log-weights whose power that enters the base is multiplied by the share."""
        return log_w + self._share(log_w) / self.base.power
