"""What ``diagnose`` returns: everything that was found out about one finished inference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import xarray as xr
from rich.console import Console, ConsoleOptions, RenderableType
from torch import Tensor

from pyro_klmodes.diagnosis.second_opinion import SecondOpinion
from pyro_klmodes.diagnosis.show import rendered
from pyro_klmodes.diagnosis.verdict import TrustedEvidence, Verdict, WorstShift
from pyro_klmodes.diagnosis.weight_summary import WeightSummary
from pyro_klmodes.diagnostics import (
    CorrectedMoments,
    ErrorBounds,
    Evidence,
    KHat,
    MarginalKHat,
    ModeCoverage,
    SteinTest,
)

__all__ = ["ChainSummary", "Diagnosis"]


@dataclass(frozen=True)
class ChainSummary:
    """Convergence of Markov chains.

    Attributes:
        r_hat: rank-normalised split R-hat by site, of the site's shape.
        effective_draws: bulk effective sample size by site, likewise.
        divergences: number of divergent transitions.
    """

    r_hat: Mapping[str, Tensor]
    effective_draws: Mapping[str, Tensor]
    divergences: int

    @property
    def worst_r_hat(self) -> float:
        """The largest over all parameters."""
        return max((float(x.max()) for x in self.r_hat.values()), default=math.inf)

    @property
    def fewest_effective(self) -> float:
        """The smallest effective sample size over all parameters."""
        return min((float(x.min()) for x in self.effective_draws.values()), default=0.0)


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found out about one finished inference; None where it could not be.

    Prints as tables, whose lines are:

    ========================  =====================================================================
    Pareto k-hat              of the weights of the guide's draws, with its Monte Carlo spread; up
                              to its limit weighted draws can be used, the smaller the better
    draws it needs            as many make weights of this k-hat usable
    effective draws           how many exact draws the weighted ones are worth; of chains, the
                              fewest over all parameters
    worst combinations        the linear combinations of parameters whose mean, and whose standard
                              deviation, are furthest from those of the weighted draws, as far as
                              that is more than chance
    mass at the modes         the guide's share of draws around each mode, and the posterior's, by
                              draws around the modes that a search found
    Stein test of q = p       p-value by the kernelised Stein discrepancy: small if the draws are
                              not from the posterior
    R-hat                     of chains: they agree with each other where it is at most 1.01
    divergences               transitions of the sampler that went wrong
    split R-hat of the loss   whether training was over: above 1.1 the loss still moved
    ========================  =====================================================================

    ========================  =====================================================================
    log evidence              a lower bound is below the log evidence in expectation; an estimate
                              may be on either side
    ELBO                      mean of the log-weights, the usual bound
    IWAE_K                    the bound by K draws at a time, tighter for more
    log mean w                estimate by all weights
    jackknife                 the same with less bias
    CUBO_2                    half the log of the mean squared weight; in theory, not as estimated
                              here, an upper bound
    thermodynamic lower       sums over a path from the guide to the posterior, from below
    thermodynamic upper       and from above: the further apart, the more guide and posterior differ
    KL(q||p)                  divergence of the guide from the posterior, log mean w less ELBO
    beyond the guide          the evidence by draws from elsewhere, or the exact one: if larger
                              than log mean w by more than chance, the guide misses mass
    ========================  =====================================================================

    ========================  =====================================================================
    mean, in sd               how far the mean of the weighted draws is from the guide's, in
                              standard deviations of the former
    sd ratio                  the guide's standard deviation over that of the weighted draws: below
                              one where the guide is too narrow
    k-hat by itself           of the guide's density of this parameter alone: where the guide is
                              wrong; negative where weights are bounded
    ========================  =====================================================================

    ``notes`` says what is missing and why.

    Attributes:
        verdict: can it be believed, why, and what to try next.
        num_draws: number of posterior draws that were looked at.
        attributes: how the inference was made.
        weights: k-hat, effective sample size and evidence in a few numbers.
        k_hat: Pareto k-hat of every cell of the local plates, with its spread.
        marginal_k_hat: k-hat of every latent site by itself: where the guide is wrong.
        evidence: bounds and estimates of the log evidence by name, told apart.
        trusted: the evidence the verdict was held against.
        moments: moments of the weighted draws against the guide's own, by site.
        combination: the linear combinations of parameters whose mean and whose standard deviation
            are furthest off, as far as that is no chance.
        error_bounds: bounds on the error of mean and standard deviation, where the theory holds.
        stein: test of the guide by the kernelised Stein discrepancy.
        opinion: modes and evidence that were found without the guide.
        coverage: how much of the guide's mass is around each of those modes.
        chains: convergence, if the inference is a set of Markov chains.
        settled: split R-hat of the loss over the last half of training.
        notes: what could not be found out, and why.
    """

    verdict: Verdict
    num_draws: int
    attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    weights: WeightSummary | None = None
    k_hat: KHat | None = field(default=None, repr=False)
    marginal_k_hat: Mapping[str, MarginalKHat] = field(default_factory=dict, repr=False)
    evidence: Mapping[str, Evidence] = field(default_factory=dict, repr=False)
    trusted: TrustedEvidence | None = None
    moments: Mapping[str, CorrectedMoments] = field(default_factory=dict, repr=False)
    combination: WorstShift | None = None
    error_bounds: ErrorBounds | None = field(default=None, repr=False)
    stein: SteinTest | None = field(default=None, repr=False)
    opinion: SecondOpinion | None = field(default=None, repr=False)
    coverage: ModeCoverage | None = field(default=None, repr=False)
    chains: ChainSummary | None = field(default=None, repr=False)
    settled: float | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it as numbers, strings, lists and dictionaries; what is not finite is None."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def to_xarray(self) -> xr.Dataset:
        """What there is per parameter, with the verdict among the attributes.

        Variables ``<statistic>_<site>``; dimensions ``<site>_dim_0`` and so on.
        """
        variables = {
            f"{name}_{site}": ([f"{site}_dim_{axis}" for axis in range(value.dim())], value.numpy())
            for site, name, value in self._by_site()
        }
        numbers = {"num_draws": self.num_draws, "verdict": self.verdict.word}
        if self.weights is not None:
            numbers |= {k: v for k, v in asdict(self.weights).items() if v is not None}
        return xr.Dataset(variables, attrs=numbers)

    def _by_site(self) -> Iterator[tuple[str, str, Tensor]]:
        for site, found in self.moments.items():
            yield site, "shift", found.shift
            yield site, "sd_ratio", found.sd_ratio
        for site, marginal in self.marginal_k_hat.items():
            yield site, "k_hat", marginal.value
        if self.chains is not None:
            for site, value in self.chains.r_hat.items():
                yield site, "r_hat", value
            for site, value in self.chains.effective_draws.items():
                yield site, "ess", value

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        yield from rendered(self)

    def __str__(self) -> str:
        console = Console(width=100, no_color=True, force_terminal=False)
        with console.capture() as capture:
            console.print(self)
        return capture.get()


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _plain(value.detach().cpu().tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return torch.as_tensor(value).tolist() if hasattr(value, "__array__") else str(value)
