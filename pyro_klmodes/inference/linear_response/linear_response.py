"""Covariances from a mean-field fit, by how its means answer to a change of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.calling import shown
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.linear_response.factors import SiteFactors
from pyro_klmodes.inference.linear_response.response import LinearResponse
from pyro_klmodes.inference.linear_response.site import white
from pyro_klmodes.inference.linear_response.solving import Limits, solve
from pyro_klmodes.inference.linear_response.target import Target, target_of
from pyro_klmodes.inference.result import FitResult
from pyro_klmodes.losses import ReverseKL

__all__ = ["linear_response"]


def linear_response(
    fit: FitResult, *, sites: Sequence[str] | None = None, tolerance: float = 0.05
) -> LinearResponse:
    r"""Posterior covariances from a converged mean-field fit.

    Mean field has no correlations between sites, and variances that are too small. Its means,
    however, answer to a change of the model as those of the posterior do: with ``t' g(z)`` added to
    the log-joint, the derivative of the posterior mean of g in t is the posterior covariance of g.
    Linear response takes the derivative of the mean under ``q`` instead,

    .. math::
        \mathrm{Cov}_{LR}(g) = \frac{d E_{q_t}[g]}{dt} \Big|_{t=0}
        = \Big(\frac{\partial E_q[g]}{\partial\eta}\Big)^T H^{-1}
        \Big(\frac{\partial E_q[g]}{\partial\eta}\Big),
        \quad H = -\frac{\partial^2 \mathrm{ELBO}}{\partial\eta \, \partial\eta^T},

    for parameters eta of ``q``. Here g is the value of a site in its own space: E[x] for Normal,
    MultivariateNormal, LogNormal, Gamma, Beta, Dirichlet and Wishart sites, and for normals in
    unconstrained space whose bijection acts entry by entry; the probabilities of a Bernoulli or
    Categorical. The sites of one plate, if they only meet in global ones, are eliminated member by
    member, so that time and memory grow with their number and not with its square. If there are
    too many global parameters, the sites asked for are solved for by conjugate gradients.

    Exact for Gaussian posteriors, whatever their blocks: where q is normal, covariances are those
    of the posterior. Otherwise where mean field is exact, for values that are sufficient statistics
    (all but Beta, Dirichlet and normals in unconstrained space: those lose what part of the value
    the statistics do not explain, little of it unless they are skewed, as are Dirichlet
    probabilities near zero). In the limit of much data: standard deviations have a relative
    error of order 1/N where the posterior becomes Gaussian, as by Laplace's method. They are as
    good as the means: what a mean-field fit does not see at all, such as another mode, linear
    response does not see either.

    Args:
        fit: by ``CAVI``, or by ``fit`` with ``ReverseKL`` and an ``AutoMeanField``.
        sites: the latent sites wanted; all of them if None. The others count all the same.
        tolerance: how far a Newton step of the ELBO may move a mean, in units of its sd, for the
            fit to count as converged. The covariances have about this relative error.

    Raises:
        InvalidArgument: for arguments of the wrong kind, a guide that is not mean field, an unknown
            site; and for a fit that has not converged, saying how far it is.
        NotDefined: naming the site, where the mean has no closed form; and if the fit is not at a
            maximum: a saddle, as mixtures have where components are equal, or a flat direction,
            as rotations of factors are.
        UnsupportedStructure: for fits on minibatches without all data, blocks of several sites,
            and too many parameters, saying how many.
        NonFiniteLoss: if second derivatives are not finite, naming the site.

    Limits: parameters of the model are held fixed at their fitted values. Computed in double
    precision where the model takes it, even for a fit in single precision, whose convergence then
    limits the accuracy (``distance``). Where it does not, some three digits are right.
    Expectations that are not closed are those of coordinate ascent, see ``CAVI``.

    Source: Giordano, Broderick and Jordan (2018), "Covariances, robustness, and variational Bayes";
    Opper and Winther (2004) for the name.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyro_klmodes.inference.cavi import CAVI
        >>> def model():
        ...     a = pyro.sample("a", dist.Normal(0.0, 1.0))
        ...     pyro.sample("b", dist.Normal(a, 1.0))
        >>> response = linear_response(CAVI(model).fit())
        >>> round(float(response.mean_field_sd["a"]), 3), round(float(response.sd["a"]), 3)
        (0.707, 1.0)
        >>> response.labels, response.covariance.round(decimals=5).tolist()
        (['a', 'b'], [[1.0, 1.0], [1.0, 2.0]])
    """
    _check(fit, sites, tolerance)
    with fit.scope(), seeded(0):
        target = target_of(fit)
        names = _chosen(sites, target)
        parts = {
            n: white(target.latents[n], target.families[n], target.params[n], target.masks[n])
            for n in target.params
        }
        means = {n: parts[n].mean(torch.zeros_like(parts[n].start)) for n in names}
        found = solve(target.expectation.elbo, parts, names, Limits(tolerance=tolerance))
        step, gain = found.way.newton_step(found.gradient)
        factors = {n: found.way.factors(n) for n in names}
    worst, distance = _distance(factors, step)
    if not distance <= tolerance:
        _refuse_unconverged(fit, worst, distance, gain, tolerance)
    variances = {n: parts[n].coordinates.variance(target.params[n]).flatten() for n in names}
    shapes = {n: (*parts[n].absent.shape, *parts[n].coordinates.value_shape) for n in names}
    return LinearResponse(
        mean={n: means[n].reshape(shapes[n]) for n in names},
        mean_field_sd={
            n: v.sqrt().masked_fill(factors[n].absent, torch.nan).reshape(shapes[n])
            for n, v in variances.items()
        },
        sd={n: factors[n].variance().sqrt().reshape(shapes[n]) for n in names},
        distance=distance,
        elbo_gap=0.5 * gain,
        least_curvature=found.way.least,
        exact=target.conjugate,
        factors=factors,
    )


def _check(fit: Any, sites: Any, tolerance: Any) -> None:
    if not isinstance(fit, FitResult):
        raise InvalidArgument(
            f"fit is {shown(fit)}; it must be the result of a fit, as of CAVI(model).fit(...)."
        )
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not tolerance > 0:
        raise InvalidArgument(f"tolerance={shown(tolerance)} must be a positive number.")
    if sites is None:
        return
    if isinstance(sites, str) or not isinstance(sites, Sequence) or not sites:
        raise InvalidArgument(f"sites={shown(sites)} must be names of sites, such as ['w'].")


def _chosen(sites: Sequence[str] | None, target: Target) -> list[str]:
    if sites is None:
        return list(target.params)
    for name in sites:
        if name not in target.params:
            raise InvalidArgument(
                f"sites names '{name}', which is no latent of the model; it has "
                f"{', '.join(repr(n) for n in target.params)}."
            )
    return list(dict.fromkeys(sites))


def _distance(
    factors: Mapping[str, SiteFactors], step: Callable[[str], Tensor]
) -> tuple[str, float]:
    """The site whose means a Newton step moves most, and how far, in units of their sd."""
    worst, distance = "", 0.0
    for name, factor in factors.items():
        sd = factor.variance().sqrt()
        moved = step(name).abs() / sd
        here = float(moved[sd > 0].max()) if bool((sd > 0).any()) else 0.0
        if not worst or not here <= distance:
            worst, distance = name, here
    return worst, distance


def _refuse_unconverged(
    fit: FitResult, worst: str, distance: float, gain: float, tolerance: float
) -> None:
    loss = type(fit.loss)
    other = (
        ""
        if loss is ReverseKL
        else f" It was fitted with {loss.__name__}; linear response is for ReverseKL."
    )
    raise InvalidArgument(
        f"the fit has not converged: a Newton step of the ELBO would move a mean of site '{worst}' "
        f"by {distance:.2g} standard deviations, and raise the ELBO by {0.5 * gain:.2g}; "
        f"tolerance={tolerance:g}.{other} Fit longer: CAVI(...).fit(..., steps=...), or with a "
        "learning rate that falls to zero."
    )
