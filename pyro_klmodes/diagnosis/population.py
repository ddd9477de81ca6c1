"""Population Monte Carlo: Student-t mixtures that follow the weights of their draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pyro.distributions import MultivariateStudentT
from torch import Tensor

from pyro_klmodes.diagnosis.verdict import SHORT_IN_ERRORS, SHORT_IN_NATS
from pyro_klmodes.diagnostics.normal_mixtures import fit_mixture
from pyro_klmodes.inference.target import Target
from pyro_klmodes.weights import effective_sample_size, log_evidence, pareto_smooth

__all__ = ["MOST_COORDINATES", "Population", "StudentMixture", "adapt"]

MOST_COORDINATES = 50  # beyond, fits of mixtures find nothing, and climbs and Hessians take minutes
ROUNDS = 3

DEGREES_OF_FREEDOM = 5.0
MOST_COMPONENTS = 8
# Of every round's draws so many, taken by weight, are fitted; more cost time and change little.
FITTED_DRAWS = 1500
# Components are made a little wider than they were fitted, and none is given up.
STRETCH, KEPT_SHARE = 1.15, 0.05
ENOUGH = 0.6  # share of effective draws
# The last draws: so many that a material shortfall is no chance, where a tenth of them count.
FINE, MOST_DRAWS, WORTHWHILE = SHORT_IN_NATS / SHORT_IN_ERRORS, 64_000, 0.1


@dataclass(frozen=True)
class StudentMixture:
    """A mixture of multivariate Student-t densities with five degrees of freedom.

    Attributes:
        log_shares: ``(M,)``.
        locs: ``(M, D)``.
        factors: ``(M, D, D)``, lower triangular.
    """

    log_shares: Tensor
    locs: Tensor
    factors: Tensor

    @classmethod
    def fitted(
        cls,
        u: Tensor,  # (S, D)
        log_w: Tensor,  # (S,)
        seed: int,
    ) -> StudentMixture:
        """A mixture of at most eight components, fitted to weighted draws."""
        weights = torch.softmax(pareto_smooth(log_w)[0], 0)
        drawn = u[torch.multinomial(weights, FITTED_DRAWS, replacement=True)].double()
        even = torch.full((FITTED_DRAWS,), 1 / FITTED_DRAWS, dtype=torch.float64)
        found = fit_mixture(drawn, even, most=MOST_COMPONENTS, seed=seed)
        shares = (1 - KEPT_SHARE) * found.log_shares.exp() + KEPT_SHARE / len(found.means)
        return cls(shares.log(), found.means, STRETCH * found.factors)

    def log_prob(
        self,
        u: Tensor,  # (S, D)
    ) -> Tensor:  # (S,)
        """Log-density."""
        densities = MultivariateStudentT(DEGREES_OF_FREEDOM, self.locs, self.factors)
        return torch.logsumexp(self.log_shares + densities.log_prob(u[:, None]), 1)

    def draw(self, count: int) -> Tensor:  # (count, D)
        """Draws from the mixture."""
        which = torch.multinomial(self.log_shares.exp(), count, replacement=True)
        return MultivariateStudentT(
            DEGREES_OF_FREEDOM, self.locs[which], self.factors[which]
        ).sample()


@dataclass(frozen=True)
class Population:
    """Weighted draws of a proposal.

    Attributes:
        u: ``(S, D)``.
        log_w: ``(S,)``.
    """

    u: Tensor
    log_w: Tensor

    @property
    def log_evidence(self) -> float:
        """Importance-sampling estimate."""
        return float(log_evidence(self.log_w)[0])

    @property
    def error(self) -> float:
        """Standard error of the estimate."""
        return float(log_evidence(self.log_w)[1])

    @property
    def effective_draws(self) -> float:
        """Effective sample size."""
        return float(effective_sample_size(self.log_w))


@torch.no_grad()
def adapt(
    target: Target,
    proposal: StudentMixture,
    *,
    num_draws: int,
    seed: int,
) -> Population:
    """Draw, weigh and fit the next proposal to the weighted draws, three times.

    Every round is importance sampling by itself. When more than six in ten of its draws are
    effective there is no further round. The proposal of the round with the most effective draws
    then makes new ones, at most 64,000, until the standard error of the log evidence is 0.0025;
    where it is poor, or the model cannot be evaluated at many draws at once, the draws of its round
    are returned.

    Source: Cappé, Douc, Guillin, Marin and Robert (2008), Adaptive importance sampling in general
        mixture classes.
    """
    latest = _weighed(target, proposal, num_draws)
    best, its_proposal = latest, proposal
    for i in range(ROUNDS):
        if not bool((latest.log_w > -math.inf).any()):
            break  # nowhere to go
        if best.effective_draws > ENOUGH * num_draws:
            break  # hardly anything to gain
        proposal = StudentMixture.fitted(latest.u, latest.log_w, seed + i)
        latest = _weighed(target, proposal, num_draws)
        if latest.effective_draws > best.effective_draws:
            best, its_proposal = latest, proposal
    return _refined(target, its_proposal, best)


def _refined(target: Target, proposal: StudentMixture, found: Population) -> Population:
    """As many new draws as the evidence needs, if they are worth it and cheap."""
    size = len(found.log_w)
    if found.effective_draws < WORTHWHILE * size or not target.layout.together:
        return found
    blocks = min(math.ceil((found.error / FINE) ** 2), MOST_DRAWS // size)
    if blocks < 2:
        return found
    drawn = [_weighed(target, proposal, size) for _ in range(blocks)]
    return Population(torch.cat([d.u for d in drawn]), torch.cat([d.log_w for d in drawn]))


def _weighed(target: Target, proposal: StudentMixture, count: int) -> Population:
    u = proposal.draw(count)
    log_p = target(u.to(target.initial)).double().nan_to_num(nan=-math.inf, posinf=-math.inf)
    return Population(u, log_p - proposal.log_prob(u))
