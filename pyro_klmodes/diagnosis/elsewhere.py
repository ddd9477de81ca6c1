"""What the guide's weights cannot tell: the evidence, the modes and the scores beyond its draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyro_klmodes.diagnosis.population import MOST_COORDINATES, Population
from pyro_klmodes.diagnosis.second_opinion import SecondOpinion, opinion_on
from pyro_klmodes.diagnosis.shifts import Beyond
from pyro_klmodes.diagnosis.verdict import SHORT_IN_ERRORS, TrustedEvidence
from pyro_klmodes.diagnosis.widened import around_guide
from pyro_klmodes.diagnostics import ModeCoverage, SteinTest, mode_coverage, stein_test
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.target import Target
from pyro_klmodes.posteriors import Guided
from pyro_klmodes.weights import pareto_smooth, weighted_moments

__all__ = ["Elsewhere", "look_elsewhere"]

# With fewer effective draws an estimate of the evidence is no standard for another one.
ENOUGH_EFFECTIVE = 100.0
ENOUGH_FOR_MOMENTS = 400.0
# The Stein discrepancy compares all pairs of draws.
STEIN_DRAWS = 1000
LEAST_MASS = 0.01  # of a mode worth counting


@dataclass(frozen=True)
class Elsewhere:
    """What was found beyond the guide's draws; None where nothing could be.

    Attributes:
        opinion: modes and evidence from many starts.
        around: the evidence from proposals that start around the guide.
        moments: mean and standard deviation of every site by the same draws, where they are many.
        coverage: the guide's mass around each mode.
        stein: test by the Stein discrepancy.
        notes: what could not be done, and why.
    """

    opinion: SecondOpinion | None = None
    around: TrustedEvidence | None = None
    moments: Mapping[str, Beyond] = field(default_factory=dict)
    coverage: ModeCoverage | None = None
    stein: SteinTest | None = None
    notes: tuple[str, ...] = ()

    @property
    def trusted(self) -> TrustedEvidence | None:
        """The evidence that says the most: with the highest lower end."""
        told = [self.around] if self.around is not None else []
        if self.opinion is not None and self.opinion.effective_draws >= ENOUGH_EFFECTIVE:
            origin = "that of draws around the modes which a search from many starts found"
            told.append(TrustedEvidence(self.opinion.log_evidence, self.opinion.error, origin))
        return max(told, key=lambda e: e.value - SHORT_IN_ERRORS * e.error, default=None)


def look_elsewhere(
    posterior: Guided,
    values: Mapping[str, Tensor],  # {site: (S, *site_shape)}
    log_q: Tensor,  # (S,)
    *,
    opinion: SecondOpinion | None,
    num_starts: int,
    seed: int,
) -> Elsewhere:
    """Search for modes, widen the guide, and test it by scores, in unconstrained space.

    Args:
        posterior: the guide and its model; the parameters are those in the store.
        values: draws of all latents.
        log_q: the guide's log-density of each draw.
        opinion: what a search found before.
        num_starts: of a search now, 0 for none.
        seed: of the search and of the bootstrap.
    """
    try:
        return _looked(posterior, values, log_q, opinion=opinion, num_starts=num_starts, seed=seed)
    except Exception as error:  # whatever a model does at values it did not expect
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return Elsewhere(opinion, notes=(f"no look beyond the guide's draws: {reason}",))


def _looked(
    posterior: Guided,
    values: Mapping[str, Tensor],  # {site: (S, *site_shape)}
    log_q: Tensor,  # (S,)
    *,
    opinion: SecondOpinion | None,
    num_starts: int,
    seed: int,
) -> Elsewhere:
    notes = []
    with seeded(seed):  # its initial values are random
        target = Target.of(posterior.model, posterior.args, posterior.kwargs)
    missing = [b.latent.name for b in target.packing.blocks if b.latent.name not in values]
    if missing:
        return Elsewhere(opinion, notes=(f"nothing beyond the draws: no '{missing[0]}' there",))
    size = len(target.initial)
    if opinion is None and num_starts > 0:
        opinion = opinion_on(target, num_starts=num_starts, seed=seed)
        if opinion is None and size > MOST_COORDINATES:
            notes.append(
                f"no search for other modes in {size} coordinates (at most {MOST_COORDINATES}): a "
                "mode that the guide leaves out would not be seen."
            )
    u = target.vectors(values).detach().to(target.initial)
    if not bool(u.isfinite().all()):
        return Elsewhere(opinion, notes=("some draws are on the boundary of their support",))
    log_det = target.log_det(u).detach()
    with seeded(seed):
        population = around_guide(target, u, log_q + log_det, seed=seed)
    return Elsewhere(
        opinion=opinion,
        around=_evidence_of(population),
        moments=_moments_of(population, target),
        coverage=_coverage(u, opinion),
        stein=_stein(target, u, seed),
        notes=tuple(notes),
    )


def _evidence_of(population: Population) -> TrustedEvidence | None:
    if population.effective_draws < ENOUGH_EFFECTIVE:
        return None
    origin = "that of draws from around the guide"
    return TrustedEvidence(population.log_evidence, population.error, origin)


def _moments_of(population: Population, target: Target) -> dict[str, Beyond]:
    if population.effective_draws < ENOUGH_FOR_MOMENTS:
        return {}
    log_w = pareto_smooth(population.log_w)[0]
    found = {}
    for site, values in target.values(population.u.to(target.initial)).items():
        x = values.double()
        mean, sd = weighted_moments(x, log_w)
        standard = (x - mean) / torch.where(sd > 0, sd, 1.0)
        kurtosis, _ = weighted_moments(standard**4, log_w)
        found[site] = Beyond(mean, sd, kurtosis, population.effective_draws)
    return found


def _coverage(
    u: Tensor,  # (S, D)
    opinion: SecondOpinion | None,
) -> ModeCoverage | None:
    if opinion is None or opinion.effective_draws < ENOUGH_EFFECTIVE:
        return None
    kept = opinion.masses >= LEAST_MASS
    if int(kept.sum()) < 2:
        return None
    return mode_coverage(u.to(opinion.modes), opinion.modes[kept], masses=opinion.masses[kept])


def _stein(
    target: Target,
    u: Tensor,  # (S, D)
    seed: int,
) -> SteinTest | None:
    few = u[:STEIN_DRAWS]
    scores = target.score(few)
    usable = bool(scores.isfinite().all()) and bool((few.std(0) > 0).all())
    return stein_test(few, scores, seed=seed) if usable else None
