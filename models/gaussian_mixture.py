"""Gaussian mixtures fitted by maximum likelihood, with EM's updates and the likelihood by hand.

    weights, locs, covariances: parameters
    z_n ~ Categorical(weights),   x_n ~ Normal(locs[z_n], covariances[z_n]),   n = 1..N

for covariances that are full, a diagonal or a multiple of the identity for every component, or one
matrix for all. With responsibilities ``r_nk = p(z_n = k | x_n)`` and ``N_k = sum_n r_nk``, EM sets

    weights_k = N_k / N,   locs_k = sum_n r_nk x_n / N_k,
    S_k = sum_n r_nk (x_n - locs_k)(x_n - locs_k)^T / N_k,

and the covariances to S_k, to its diagonal, to the mean of its diagonal, or to sum_k N_k S_k / N.

The likelihood is not bounded: a component that shrinks onto a single datum makes it infinite.

Sources: Dempster, Laird and Rubin (1977), "Maximum likelihood from incomplete data via the EM
algorithm"; Bishop (2006), "Pattern recognition and machine learning", section 9.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from models import old_faithful

__all__ = [
    "KINDS",
    "Mixture",
    "em_step",
    "iris",
    "log_joint",
    "log_likelihood",
    "mixture",
    "model",
    "old_faithful_data",
    "random_start",
]

KINDS = ("full", "covariance", "diagonal", "spherical", "tied")


class Mixture(NamedTuple):
    """K components in D dimensions; any number of mixtures at a time.

    Attributes:
        weights: Shape (*batch, K).
        locs: Shape (*batch, K, D).
        covariances: Shape (*batch, K, D, D), also where most of it is zero.
    """

    weights: Tensor
    locs: Tensor
    covariances: Tensor


def old_faithful_data() -> Tensor:  # (272, 2)
    """Both measurements of 272 eruptions in units of their standard deviation around their mean.

    Example:
        >>> old_faithful_data().shape
        torch.Size([272, 2])
    """
    x = old_faithful.data()
    return (x - x.mean(0)) / x.std(0, correction=0)


def iris() -> tuple[Tensor, Tensor]:
    """Four measurements of 150 irises in cm, (150, 4), and their species, (150,).

    Fisher (1936), "The use of multiple measurements in taxonomic problems"; shipped by
    scikit-learn.

    Example:
        >>> x, species = iris()
        >>> x.shape, species.bincount()
        (torch.Size([150, 4]), tensor([50, 50, 50]))
    """
    from sklearn.datasets import load_iris

    measurements, species = load_iris(return_X_y=True)
    x = torch.as_tensor(measurements, dtype=torch.get_default_dtype())
    return x, torch.as_tensor(species)


def model(
    x: Tensor,  # (N, D)
    components: int = 2,
    kind: str = "full",
) -> None:
    """A component ``z`` for every datum, in the plate ``data``.

    Parameters are ``weights`` (K,), ``locs`` (K, D) and, by kind,

    - "full": ``scale_trils``, Cholesky factors (K, D, D);
    - "covariance": ``covariances`` (K, D, D), the same model in other parameters;
    - "diagonal": ``scales``, standard deviations (K, D);
    - "spherical": ``scales`` (K,);
    - "tied": ``scale_tril`` (D, D), the same for all.

    They start at data spread evenly along the first measurement, with the spread of all data.

    Raises:
        ValueError: For another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    size = x.shape[-1]

    def each(scale: Tensor) -> Tensor:
        return scale.expand(components, *scale.shape).clone()

    # functions, so that starting values are computed once and not in every run
    weights = pyro.param(
        "weights", lambda: x.new_full((components,), 1 / components), constraint=constraints.simplex
    )
    locs = pyro.param("locs", lambda: _along_the_first(x, components))
    if kind == "full":
        scales = pyro.param(
            "scale_trils", lambda: each(x.std(0).diag()), constraint=constraints.lower_cholesky
        )
    elif kind == "covariance":
        scales = pyro.param(
            "covariances",
            lambda: each(x.std(0).square().diag()),
            constraint=constraints.positive_definite,
        )
    elif kind == "diagonal":
        scales = pyro.param("scales", lambda: each(x.std(0)), constraint=constraints.positive)
    elif kind == "spherical":
        scales = pyro.param(
            "scales", lambda: each(x.std(0).mean()), constraint=constraints.positive
        )
    else:
        scales = pyro.param(
            "scale_tril", lambda: x.std(0).diag(), constraint=constraints.lower_cholesky
        )

    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        if kind == "full":
            normal = dist.MultivariateNormal(locs[z], scale_tril=scales[z])
        elif kind == "covariance":
            normal = dist.MultivariateNormal(locs[z], scales[z])
        elif kind == "diagonal":
            normal = dist.Normal(locs[z], scales[z]).to_event(1)
        elif kind == "spherical":
            normal = dist.Normal(locs[z], scales[z][..., None].expand(*z.shape, size)).to_event(1)
        else:
            normal = dist.MultivariateNormal(locs[z], scale_tril=scales)
        pyro.sample("x", normal, obs=x)


