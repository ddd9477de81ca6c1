"""ReverseKL: mode-seeking, the evidence lower bound."""

from __future__ import annotations

from pyro_klmodes import objectives
from pyro_klmodes.estimators import Auto, Estimator, auto
from pyro_klmodes.losses.base import DivergenceLoss

__all__ = ["ReverseKL"]


class ReverseKL(DivergenceLoss):
    r"""Reverse (exclusive) Kullback-Leibler divergence up to the evidence: the negated ELBO,

    .. math:: -\frac1K \sum_k \log w_k, \qquad E = KL(q \| p) - \log Z .

    Mode-seeking: q avoids places where p is small. The value is that of ``Trace_ELBO``; the
    gradient is too for reparameterised guides, and uses leave-one-out baselines elsewhere. Linear
    in the log-weights, so minibatches of any plate are unbiased. For models with many discrete
    local latents Pyro's ``TraceGraph_ELBO`` and ``TraceEnum_ELBO`` have less variance.

    Args:
        num_particles: K.
        estimator: one of ``pyro_klmodes.estimators``; ``doubly`` is sticking the landing.
        max_plate_nesting: depth of the deepest plate, found by itself if None.
        vectorize_particles: whether particles share one run.

    Raises:
        InvalidArgument: for a ``num_particles`` that is not a positive integer.

    Source: Jordan, Ghahramani, Jaakkola and Saul (1999); Roeder, Wu and Duvenaud (2017).

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from pyro.infer import SVI
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> def guide():
        ...     pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))
        >>> SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=ReverseKL()).step()
        0.0
    """

    def __init__(
        self,
        num_particles: int = 1,
        *,
        estimator: Estimator | Auto = auto,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        super().__init__(
            objectives.ReverseKL(),
            num_particles=num_particles,
            estimator=estimator,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
        )
