"""IWAE: the importance-weighted bound."""

from __future__ import annotations

from pyro_klmodes import objectives
from pyro_klmodes.estimators import Auto, Estimator, auto
from pyro_klmodes.losses.base import DivergenceLoss

__all__ = ["IWAE"]


class IWAE(DivergenceLoss):
    r"""Negated importance-weighted lower bound, averaged over M outer particles,

    .. math:: -\frac1M \sum_m \log \frac1K \sum_k w_{mk}
        \;\ge\; -\log Z \text{ in expectation.}

    Tightens with K, and so forgives a guide that misses part of the posterior more and more: the
    better the bound, the weaker the signal to the guide (Rainforth et al., 2018), unless the
    estimator is ``doubly`` (DReG; Tucker et al., 2019). In a local plate the bound is per datum.
    With global latents and minibatches of local ones the bound is nested: exact expectation
    outside, weights inside.

    Args:
        num_particles: K, inner particles.
        num_outer: M, outer particles.
        estimator: one of ``pyro_klmodes.estimators``; ``score`` is VIMCO.
        max_plate_nesting: depth of the deepest plate, found by itself if None.
        vectorize_particles: whether particles share one run.

    Raises:
        InvalidArgument: for numbers that are not positive integers.

    Source: Burda, Grosse and Salakhutdinov (2016).

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
        estimator: Estimator | Auto = auto,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        super().__init__(
            objectives.PowerMean(0.0),
            num_particles=num_particles,
            num_outer=num_outer,
            estimator=estimator,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
        )
