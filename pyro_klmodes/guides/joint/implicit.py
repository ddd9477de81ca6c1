r"""Gradients through the draws of a mixture, by implicit differentiation.

A draw z of a mixture is, coordinate by coordinate, where the conditional distribution function

.. math:: S_j(z, \phi) = \sum_c r_c(z_{<j}) \, \Phi(\epsilon_{cj}), \qquad
    r_c(z_{<j}) \propto \pi_c \, q_c(z_{<j}),

takes a uniform value that does not depend on the parameters. Hence
:math:`dz = -(dS/dz)^{-1} \, dS/d\phi`, with a lower triangular matrix (Figurnov, Mohamed and Mnih,
2018, Implicit reparameterization gradients).

S and its derivatives underflow far out, but only their ratio to the conditional density
:math:`q(z_j | z_{<j})` is needed, which is well behaved. With that density divided out, row j reads

.. math:: \sum_c r_c(z_{\le j}) \, \sigma_{cj} \, d\epsilon_{cj}
    + \sum_c \frac{r_c(z_{<j}) \, \Phi(\epsilon_{cj})}{q(z_j | z_{<j})} \, d \log r_c(z_{<j}):

every component moves its own share of the draws, and probability passes between components.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_klmodes.guides.joint.scale_base import TriangularScale

__all__ = ["implicit_draw"]


def implicit_draw(
    value: Tensor,  # (*batch, D) drawn of the mixture given the stretch, without gradients
    log_weights: Tensor,  # (C,) or (*batch, C)
    locs: Tensor,  # (C, D) or (*batch, C, D)
    scale: TriangularScale,  # of C components, or of (*batch, C) if diagonal
    stretch: Tensor,  # (*batch) or (): all scales are multiplied by it
) -> Tensor:  # (*batch, D)
    """The draw itself, with the gradients of a Gaussian mixture's parameters and of the stretch.

    All draws may be of one mixture, or each of its own: then the batch dimensions of the parameters
    broadcast with those of the draws, and the scale must be diagonal.

    First derivatives only. For K draws it takes O(K C D^2) operations (a full scale needs O(C D^3)
    once in addition) and holds K D x D matrices.
    """
    stretch = stretch[..., None, None]
    residuals = scale.residuals(value.unsqueeze(-2) - locs) / stretch  # (*batch, C, D)
    log_normal = -0.5 * residuals.square() - scale.sd.log()
    log_before = _log_share_before(log_weights, log_normal)

    with torch.no_grad():
        log_density = log_normal - stretch.log() - 0.5 * math.log(2 * math.pi)
        log_mixture = torch.logsumexp(log_before + log_density, -2, keepdim=True)
        share = (log_before + log_density - log_mixture).exp()
        direct = share * scale.sd * stretch
        passed = _passed_on(log_before, residuals, log_mixture)
        # The shares add up to one: what the shares have in common moves nothing.
        carried = passed - log_before.exp() * passed.sum(-2, keepdim=True)
        jacobian = scale.pulled_back(direct, carried, residuals) / stretch

    function = (direct * residuals + passed * log_before).sum(-2)  # (*batch, D)
    # Zero in value, since the value of a draw does not depend on how it is differentiated.
    change = (function - function.detach()).unsqueeze(-1)
    step = torch.linalg.solve_triangular(jacobian, change, upper=False, unitriangular=True)
    return value - step.squeeze(-1)


def _log_share_before(
    log_weights: Tensor,  # (C,) or (*batch, C)
    log_normal: Tensor,  # (*batch, C, D)
) -> Tensor:  # (*batch, C, D)
    """``log r_c(z_{<j})``: which component the coordinates before j speak for."""
    before = log_normal[..., :-1].cumsum(-1)
    before = torch.cat([torch.zeros_like(log_normal[..., :1]), before], -1)
    return torch.log_softmax(log_weights.unsqueeze(-1) + before, -2)


def _passed_on(
    log_before: Tensor,  # (*batch, C, D)
    residuals: Tensor,  # (*batch, C, D)
    log_mixture: Tensor,  # (*batch, 1, D)
) -> Tensor:  # (*batch, C, D)
    """``r_c Phi(eps_c) / q``, or ``-r_c Phi(-eps_c) / q`` above the median.

    The two differ by the same multiple of r_c in every component, which does not matter because
    the r_c add up to one; the smaller one keeps its digits far out.
    """
    below = log_before + torch.special.log_ndtr(residuals)
    above = log_before + torch.special.log_ndtr(-residuals)
    upper = torch.logsumexp(below, -2, keepdim=True) > torch.logsumexp(above, -2, keepdim=True)
    return torch.where(upper, -(above - log_mixture).exp(), (below - log_mixture).exp())
