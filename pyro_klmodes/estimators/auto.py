"""The default: the estimator that is right for an objective and a guide."""

from __future__ import annotations

from pyro_klmodes.errors import IncompatibleEstimator
from pyro_klmodes.estimators.base import Estimator
from pyro_klmodes.estimators.doubly import Doubly
from pyro_klmodes.estimators.fixed import Fixed
from pyro_klmodes.estimators.mixed import Mixed
from pyro_klmodes.estimators.score import Score
from pyro_klmodes.objectives import Objective, Part
from pyro_klmodes.tracing.layout import Layout

__all__ = ["Auto"]


class Auto:
    """Chooses an estimator once the guide's sites are known.

    A bound that is raised takes paths where sites are reparameterised and scores elsewhere. A
    bound that is lowered (forward KL, CUBO, the right thermodynamic sum) holds the draws fixed: its
    K-sample estimate is biased down, without limit for a guide that collapses onto a point, and
    paths would follow it there. A path part is doubly reparameterised, or score-function where no
    site is reparameterised.

    Example:
        >>> from pyro_klmodes.objectives import ForwardKL
        >>> Auto().resolve(ForwardKL(), Layout(nesting=0))
        fixed
    """

    def resolve(self, objective: Objective, layout: Layout) -> Estimator:
        """The estimator for an objective and a guide's layout.

        Raises:
            IncompatibleEstimator: for a path part with a partly reparameterised guide.
        """
        if objective.has_wake and objective.shift > 0:
            return Fixed()
        if objective.part is Part.WHOLE:
            return Mixed()
        if not layout.unreparameterised:
            return Doubly()
        if layout.reparameterised:
            raise IncompatibleEstimator(
                f"{type(objective).__name__} needs a guide whose sites are all reparameterised or "
                f"all not; '{layout.reparameterised[0]}' is and '{layout.unreparameterised[0]}' is "
                "not. Use estimators.score, or another loss."
            )
        return Score()

    def __repr__(self) -> str:
        return "auto"
