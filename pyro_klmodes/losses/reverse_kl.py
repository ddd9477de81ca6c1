"""ReverseKL: mode-seeking, the evidence lower bound."""

from __future__ import annotations

from pyro_klmodes import objectives
from pyro_klmodes.estimators import Auto, Estimator, auto
from pyro_klmodes.losses.rates import RateLoss
from pyro_klmodes.losses.schedules import Schedule

__all__ = ["ReverseKL"]


class ReverseKL(RateLoss):
    r"""Reverse (exclusive) Kullback-Leibler divergence up to the evidence: the negated ELBO,

    .. math:: -\frac1K \sum_k \log w_k, \qquad E = KL(q \| p) - \log Z .

    Mode-seeking: q avoids places where p is small. The value is that of ``Trace_ELBO``; the
    gradient is too for reparameterised guides, and uses leave-one-out baselines elsewhere. Linear
    in the log-weights, so minibatches of any plate are unbiased. For models with many discrete
    local latents Pyro's ``TraceGraph_ELBO`` and ``TraceEnum_ELBO`` have less variance.

    With ``beta`` and ``free_bits`` it is distortion and rate at a price,

    .. math:: -E_q[\log p(x|z)] + \beta \sum_j \max(\lambda N_j, R_j),
        \qquad R_j = E_q[\log q(z_j) - \log p(z_j)],

    the beta-ELBO, with the rates :math:`R_j` of the latent sites, and :math:`N_j` the number of
    elements that a site has (the data, if it is local). At ``beta=0`` it is maximum likelihood. It
    bounds the evidence only if beta is at least one and no rate is below the floor. What is summed
    out (``enumerate``) counts as likelihood. Rates are compared with the floor as they are
    estimated, averaged over particles and minibatch.

    Args:
        num_particles: K.
        beta: the price of the rate, a number or a schedule: a warm-up ``linear(0, 1, steps)`` or
            ``cyclical(0, 1, period)`` of ``pyro_klmodes.losses.schedules``.
        free_bits: lambda, nats per latent site and element; below it a rate is free, so that a
            latent stays in use.
        estimator: one of ``pyro_klmodes.estimators``; ``doubly`` is sticking the landing.
        max_plate_nesting: depth of the deepest plate, found by itself if None.
        vectorize_particles: whether particles share one run.

    Raises:
        InvalidArgument: for a ``num_particles`` that is not a positive integer, and for a negative
            or infinite ``beta`` or ``free_bits``.
        UnsupportedStructure: with ``beta`` or ``free_bits``, at the first step, if the prior of a
            latent site cannot be told from what is summed out.

    Source: Jordan, Ghahramani, Jaakkola and Saul (1999); Roeder, Wu and Duvenaud (2017); for beta
    Bowman et al. (2016), Sonderby et al. (2016), Higgins et al. (2017), Fu et al. (2019); for free
    bits Kingma et al. (2016).

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from pyro.infer import SVI
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> def guide():
        ...     pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))
        >>> SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=ReverseKL()).step()
        0.0

        Far from the prior, with a price of one half:

        >>> def guide():
        ...     pyro.sample("z", dist.Normal(2.0, 1.0))
        >>> def value(**price):
        ...     pyro.set_rng_seed(0)
        ...     return ReverseKL(1000, **price).loss(model, guide)
        >>> round(value(beta=0.5) / value(), 6), round(value(free_bits=3.0), 6)
        (0.5, 3.0)
    """

    def __init__(
        self,
        num_particles: int = 1,
        *,
        beta: Schedule = 1.0,
        free_bits: float = 0.0,
        estimator: Estimator | Auto = auto,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        super().__init__(
            objectives.ReverseKL(),
            beta=beta,
            free_bits=free_bits,
            num_particles=num_particles,
            estimator=estimator,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
        )
