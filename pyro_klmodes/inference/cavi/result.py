"""What a fit by coordinate ascent leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from pyro_klmodes.inference.cavi.expectation import Expectation
from pyro_klmodes.inference.cavi.report import ConjugacyReport
from pyro_klmodes.inference.result import FitResult

__all__ = ["CAVIResult"]


@dataclass(frozen=True)
class CAVIResult(FitResult):
    """A fit by coordinate ascent.

    ``losses`` holds minus the ELBO after every sweep; on minibatches, that of each batch.

    Attributes:
        conjugacy: which sites are conjugate.
        evaluations: how often the model was run, for looking at it and for sweeps.
        converged: whether sweeps ended because nothing moved any more.
        expectation: the ELBO as a function of the guide's parameters, ``expectation.elbo(params)``
            with ``params`` by site and name as in ``site_params``.
        site_params: constrained parameters of every site, at the size that ``expectation`` takes.
    """

    conjugacy: ConjugacyReport | None = field(default=None, repr=False)
    evaluations: int = 0
    converged: bool = False
    expectation: Expectation | None = field(default=None, repr=False)
    site_params: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        ended = "converged" if self.converged else "not converged"
        if self.interrupted:
            ended = "interrupted"
        elbo = f", elbo={float(self.elbos[-1]):.6g}" if self.steps else ""
        return f"CAVIResult(sweeps={self.steps}{elbo}, {ended}, evaluations={self.evaluations})"

    @property
    def elbos(self) -> Tensor:
        """The ELBO after every sweep."""
        return -self.losses
