"""One cell of the grid, and what the cells of one model have in common."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["AMORTISED", "FULL_RANK", "MEAN_FIELD", "Cell"]

MEAN_FIELD = "mean field"
FULL_RANK = "full rank"
AMORTISED = "amortised"


@dataclass(frozen=True)
class Cell:
    """What is timed.

    Attributes:
        model: a name of `benchmarks.engine.problems`.
        guide: "mean field", "full rank" or, of the autoencoder alone, "amortised".
        objective: "ELBO", "IWAE" or "forward KL".
        particles: draws per step.
    """

    model: str
    guide: str
    objective: str
    particles: int

    @property
    def label(self) -> str:
        """How it is called in files and messages."""
        return f"{self.model} | {self.guide} | {self.objective} | K = {self.particles}"

    @property
    def learning_rate(self) -> float:
        """Adam's: networks take smaller steps."""
        return 1e-3 if self.guide == AMORTISED else 1e-2

    @property
    def scan_length(self) -> int:
        """Steps that NumPyro takes in one compiled loop: long enough not to feel its start."""
        if self.guide == AMORTISED:
            return max(1, 20 // self.particles)
        return {1: 2000, 16: 500}.get(self.particles, 250)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
