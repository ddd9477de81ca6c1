"""How a fit was trained, for whoever wants to do it again or doubts that it was done well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyro.infer import SVI

from pyro_klmodes.inference import FitResult
from pyro_klmodes.inference.optimizers import Optimizers
from pyro_klmodes.numbers import count

__all__ = ["Recipe", "particles_of"]


@dataclass(frozen=True)
class Recipe:
    """Steps, particles and optimizer of a fit.

    Attributes:
        steps: How many were taken, sweeps where there is no optimizer; None if nobody counted.
        particles: Draws of the guide in each of them (times outer particles); None where there are
            no gradient steps.
        optimizer: Its kind and arguments, with the learning rate at the end; empty if there is
            none.
    """

    steps: int | None = None
    particles: int | None = None
    optimizer: str = ""

    @classmethod
    def of(cls, source: Any) -> Recipe | None:
        """Read it off what ``fit`` returned or Pyro's SVI; None for anything else.

        Example:
            >>> Recipe.of("a pair of model and guide") is None
            True
        """
        if isinstance(source, FitResult):
            if not source.optimizer:
                return cls(source.steps)
            return cls(source.steps, particles_of(source.loss), source.optimizer)
        if isinstance(source, SVI):
            # SVI keeps the bound method of the loss it was given.
            loss = getattr(source.loss, "__self__", source.loss)
            return cls(None, particles_of(loss), Optimizers(source.optim).words())
        return None

    @property
    def words(self) -> str:
        """In a line.

        Example:
            >>> Recipe(50, 1, "Adam (lr=0.1)").words, Recipe(7).words
            ('50 steps of 1 particle by Adam (lr=0.1)', '7 steps')
        """
        steps = f"{count(self.steps)} step{'s' * (self.steps != 1)}" if self.steps else "steps"
        if self.particles is not None:
            steps += f" of {count(self.particles)} particle{'s' * (self.particles != 1)}"
        return f"{steps} by {self.optimizer}" if self.optimizer else steps


def particles_of(loss: Any) -> int | None:
    """How often a loss draws from the guide in a step, None if it does not say."""
    inner = getattr(loss, "num_particles", None)
    return None if inner is None else int(inner) * int(getattr(loss, "num_outer", 1))