def _along_the_first(
    x: Tensor,  # (N, D)
    components: int,
) -> Tensor:  # (K, D)
    """Data spread evenly along the first measurement."""
    ranks = ((torch.arange(components) + 0.5) / components * len(x)).long()
    return x[x[:, 0].argsort()[ranks]]


def mixture(
    params: Mapping[str, Tensor],  # {parameter: (*batch, *shape)}
) -> Mixture:
    """The mixture that parameters of ``model`` stand for; they may be batched.

    Example:
        >>> pyro.clear_param_store()
        >>> model(old_faithful_data(), kind="diagonal")
        >>> mixture(pyro.get_param_store()).covariances.shape
        torch.Size([2, 2, 2])
    """
    weights, locs = params["weights"], params["locs"]
    if "scale_trils" in params:
        covariances = params["scale_trils"] @ params["scale_trils"].mT
    elif "covariances" in params:
        covariances = params["covariances"]
    elif "scale_tril" in params:
        covariances = (params["scale_tril"] @ params["scale_tril"].mT)[..., None, :, :]
    else:
        scales = params["scales"]
        per_dimension = scales if scales.dim() == locs.dim() else scales[..., None]
        covariances = per_dimension.square().expand(locs.shape).diag_embed()
    return Mixture(weights, locs, covariances.expand(*locs.shape, locs.shape[-1]))


def log_joint(
    at: Mixture,
    x: Tensor,  # (N, D)
) -> Tensor:  # (*batch, N, K)
    """``log p(z_n = k, x_n)``."""
    normal = torch.distributions.MultivariateNormal(
        at.locs[..., None, :, :], at.covariances[..., None, :, :, :], validate_args=False
    )
    return at.weights[..., None, :].log() + normal.log_prob(x[:, None, :])


def log_likelihood(
    at: Mixture,
    x: Tensor,  # (N, D)
) -> Tensor:  # (*batch)
    """``sum_n log p(x_n)``.

    Example:
        >>> one = Mixture(torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None])
        >>> log_likelihood(one, torch.zeros(1, 2))  # -log(2 pi)
        tensor(-1.8379)
    """
    return log_joint(at, x).logsumexp(-1).sum(-1)


def em_step(
    at: Mixture,
    x: Tensor,  # (N, D)
    kind: str = "full",
) -> tuple[Mixture, Tensor]:  # the next mixture; (*batch)
    """One step of EM, and the log-likelihood before it.

    Example:
        >>> x = old_faithful_data()
        >>> at = random_start(x, 2, starts=5)
        >>> after, before = em_step(at, x)
        >>> bool((log_likelihood(after, x) > before).all())
        True
    """
    joint = log_joint(at, x)
    r = joint.softmax(-1)  # (*batch, N, K)
    sizes = r.sum(-2)
    locs = (r.mT @ x) / sizes[..., None]
    centred = x[:, None, :] - locs[..., None, :, :]  # (*batch, N, K, D)
    scatter = torch.einsum("...nk,...nki,...nkj->...kij", r, centred, centred)
    if kind == "tied":
        covariances = (scatter.sum(-3) / len(x))[..., None, :, :].expand(scatter.shape)
    else:
        covariances = scatter / sizes[..., None, None]
    if kind in ("diagonal", "spherical"):
        variances = covariances.diagonal(dim1=-2, dim2=-1)
        if kind == "spherical":
            variances = variances.mean(-1, keepdim=True).expand(variances.shape)
        covariances = variances.diag_embed()
    return Mixture(sizes / len(x), locs, covariances), joint.logsumexp(-1).sum(-1)


def random_start(
    x: Tensor,  # (N, D)
    components: int,
    *,
    starts: int,
    seed: int = 0,
) -> Mixture:  # of batch shape (starts,)
    """Means at random data, no two of a start the same, and the covariance of all data.

    Example:
        >>> random_start(old_faithful_data(), 3, starts=7).locs.shape
        torch.Size([7, 3, 2])
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(starts, len(x), generator=generator).argsort(-1)
    covariance = x.T.cov(correction=0)
    return Mixture(
        weights=x.new_full((starts, components), 1 / components),
        locs=x[order[:, :components]],
        covariances=covariance.expand(starts, components, *covariance.shape).clone(),
    )
