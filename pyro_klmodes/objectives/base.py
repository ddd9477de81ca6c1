"""What every divergence has to say about itself, and how its gradient splits into two parts.

An objective is a function ``L`` of the K log-weights of one cell, to be minimised. With

    c_k = dL/dlog w_k            (the *credit* of particle k)
    h_k = d^2 L/dlog w_k^2       (its *curvature*)
    P_k = dlog w_k/dz_k dz_k/dphi    (the gradient along the path of a reparameterised draw)
    S_k = dlog q_phi(z_k)/dphi at fixed z_k     (the score)

the gradient of ``E[L]`` is ``E sum_k c_k (P_k - S_k)``. It has two meaningful halves, the *path*
``E sum_k c_k P_k`` and the *wake* ``-E sum_k c_k S_k``, and methods of the field follow one of the
three (whole = path + wake, draw by draw):

    part     definition       path only            score only
    WHOLE    c (P - S)        (c - h) P            (L - c) S
    PATH     c P              c P                  L S
    WAKE     -c S             -h P                 -c S

A fourth form holds for the divergence itself and not for its K-sample estimate: weighted maximum
likelihood, ``-u S`` with ``wake_credit`` u (``u = c`` for the wake part).

The columns of a row have the same expectation, by the two identities
``E[g S_k] = E[dg/dlog w_k P_k]`` and ``E[c P_k] = E[L S_k]``. Estimators use these columns;
an objective only says which row it is in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from pyro_klmodes.errors import IncompatibleEstimator

__all__ = ["Objective", "Part"]


class Part(Enum):
    """Which part of the gradient of ``E[L]`` the method follows."""

    #: all of it
    WHOLE = "whole"
    #: what goes through the draws; the guide's density is held fixed
    PATH = "path"
    #: what goes through the guide's density, at draws that are held fixed
    WAKE = "wake"


class Objective(ABC):
    """A divergence between guide and posterior as a function of log-weights.

    Implementing one: inherit, write ``__call__``, and override the properties that differ.
    ``credit`` and ``curvature`` come from automatic differentiation; give them in closed form where
    one exists, because curvatures by differentiation cost K backward passes (batched).
    """

    #: which part of the gradient is followed, see the module
    part: ClassVar[Part] = Part.WHOLE

    @property
    def shift(self) -> int:
        """What adding c to every log-weight adds to the value, in units of c: -1, 0 or 1."""
        return -1

    @property
    def linear(self) -> bool:
        """Whether the value is linear in the log-weights, so that any mixture of scales is fair."""
        return False

    @property
    def lower_bound(self) -> bool:
        """Whether the negated value bounds the log-evidence from below, for any K."""
        return False

    @property
    def min_particles(self) -> int:
        """Below this many particles the objective is constant or runs away."""
        return 1

    @property
    def power(self) -> float:
        """The power p if the value is a function of ``sum_k w_k^p`` or of weights ``~ w_k^p``.

        Zero for all other objectives. A draw with a share of its own then counts ``share * w^p``.
        """
        return 0.0

    @property
    def takes_strata(self) -> bool:
        """Whether draws may have shares of their own, see ``objectives.stratified``."""
        return self.linear or self.power != 0.0

    @property
    def smooth(self) -> bool:
        """Whether the curvature exists, so that path-only gradients do."""
        return True

    @abstractmethod
    def __call__(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (*local)
        """The value to minimise, one for every local cell."""

    def credit(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """``c_k = dL/dlog w_k``, detached."""
        with torch.enable_grad():
            x = log_w.detach().requires_grad_()
            (c,) = torch.autograd.grad(self(x).sum(), x)
        return c

    def curvature(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """``h_k = d^2 L/dlog w_k^2``, detached."""
        K = log_w.shape[0]
        with torch.enable_grad():
            x = log_w.detach().requires_grad_()
            (c,) = torch.autograd.grad(self(x).sum(), x, create_graph=True)
            if not c.requires_grad:
                return torch.zeros_like(log_w)
            # Cells are independent, so one backward pass per particle serves all of them.
            rows = torch.eye(K, dtype=x.dtype, device=x.device)
            rows = rows.reshape(K, K, *[1] * (x.dim() - 1)).expand(K, *x.shape)
            (jacobian,) = torch.autograd.grad(c, x, grad_outputs=rows, is_grads_batched=True)
        return jacobian.diagonal(dim1=0, dim2=1).movedim(-1, 0).detach()

    @property
    def has_wake(self) -> bool:
        """Whether ``wake_credit`` exists; a wake part is nothing else."""
        return self.part is Part.WAKE

    def wake_credit(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """Weights u_k with which ``-sum_k u_k S_k`` becomes the gradient as K grows.

        Maximum likelihood of the guide on weighted draws, held constant. Unlike the gradient of
        the K-sample estimate it is biased at finite K, but it cannot exploit the estimate: where
        that is biased down and lowered, its own minimum is a guide that sees nothing.
        """
        if self.part is Part.WAKE:
            return self.credit(log_w)
        raise IncompatibleEstimator(f"{type(self).__name__} has no gradient at constant draws.")

    def for_model(self) -> Objective:
        """What the model's own parameters minimise.

        A negated lower bound on the evidence serves both; every other divergence says nothing
        about the fit of the model, which then follows the importance-weighted bound on the same
        weights (the wake phase of Bornschein and Bengio, 2015).
        """
        from pyro_klmodes.objectives.power_mean import PowerMean

        return PowerMean(0.0)
