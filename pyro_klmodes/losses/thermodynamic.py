"""Thermodynamic: Riemann sums on the geometric path from guide to posterior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pyro_klmodes import objectives
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.estimators import Auto, Estimator, auto
from pyro_klmodes.losses.base import DivergenceLoss

__all__ = ["Thermodynamic"]


class Thermodynamic(DivergenceLoss):
    r"""Thermodynamic variational objective over a partition :math:`0 = b_0 < \dots < b_J = 1`,

    .. math:: \sum_j (b_{j+1} - b_j) E_{\pi_{b_j}} \log w \le \log Z
        \le \sum_j (b_{j+1} - b_j) E_{\pi_{b_{j+1}}} \log w,

    where :math:`\pi_b \propto q^{1-b} p^b` and expectations are self-normalised over K draws. One
    interval on the left is the ELBO, on the right ``log Z + KL(p || q)``. Bounds for exact
    expectations; at finite K only the single left interval is one.

    Args:
        partition: nodes from 0 to 1, or the number of intervals of an even partition.
        num_particles: K; at least 2 for the right sum.
        num_outer: M, independent estimates that are averaged.
        bound: "left" is raised, "right" is lowered (the model's own parameters then follow the
            importance-weighted bound).
        estimator: one of ``pyro_klmodes.estimators``; ``auto`` is ``fixed`` for the right sum.
        max_plate_nesting: depth of the deepest plate, found by itself if None.
        vectorize_particles: whether particles share one run.

    Raises:
        InvalidArgument: if ``partition`` does not increase from 0 to 1.

    Source: Masrani, Le and Wood (2019).

    Example:
        >>> Thermodynamic(4).objective.partition
        (0.0, 0.25, 0.5, 0.75, 1.0)
    """

    def __init__(
        self,
        partition: Sequence[float] | int,
        num_particles: int = 16,
        num_outer: int = 1,
        *,
        bound: Literal["left", "right"] = "left",
        estimator: Estimator | Auto = auto,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        if isinstance(partition, bool):
            raise InvalidArgument(f"partition={partition} must be nodes, or how many intervals.")
        if isinstance(partition, int):
            nodes = tuple(j / partition for j in range(partition + 1)) if partition > 0 else ()
        else:
            nodes = tuple(float(b) for b in partition)
        super().__init__(
            objectives.Thermodynamic(nodes, bound),
            num_particles=num_particles,
            num_outer=num_outer,
            estimator=estimator,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
        )
