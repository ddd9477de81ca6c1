"""A linear state space model with normal noise: the likelihood of sequences and their posterior.

    z_t ~ Normal(A z_{t-1}, diag(transition_sd^2)),   x_t ~ Normal(C z_t + d, diag(emission_sd^2))

from a start z_0 that is given. Sequences may end before the last step: what is behind their end
is not looked at.

Source: Kalman (1960), "A new approach to linear filtering and prediction problems", for the
likelihood; the posterior is drawn forwards, from a backward pass of the information filter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LinearSystem"]


@dataclass(frozen=True)
class LinearSystem:
    """The matrices of a linear state space model of k latents and n observations.

    Example:
        >>> one = torch.ones(1)
        >>> walk = LinearSystem(0 * one, one[None], one, one[None], 0 * one, one)
        >>> x = torch.zeros(1, 2, 1)
        >>> walk.log_likelihood(x, torch.tensor([1]))  # one step: Normal(0; 0, variance 2)
        tensor([-1.2655])
    """

    start: Tensor  # (k,)
    transition: Tensor  # (k, k)
    transition_sd: Tensor  # (k,)
    emission: Tensor  # (n, k)
    offset: Tensor  # (n,)
    emission_sd: Tensor  # (n,)

    def log_likelihood(
        self,
        x: Tensor,  # (B, steps, n)
        lengths: Tensor,  # (B,)
    ) -> Tensor:  # (B,)
        """``log p(x_1, ..., x_length)`` of every sequence, by a Kalman filter."""
        A, C = self.transition, self.emission
        mean, covariance = self.start.expand(len(x), -1), torch.zeros_like(A)
        total = x.new_zeros(len(x))
        for t in range(x.shape[1]):
            mean = mean @ A.T
            covariance = A @ covariance @ A.T + self.transition_sd.diag() ** 2
            residual = x[:, t] - mean @ C.T - self.offset
            root = torch.linalg.cholesky(C @ covariance @ C.T + self.emission_sd.diag() ** 2)
            white = torch.linalg.solve_triangular(root, residual.T, upper=False)
            log_det = 2 * root.diagonal().log().sum() + len(C) * math.log(2 * math.pi)
            total = total - torch.where(t < lengths, 0.5 * (white**2).sum(0) + 0.5 * log_det, 0.0)
            gain = torch.cholesky_solve(C @ covariance, root).T  # (k, n)
            mean = mean + residual @ gain.T
            covariance = covariance - gain @ C @ covariance
        return total

    def conditionals(
        self,
        x: Tensor,  # (B, steps, n)
        lengths: Tensor,  # (B,)
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The posterior as ``z_t ~ Normal(gain_t z_{t-1} + shift_t, root_t root_t^T)``.

        Returns:
            ``gain`` and the lower triangular ``root``, (B, steps, k, k), and ``shift``,
            (B, steps, k).
        """
        A, C = self.transition, self.emission
        own = (self.transition_sd**-2).diag()
        weighted = C.T * self.emission_sd**-2  # (k, n)
        # What is seen from t on says of z_t: exp(-z^T precision z / 2 + information^T z).
        precision = A.new_zeros(len(x), *A.shape)
        information = A.new_zeros(len(x), len(A))
        found = []
        for t in reversed(range(x.shape[1])):
            there = (t < lengths).to(A.dtype)
            precision = precision + there[:, None, None] * (weighted @ C)
            information = information + there[:, None] * ((x[:, t] - self.offset) @ weighted.T)
            covariance = torch.linalg.inv(own + precision)
            gain = covariance @ own @ A
            shift = (covariance @ information[..., None])[..., 0]
            found.append((gain, shift, torch.linalg.cholesky(covariance)))
            information = (gain.mT @ information[..., None])[..., 0]
            precision = A.T @ own @ A - gain.mT @ (own + precision) @ gain
        gains, shifts, roots = (torch.stack(parts[::-1], 1) for parts in zip(*found, strict=True))
        return gains, shifts, roots

    def smoothed(
        self,
        x: Tensor,  # (B, steps, n)
        lengths: Tensor,  # (B,)
    ) -> tuple[Tensor, Tensor]:  # (B, steps, k) both
        """Posterior mean and standard deviation of every latent."""
        gains, shifts, roots = self.conditionals(x, lengths)
        mean = self.start.expand(len(x), -1)
        covariance = torch.zeros_like(gains[:, 0])
        means, sds = [], []
        for t in range(x.shape[1]):
            mean = (gains[:, t] @ mean[..., None])[..., 0] + shifts[:, t]
            covariance = gains[:, t] @ covariance @ gains[:, t].mT + roots[:, t] @ roots[:, t].mT
            means.append(mean)
            sds.append(covariance.diagonal(dim1=-2, dim2=-1).sqrt())
        return torch.stack(means, 1), torch.stack(sds, 1)
