"""The density of a guide at given values, or the reason why it has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, NoDensity
from pyro_klmodes.tracing.guide_inverse import GuideInverse, name_of
from pyro_klmodes.tracing.handlers import is_delta, is_latent
from pyro_klmodes.tracing.particles import Single, Together
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import Pair, run_guide
from pyro_klmodes.tracing.terms import guide_terms

__all__ = ["log_density", "why_unscored"]


@same_random_state()
def why_unscored(
    pair: Pair,
) -> str | None:
    """Why the guide's density cannot be followed at fixed values of its own draws, or None.

    With every draw held constant, a point mass that still moves with a parameter has its
    randomness transformed outside of any density (structured and delta autoguides); a flow without
    an inverse fails to evaluate.
    """
    with poutine.block(), torch.enable_grad():
        trace = run_guide(pair, Single(), {}, detach=True).trace
        for name, site in trace.nodes.items():
            if is_latent(site) and is_delta(site["fn"]) and site["fn"].mean.requires_grad:
                return (
                    f"guide {name_of(pair.guide)} has no density at given values: site '{name}' is "
                    "a point mass that depends on the parameters. Use a guide that samples '"
                    f"{name}' from a distribution (AutoNormal, AutoMultivariateNormal), or a loss "
                    "whose gradient is pathwise, such as ReverseKL or IWAE."
                )
        try:
            guide_terms(trace)
        except NoDensity as error:
            return str(error)
    return None


def log_density(
    guide: Callable[..., Any],
    values: Mapping[str, Tensor],
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    r"""Log-density :math:`\log q(z)` of a guide at given latent values.

    Works for hand-written guides, messenger guides, ``EasyGuide``, ``AutoGuideList`` and every Pyro
    autoguide that has a density: those that draw an auxiliary vector and transform it into the
    latents have the transform inverted. Differentiable in the values and the guide's parameters.
    Masked, without ``poutine.scale`` and without the ratios of subsampled plates.

    Args:
        guide: a guide.
        values: the value of every latent site in its constrained space, all of the site's shape,
            or all with one more leading dimension K. For a subsampled plate, its indices under the
            plate's name.
        *args: what the guide is called with.
        **kwargs: what the guide is called with.

    Returns:
        Scalar, or ``(K,)``.

    Raises:
        NoDensity: if the guide has no density at given values (``AutoDelta``,
            ``AutoStructured``, ``AutoGaussian``, flows without an inverse).
        InvalidArgument: if a site's value is missing, has the wrong shape, or lies where the
            density is zero.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def guide():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> log_density(guide, {"z": torch.tensor([0.0, 1.0])})
        tensor([-0.9189, -1.4189])
    """
    pair = Pair(guide, guide, args, kwargs)
    inverse = GuideInverse.of(pair)
    count = inverse.leading(values)
    particles = Single() if count is None else Together(count, inverse.nesting)
    at = inverse(values, count, inverse.nesting)
    with poutine.block():
        trace = run_guide(pair, particles, at, detach=False).trace
        terms = guide_terms(trace)
    total: Any = 0.0
    for term in terms:
        summed = _sum_to_particles(term.log_prob, particles)
        if not bool(torch.isfinite(summed).all()):
            raise InvalidArgument(
                f"the guide's density at site '{term.name}' is zero or undefined at the given "
                "values; check that they lie inside the support of the site."
            )
        total = total + summed
    return total


def _sum_to_particles(log_prob: Tensor, particles: Single | Together) -> Tensor:
    if isinstance(particles, Single):
        return log_prob.sum()
    return log_prob.reshape(particles.count, -1).sum(-1)
