"""Separate: one divergence for the guide, and a bound of one's choice for the model."""

from __future__ import annotations

from pyro_klmodes import objectives
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.estimators import Auto, Estimator, auto
from pyro_klmodes.losses.base import DivergenceLoss
from pyro_klmodes.objectives import Objective

__all__ = ["Separate"]


class Separate(DivergenceLoss):
    """Any objective for the guide and any lower bound for the model's own parameters, on the same
    draws.

    Every other loss trains the model by its own bound if it is one, else by the importance-weighted
    bound. This one tells apart what a divergence does to the guide from what a bound does to the
    model: the active units of a variational auto-encoder, for instance, depend on the bound of the
    model and hardly on the divergence of the guide. The value is that of the guide's objective.

    Args:
        guide: one of ``pyro_klmodes.objectives``, for the guide.
        model: for the model: ``objectives.ReverseKL()`` (the ELBO), or ``PowerMean(alpha)`` with
            alpha >= 0 (0 is the importance-weighted bound).
        num_particles: K.
        num_outer: M, independent estimates that are averaged.
        estimator: of the guide's gradient, one of ``pyro_klmodes.estimators``.
        max_plate_nesting: depth of the deepest plate, found by itself if None.
        vectorize_particles: whether particles share one run.

    Raises:
        InvalidArgument: if one of them is no objective, ``model`` is no lower bound, or for too few
            particles.

    Example:
        >>> from pyro_klmodes import objectives
        >>> loss = Separate(objectives.ReverseKL(), objectives.PowerMean(0.0), num_particles=20)
        >>> loss.objective.for_model()
        PowerMean(alpha=0.0, sign=-1)
    """

    def __init__(
        self,
        guide: Objective,
        model: Objective,
        num_particles: int = 16,
        num_outer: int = 1,
        *,
        estimator: Estimator | Auto = auto,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        for name, value in (("guide", guide), ("model", model)):
            if not isinstance(value, Objective):
                raise InvalidArgument(
                    f"{name}={type(value).__name__} is not one of pyro_klmodes.objectives, such as "
                    "objectives.ReverseKL() or objectives.PowerMean(0.0), the importance-weighted "
                    "bound."
                )
        super().__init__(
            objectives.Separate(guide, model),
            num_particles=num_particles,
            num_outer=num_outer,
            estimator=estimator,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
        )
