"""A training run that can be interrupted: its parameters are its own."""

from __future__ import annotations

import pyro
from pyro.infer import ELBO, SVI
from pyro.infer.autoguide import AutoNormal

from benchmarks.cases import Case
from benchmarks.guide_contests import MakeGuide

__all__ = ["Training"]


class Training:
    """Adam on one case with one loss and one guide.

    Two runs can alternate: each puts its parameters into Pyro's store before its steps and takes
    them out again after.
    """

    def __init__(self, case: Case, loss: ELBO, make_guide: MakeGuide = AutoNormal) -> None:
        self.data = case.data()
        guide = make_guide(case.guided())
        self.svi = SVI(case.model, guide, pyro.optim.Adam({"lr": 1e-3}), loss)
        self.parameters = None

    def run(self, steps: int, measure) -> float:
        """Take some steps, and return what ``measure`` makes of them."""
        with pyro.get_param_store().scope(self.parameters) as self.parameters:
            return measure(lambda: [self.svi.step(*self.data) for _ in range(steps)])
