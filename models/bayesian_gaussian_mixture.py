"""A Gaussian mixture with priors on its weights, means and precisions.

    weights ~ Dirichlet(a, ..., a),   precisions_k ~ Wishart(df, inverse_scale^-1),
    locs_k ~ Normal(m, (b precisions_k)^-1), or independently Normal(m, I / b),   k = 1..K
    z_n ~ Categorical(weights),   x_n ~ Normal(locs[z_n], precisions[z_n]^-1),    n = 1..N

or, for diagonal covariances, with precisions_kd ~ Gamma(df / 2, inverse_scale_dd / 2). Every factor
is conjugate given all the others; the updates of coordinate ascent are in
``bayesian_gaussian_mixture_updates``.

``scikit_learn_prior`` is that of scikit-learn's ``BayesianGaussianMixture`` with
``weight_concentration_prior_type="dirichlet_distribution"``: a is its
``weight_concentration_prior``, m its ``mean_prior``, b its ``mean_precision_prior``, df its
``degrees_of_freedom_prior`` and inverse_scale its ``covariance_prior``. It has means coupled to
precisions, and approximates the posterior by a Normal-Wishart for every component, not by a normal
and a Wishart. Only ``covariance_type="full"`` is this model: for "diag" scikit-learn takes the
expected log-determinant from a Wishart all the same.

Source: Bishop (2006), "Pattern recognition and machine learning", section 10.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

__all__ = ["Prior", "Wishart", "bayesian_model", "scikit_learn_prior"]

_ONE_DRAW = torch.Size()


class Wishart(dist.Wishart):
    """The Wishart distribution of torch with draws that do not warn.

    ``torch.distributions.Wishart`` takes every regular matrix for a singular one, warns and draws
    again. The draws themselves are Bartlett's, and there is nothing wrong with them.

    Example:
        >>> Wishart(torch.tensor(4.0), covariance_matrix=torch.eye(2)).sample().shape
        torch.Size([2, 2])
    """

    def rsample(self, sample_shape: Any = _ONE_DRAW, max_try_correction: Any = None) -> Tensor:
        """Draw matrices, differentiable."""
        return self._bartlett_sampling(torch.Size(sample_shape))


@dataclass(frozen=True)
class Prior:
    """The numbers of the prior.

    Attributes:
        components: K.
        concentration: a, the same for every component.
        loc: m, shape (D,).
        strength: b, in data that the prior of a mean is worth, or an inverse variance.
        df: Degrees of freedom, at least D.
        inverse_scale: Shape (D, D). Diagonal covariances take the diagonal.
        kind: "full" or "diagonal".
        coupled: Whether means are spread in proportion to the covariance of their component.
    """

    components: int
    concentration: float
    loc: Tensor
    strength: float
    df: float
    inverse_scale: Tensor
    kind: str = "full"
    coupled: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ("full", "diagonal"):
            raise ValueError(f'kind must be "full" or "diagonal", got {self.kind!r}')
        if self.df < len(self.loc):
            raise ValueError(f"df must be at least {len(self.loc)}, got {self.df}")


def scikit_learn_prior(
    x: Tensor,  # (N, D)
    components: int = 2,
    *,
    kind: str = "full",
    coupled: bool = True,
) -> Prior:
    """What scikit-learn takes if nothing else is said: 1 / K, the mean, 1, D and the covariance.

    Example:
        >>> prior = scikit_learn_prior(torch.tensor([[0.0, 1.0], [2.0, 1.5], [1.0, 2.0]]))
        >>> prior.concentration, prior.loc, prior.df
        (0.5, tensor([1.0000, 1.5000]), 2.0)
    """
    return Prior(
        components=components,
        concentration=1 / components,
        loc=x.mean(0),
        strength=1.0,
        df=float(x.shape[-1]),
        inverse_scale=x.T.cov(),
        kind=kind,
        coupled=coupled,
    )


def bayesian_model(
    x: Tensor,  # (N, D)
    prior: Prior,
    subsample_size: int | None = None,
) -> None:
    """Sites ``weights``, ``precisions`` and ``locs`` (in the plate ``components``), ``z``, ``x``.

    Latents may have dimensions to the left of the plates, as particles have; the component ``z``
    is marked for enumeration.
    """
    full = prior.kind == "full"
    weights = pyro.sample(
        "weights", dist.Dirichlet(x.new_full((prior.components,), prior.concentration))
    )
    with pyro.plate("components", prior.components):
        if full:
            df = x.new_tensor(prior.df)
            wishart = Wishart(df, precision_matrix=prior.inverse_scale)
            precisions = pyro.sample("precisions", wishart)
            tightness = precisions if prior.coupled else torch.eye(x.shape[-1]).to(x)
            around = dist.MultivariateNormal(prior.loc, precision_matrix=prior.strength * tightness)
        else:
            rate = prior.inverse_scale.diagonal() / 2
            gamma = dist.Gamma(torch.full_like(rate, prior.df / 2), rate)
            precisions = pyro.sample("precisions", gamma.to_event(1))
            tightness = precisions if prior.coupled else torch.ones_like(rate)
            sd = (prior.strength * tightness).rsqrt()
            around = dist.Normal(prior.loc, sd).to_event(1)
        locs = pyro.sample("locs", around)

    # a dimension for the data: what is left of the components is left of the plates
    locs = locs.unsqueeze(-3)
    precisions = precisions.unsqueeze(-4 if full else -3)
    with pyro.plate("data", len(x), subsample_size) as index:
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        loc = Vindex(locs)[..., z, :]
        if full:
            precision = Vindex(precisions)[..., z, :, :]
            normal: Any = dist.MultivariateNormal(loc, precision_matrix=precision)
        else:
            normal = dist.Normal(loc, Vindex(precisions)[..., z, :].rsqrt()).to_event(1)
        pyro.sample("x", normal, obs=x[index])
