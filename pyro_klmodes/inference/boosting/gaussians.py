r"""Square roots of Gaussian densities: their inner products and their products, in closed form.

With :math:`g_i = N(\mu_i, S_i)^{1/2}`,

.. math:: g_i g_j = \langle g_i, g_j \rangle \, N(\mu_{ij}, S_{ij}), \qquad
    S_{ij}^{-1} = \tfrac12 (S_i^{-1} + S_j^{-1}), \quad
    \mu_{ij} = \tfrac12 S_{ij} (S_i^{-1} \mu_i + S_j^{-1} \mu_j),

.. math:: \log \langle g_i, g_j \rangle = -\tfrac18 d' \bar S^{-1} d
    + \tfrac14 \log |S_i| |S_j| - \tfrac12 \log |\bar S|, \qquad
    d = \mu_i - \mu_j, \quad \bar S = \tfrac12 (S_i + S_j)

(Bhattacharyya, 1943).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_klmodes.guides.joint.scale_base import Scale, ScaleParameters
from pyro_klmodes.guides.joint.scale_diagonal import DiagonalParameters, DiagonalScale
from pyro_klmodes.guides.joint.scale_full import FullParameters, FullScale
from pyro_klmodes.inference.boosting.components import Components

__all__ = ["log_overlaps", "products"]


def log_overlaps(one: Components, other: Components) -> Tensor:  # (A, B)
    """``log <g_a, g_b>`` for every pair, differentiable."""
    delta = one.locs.unsqueeze(1) - other.locs
    if isinstance(one.scale, DiagonalScale) and isinstance(other.scale, DiagonalScale):
        a, b = one.scale.sd.unsqueeze(1), other.scale.sd
        middle = (a.square() + b.square()) / 2
        terms = 0.5 * (a * b).log() - 0.5 * middle.log() - delta.square() / (8 * middle)
        return terms.sum(-1)
    a, b = _factor(one.scale).unsqueeze(1), _factor(other.scale)
    root = torch.linalg.cholesky((a @ a.mT + b @ b.mT) / 2)
    distance = torch.linalg.solve_triangular(root, delta.unsqueeze(-1), upper=False)
    volumes = 0.5 * (_log_det(a) + _log_det(b)) - _log_det(root)
    return volumes - distance.square().sum((-1, -2)) / 8


def products(
    components: Components,
    i: Tensor,  # (n,) long
    j: Tensor,  # (n,) long
) -> tuple[Tensor, Tensor, ScaleParameters]:  # (n, D), (n, D)
    """The normalised products ``g_i g_j``: locations, standard deviations, scales."""
    locs, scale = components.locs, components.scale
    if isinstance(scale, DiagonalScale):
        precision = scale.sd.pow(-2)
        variance = 2 / (precision[i] + precision[j])
        mean = variance * (precision[i] * locs[i] + precision[j] * locs[j]) / 2
        return mean, variance.sqrt(), DiagonalParameters(variance.sqrt())
    precision = torch.cholesky_inverse(_factor(scale))
    pulled = (precision @ locs.unsqueeze(-1)).squeeze(-1)
    covariance = torch.cholesky_inverse(torch.linalg.cholesky((precision[i] + precision[j]) / 2))
    mean = (covariance @ (pulled[i] + pulled[j]).unsqueeze(-1)).squeeze(-1) / 2
    factor = torch.linalg.cholesky(covariance)
    sd = factor.diagonal(dim1=-2, dim2=-1)
    scales = FullParameters(sd.clone(), factor / sd.unsqueeze(-1))
    return mean, covariance.diagonal(dim1=-2, dim2=-1).sqrt(), scales


def _factor(scale: Scale) -> Tensor:  # (C, D, D)
    if not isinstance(scale, FullScale):
        raise TypeError(f"{type(scale).__name__} has no closed products of square roots.")
    return scale.sd.unsqueeze(-1) * scale.lower


def _log_det(
    factor: Tensor,  # (*batch, D, D) lower triangular
) -> Tensor:  # (*batch)
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
