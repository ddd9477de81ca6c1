"""What a divergence has to offer to grow a mixture by it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from pyro.infer import ELBO
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, NonFiniteLoss
from pyro_klmodes.guides.joint.mixture import Mixture
from pyro_klmodes.guides.joint.radial import RadialLaw
from pyro_klmodes.guides.joint.scales import ScaleStructure
from pyro_klmodes.inference.boosting.components import Components
from pyro_klmodes.inference.target import Target

__all__ = ["Booster", "BoostingDivergence"]


class Booster(ABC):
    """A mixture that grows.

    Attributes:
        bank: room for all components; the first ``size`` are in the mixture.
        size: how many components there are.
        weights: theirs, ``(size,)``.
    """

    def __init__(self, target: Target, bank: Mixture) -> None:
        self.target = target
        self.bank = bank
        self.size = 0
        self.weights: Tensor = bank.logits.detach()[:0]

    @property
    def components(self) -> Components:
        """Those of the mixture so far, without their graph where gradients are off."""
        return Components.of(self.bank).first(self.size)

    def density_at(
        self,
        u: Tensor,  # (*batch, D), draws of the newest component
    ) -> Tensor:  # (*batch)
        """The target's log-density, to weigh components by.

        Raises:
            NonFiniteLoss: if it is not a number somewhere.
        """
        log_p = self.target(u)
        bad = int(log_p.isnan().sum())
        if bad:
            raise NonFiniteLoss(
                f"component {self.size}: the model's log-density is nan at {bad} of "
                f"{log_p.numel()} draws. Check where the model is defined, or use a smaller "
                "init_scale."
            )
        return log_p

    @abstractmethod
    def score(
        self,
        candidates: Mixture,  # of S components, its logits free for use
        num_draws: int,
    ) -> Tensor:  # (S,)
        """A noisy objective of each candidate for the next component, to be maximised."""

    @abstractmethod
    def gain(
        self,
        candidates: Mixture,
        num_draws: int,
    ) -> Tensor:  # (S,)
        """What candidates are compared by in the end."""

    @abstractmethod
    def reweigh(self) -> float:
        """Weigh all components after one was added to the bank; the bound on the evidence."""

    @abstractmethod
    def mixture(self) -> Mixture:
        """The mixture so far, with parameters of its own."""


@dataclass(frozen=True)
class BoostingDivergence(ABC):
    """A choice of divergence.

    Attributes:
        weight_draws: draws of each component to weigh it by, and of each candidate in the end.

    Raises:
        InvalidArgument: if ``weight_draws`` is not a positive integer.
    """

    weight_draws: int

    def __post_init__(self) -> None:
        draws = self.weight_draws
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
            raise InvalidArgument(f"weight_draws={draws!r} must be a positive integer.")

    @abstractmethod
    def check(self, scale: ScaleStructure, radial: RadialLaw) -> None:
        """Refuse components that the divergence has no closed form for."""

    @abstractmethod
    def booster(self, target: Target, bank: Mixture) -> Booster:
        """A mixture without components yet."""

    @abstractmethod
    def loss(self, num_particles: int) -> ELBO:
        """The loss whose value is the negated bound."""
