"""One objective for the guide and another one for the model's own parameters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.objectives.base import Objective

__all__ = ["Separate"]


@dataclass(frozen=True)
class Separate(Objective):
    """The objective of the guide, with a bound of one's choice for the model's parameters.

    Attributes:
        guide: what the guide minimises, and what the value is.
        model: what the model's parameters minimise: a negated lower bound on the log evidence.

    Raises:
        InvalidArgument: if ``model`` is no such bound.

    Example:
        >>> import torch
        >>> from pyro_klmodes.objectives import PowerMean, ReverseKL
        >>> both = Separate(guide=ReverseKL(), model=PowerMean(0.0))
        >>> both(torch.tensor([1.0, 3.0])), both.for_model()
        (tensor(-2.), PowerMean(alpha=0.0, sign=-1))
    """

    guide: Objective
    model: Objective

    def __post_init__(self) -> None:
        if not self.model.lower_bound:
            raise InvalidArgument(
                f"{self.model!r} is no lower bound on the evidence, so raising it says nothing of "
                "the fit of a model. Use objectives.ReverseKL() or PowerMean(alpha >= 0)."
            )
        object.__setattr__(self, "part", self.guide.part)

    @property
    def shift(self) -> int:
        """That of the guide's objective."""
        return self.guide.shift

    @property
    def linear(self) -> bool:
        """If both are."""
        return self.guide.linear and self.model.linear

    @property
    def min_particles(self) -> int:
        """That of the guide's objective."""
        return self.guide.min_particles

    @property
    def power(self) -> float:
        """That of the guide's objective."""
        return self.guide.power

    @property
    def takes_strata(self) -> bool:
        """If both do."""
        return self.guide.takes_strata and self.model.takes_strata

    @property
    def smooth(self) -> bool:
        """That of the guide's objective."""
        return self.guide.smooth

    def __call__(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (*local)
        """The guide's objective."""
        return self.guide(log_w)

    def credit(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """That of the guide's objective."""
        return self.guide.credit(log_w)

    def curvature(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """That of the guide's objective."""
        return self.guide.curvature(log_w)

    @property
    def has_wake(self) -> bool:
        """That of the guide's objective."""
        return self.guide.has_wake

    def wake_credit(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """That of the guide's objective."""
        return self.guide.wake_credit(log_w)

    def for_model(self) -> Objective:
        """The bound that was chosen."""
        return self.model
