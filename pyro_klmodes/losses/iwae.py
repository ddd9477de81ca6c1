"""IWAE: the importance-weighted bound."""

from __future__ import annotations

from pyro_klmodes import objectives
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.estimators import Auto, Estimator, auto
from pyro_klmodes.losses.rates import RateLoss
from pyro_klmodes.losses.schedules import Schedule

__all__ = ["IWAE"]


class IWAE(RateLoss):
    r"""Negated importance-weighted lower bound, averaged over M outer particles,

    .. math:: -\frac1M \sum_m \log \frac1K \sum_k w_{mk}
        \;\ge\; -\log Z \text{ in expectation.}

    Tightens with K, and so forgives a guide that misses part of the posterior more and more: the
    better the bound, the weaker the signal to the guide (Rainforth et al., 2018), unless the
    estimator is ``doubly`` (DReG; Tucker et al., 2019). In a local plate the bound is per datum.
    With global latents and minibatches of local ones the bound is nested: exact expectation
    outside, weights inside.

    With ``beta`` and ``free_bits`` the rates :math:`R_j = E_q[\log q(z_j) - \log p(z_j)]` of the
    latent sites get a price, as in ``ReverseKL``: :math:`\sum_j \beta \max(\lambda N_j, R_j) - R_j`
    is added, outside of the logarithm. With several particles beta must be at least one: less any
    share of its rate the bound has no minimum, because a guide that grows ever wider loses
    about nothing in the bound and gains in the rate. To warm up, use ``ReverseKL(beta=...)`` first.

    Args:
        num_particles: K, inner particles.
        num_outer: M, outer particles.
        beta: the price of the rate, a number or a schedule; at least one if K > 1.
        free_bits: lambda, nats per latent site and element; below it a rate is free.
        estimator: one of ``pyro_klmodes.estimators``; ``score`` is VIMCO.
        max_plate_nesting: depth of the deepest plate, found by itself if None.
        vectorize_particles: whether particles share one run.

    Raises:
        InvalidArgument: for numbers that are not positive integers, and for a ``beta`` or
            ``free_bits`` out of range (a schedule when it gets there).
        UnsupportedStructure: with ``beta`` or ``free_bits``, at the first step, where the bound
            would be nested or the prior of a site cannot be told from what is summed out.

    Source: Burda, Grosse and Salakhutdinov (2016); for free bits Kingma et al. (2016).

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> IWAE(num_particles=4).loss(model, model) == 0.0
        True
    """

    def __init__(
        self,
        num_particles: int = 16,
        num_outer: int = 1,
        *,
        beta: Schedule = 1.0,
        free_bits: float = 0.0,
        estimator: Estimator | Auto = auto,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        super().__init__(
            objectives.PowerMean(0.0),
            beta=beta,
            free_bits=free_bits,
            num_particles=num_particles,
            num_outer=num_outer,
            estimator=estimator,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
        )
        self._price(self.step)

    def _price(self, step: int) -> float:
        price = super()._price(step)
        if price < 1.0 and self.num_particles > 1:
            raise InvalidArgument(
                f"beta is {price:g} at step {step}; with num_particles={self.num_particles} "
                "it must be at least 1: the importance-weighted bound less a share of its rate has "
                "no minimum, a wider guide is always better. Use ReverseKL(beta=...) to warm up, "
                "or num_particles=1 with num_outer=K."
            )
        return price
