"""Coordinate ascent for the Bayesian Gaussian mixture by hand: updates and bound.

The approximation is ``q(weights) prod_k q(locs_k) q(precisions_k) prod_n q(z_n)``, or with a joint
factor ``q(locs_k, precisions_k)``, a Normal-Wishart, if the prior couples them. With
responsibilities r, their sums N_k, means of the data y_k and scatters
``T_k = sum_n r_nk (x_n - m_k)(x_n - m_k)^T``:

    weights: a + N_k,
    joint, coupled: b_k = b + N_k,  m_k = (b m + N_k y_k) / b_k,  df + N_k,  inverse scale
        V + sum_n r_nk (x_n - y_k)(x_n - y_k)^T + b N_k / b_k (y_k - m)(y_k - m)^T,
    apart, coupled: the same m_k with covariance C_k = ((b + N_k) E[L_k])^-1,  df + N_k + 1,
        V + T_k + N_k C_k + b ((m_k - m)(m_k - m)^T + C_k),
    apart, independent: C_k = (b I + N_k E[L_k])^-1,  m_k = C_k (b m + N_k E[L_k] y_k),  df + N_k,
        V + T_k + N_k C_k,

with V the inverse scale of the prior and ``E[L_k]`` the mean of the precision. A diagonal
covariance is D blocks of one dimension; ``Gamma(df / 2, v / 2)`` is a Wishart of inverse scale v.

Source: Bishop (2006), "Pattern recognition and machine learning", section 10.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.bayesian_gaussian_mixture import Prior

__all__ = [
    "Factors",
    "coordinate_updates",
    "elbo",
    "start",
    "update_components",
    "update_responsibilities",
    "update_weights",
]


@dataclass(frozen=True)
class Factors:
    """The factors of the approximation. B blocks of E dimensions: (1, D) or, diagonal, (D, 1).

    Attributes:
        responsibilities: Probabilities of the components, shape (N, K).
        concentration: Of the Dirichlet of the weights, shape (K,).
        loc: Means of the means, shape (K, B, E).
        loc_covariance: Their covariances C, shape (K, B, E, E). In a joint factor that is the
            covariance given the mean of the precision, ``(b_k E[L_k])^-1``.
        df: Of the Wisharts, shape (K,).
        inverse_scale: Of the Wisharts, shape (K, B, E, E).
    """

    responsibilities: Tensor
    concentration: Tensor
    loc: Tensor
    loc_covariance: Tensor
    df: Tensor
    inverse_scale: Tensor

    def mean_precision(self) -> Tensor:  # (K, B, E, E)
        """``E[L_k]``."""
        return self.df[:, None, None, None] * self.inverse_scale.inverse()

    def mean_log_det(self) -> Tensor:  # (K, B)
        """``E[log det L_k]`` of every block."""
        size = self.inverse_scale.shape[-1]
        halves = (self.df[:, None] - torch.arange(size).to(self.df)) / 2
        constant = halves.digamma().sum(-1) + size * math.log(2)
        return constant[:, None] - self.inverse_scale.logdet()


def _blocks(x: Tensor, prior: Prior) -> Tensor:  # (*batch, D) -> (*batch, B, E)
    return x[..., None, :] if prior.kind == "full" else x[..., :, None]


def _prior_inverse_scale(prior: Prior) -> Tensor:  # (B, E, E)
    if prior.kind == "full":
        return prior.inverse_scale[None]
    return prior.inverse_scale.diagonal()[:, None, None]


def _outer(vectors: Tensor) -> Tensor:  # (*batch, E) -> (*batch, E, E)
    return vectors[..., :, None] * vectors[..., None, :]


def start(
    x: Tensor,  # (N, D)
    prior: Prior,
    responsibilities: Tensor,  # (N, K)
    *,
    joint: bool = False,
) -> Factors:
    """The factors after weights, precisions and means were updated from given responsibilities.

    The covariances of the means start at zero, so that the precisions come first.

    Raises:
        ValueError: For joint factors of means that the prior does not couple to their precisions.

    Example:
        >>> from models.bayesian_gaussian_mixture import scikit_learn_prior
        >>> x = torch.randn(20, 2)
        >>> start(x, scikit_learn_prior(x), torch.full((20, 2), 0.5)).loc.shape
        torch.Size([2, 1, 2])
    """
    blocks = _blocks(x, prior)
    means = torch.einsum("nk,nbe->kbe", responsibilities, blocks)
    means = means / responsibilities.sum(0)[:, None, None]
    scale = _prior_inverse_scale(prior).expand(prior.components, -1, -1, -1)
    df = x.new_full((prior.components,), prior.df)
    at = Factors(responsibilities, df, means, torch.zeros_like(scale), df, scale)
    at = update_weights(at, prior)
    if not joint:
        at = _update_precisions(at, x, prior)
    return update_components(at, x, prior, joint=joint)


def update_weights(at: Factors, prior: Prior) -> Factors:
    """The best Dirichlet."""
    return replace(at, concentration=prior.concentration + at.responsibilities.sum(0))


def update_components(
    at: Factors,
    x: Tensor,  # (N, D)
    prior: Prior,
    *,
    joint: bool = False,
) -> Factors:
    """The best means, then the best precisions; or the best Normal-Wisharts.

    Raises:
        ValueError: For joint factors of means that the prior does not couple to their precisions.
    """
    if not joint:
        return _update_precisions(_update_locs(at, x, prior), x, prior)
    if not prior.coupled:
        raise ValueError("a joint factor of means and precisions needs a prior with coupled=True")
    r, blocks, loc = at.responsibilities, _blocks(x, prior), _blocks(prior.loc, prior)
    sizes = r.sum(0)
    strength = prior.strength + sizes
    weighted = torch.einsum("nk,nbe->kbe", r, blocks)
    means = (prior.strength * loc + weighted) / strength[:, None, None]
    # the scatters around m_k and of m_k around m add up to the two of the formula above
    scatter = _scatter(r, blocks, means) + prior.strength * _outer(means - loc)
    inverse_scale = _prior_inverse_scale(prior) + scatter
    df = prior.df + sizes
    covariance = inverse_scale / (strength * df)[:, None, None, None]
    return replace(at, loc=means, loc_covariance=covariance, df=df, inverse_scale=inverse_scale)


def _update_locs(at: Factors, x: Tensor, prior: Prior) -> Factors:
    r, loc = at.responsibilities, _blocks(prior.loc, prior)
    sizes = r.sum(0)[:, None, None, None]
    weighted = torch.einsum("nk,nbe->kbe", r, _blocks(x, prior))
    precision = at.mean_precision()
    own = precision if prior.coupled else torch.eye(precision.shape[-1]).to(x)
    covariance = (prior.strength * own + sizes * precision).inverse()
    pull = prior.strength * own @ loc[..., None] + precision @ weighted[..., None]
    return replace(at, loc=(covariance @ pull)[..., 0], loc_covariance=covariance)


def _update_precisions(at: Factors, x: Tensor, prior: Prior) -> Factors:
    r, loc = at.responsibilities, _blocks(prior.loc, prior)
    sizes = r.sum(0)
    scatter = _scatter(r, _blocks(x, prior), at.loc)
    scatter = scatter + sizes[:, None, None, None] * at.loc_covariance
    df = prior.df + sizes
    if prior.coupled:
        scatter = scatter + prior.strength * (_outer(at.loc - loc) + at.loc_covariance)
        df = df + 1
    return replace(at, df=df, inverse_scale=_prior_inverse_scale(prior) + scatter)


def _scatter(
    r: Tensor,  # (N, K)
    blocks: Tensor,  # (N, B, E)
    centres: Tensor,  # (K, B, E)
) -> Tensor:  # (K, B, E, E)
    centred = blocks[:, None] - centres
    return torch.einsum("nk,nkbe,nkbf->kbef", r, centred, centred)


def update_responsibilities(
    at: Factors,
    x: Tensor,  # (N, D)
    prior: Prior,
) -> Factors:
    """The best Categoricals."""
    return replace(at, responsibilities=_mean_log_joint(at, x, prior).softmax(-1))


def _mean_log_joint(at: Factors, x: Tensor, prior: Prior) -> Tensor:  # (N, K)
    """``E[log p(z_n = k, x_n | weights, locs, precisions)]``."""
    precision = at.mean_precision()
    centred = _blocks(x, prior)[:, None] - at.loc
    distance = torch.einsum("nkbe,kbef,nkbf->nk", centred, precision, centred)
    spread = torch.einsum("kbef,kbfe->k", precision, at.loc_covariance)
    log_weights = at.concentration.digamma() - at.concentration.sum().digamma()
    log_det = at.mean_log_det().sum(-1) - x.shape[-1] * math.log(2 * math.pi)
    return log_weights + (log_det - distance - spread) / 2


def coordinate_updates(
    at: Factors,
    x: Tensor,  # (N, D)
    prior: Prior,
    *,
    joint: bool = False,
) -> Factors:
    """One round: responsibilities, weights, means, precisions.

    Example:
        >>> from models.bayesian_gaussian_mixture import scikit_learn_prior
        >>> x = torch.cat([torch.randn(20, 2) - 3, torch.randn(20, 2) + 3])
        >>> prior = scikit_learn_prior(x)
        >>> at = start(x, prior, torch.rand(40, 2).softmax(-1))
        >>> after = coordinate_updates(at, x, prior)
        >>> bool(elbo(after, x, prior) > elbo(at, x, prior))
        True
    """
    at = update_weights(update_responsibilities(at, x, prior), prior)
    return update_components(at, x, prior, joint=joint)


def elbo(
    at: Factors,
    x: Tensor,  # (N, D)
    prior: Prior,
    *,
    joint: bool = False,
) -> Tensor:  # ()
    """The evidence lower bound: expected log-likelihood less the divergences from the priors."""
    r = at.responsibilities
    data = (r * _mean_log_joint(at, x, prior)).sum() - r.xlogy(r).sum()
    before = torch.full_like(at.concentration, prior.concentration)
    dirichlets = (torch.distributions.Dirichlet(c) for c in (at.concentration, before))
    of_weights = torch.distributions.kl_divergence(*dirichlets)
    of_locs = _kl_of_locs(at, prior, joint=joint)
    return data - of_weights - of_locs - _kl_of_precisions(at, prior)


def _kl_of_locs(at: Factors, prior: Prior, *, joint: bool) -> Tensor:  # ()
    """``E[log q(locs | precisions) - log p(locs | precisions)]``."""
    size = at.loc.shape[-1]
    precision = at.mean_precision()
    own = precision if prior.coupled else torch.eye(size).to(at.loc).expand_as(precision)
    second = _outer(at.loc - _blocks(prior.loc, prior)) + at.loc_covariance
    distance = prior.strength * torch.einsum("kbef,kbfe->kb", own, second)
    # the precision's own determinant cancels in a joint factor, else its expectation is needed
    if joint:
        log_det_prior = precision.logdet()
    else:
        log_det_prior = at.mean_log_det() if prior.coupled else own.logdet()
    log_det_prior = log_det_prior + size * math.log(prior.strength)
    return (distance - size - log_det_prior - at.loc_covariance.logdet()).sum() / 2


def _kl_of_precisions(at: Factors, prior: Prior) -> Tensor:  # ()
    """Between the Wisharts of approximation and prior."""
    size = at.loc.shape[-1]
    before = _prior_inverse_scale(prior)

    def log_normaliser(df: Tensor, inverse_scale: Tensor) -> Tensor:
        constant = df * size * math.log(2) / 2 + (df / 2).mvlgamma(size)
        return constant - df * inverse_scale.logdet() / 2

    df, df_before = at.df[:, None], torch.full_like(at.df, prior.df)[:, None]
    trace = torch.einsum("bef,kbfe->kb", before, at.mean_precision())
    of_statistics = (df - df_before) * at.mean_log_det() - df * size + trace
    normalisers = log_normaliser(df_before, before) - log_normaliser(df, at.inverse_scale)
    return (of_statistics / 2 + normalisers).sum()
