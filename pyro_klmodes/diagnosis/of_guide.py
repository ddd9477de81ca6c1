"""The diagnosis of a guide: draw, weigh, look elsewhere, and judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyro_klmodes.diagnosis.advice import Findings, advice
from pyro_klmodes.diagnosis.combined import worst_combination
from pyro_klmodes.diagnosis.elsewhere import Elsewhere, look_elsewhere
from pyro_klmodes.diagnosis.finer_evidence import decided
from pyro_klmodes.diagnosis.local_axes import LocalAxes
from pyro_klmodes.diagnosis.result import Diagnosis
from pyro_klmodes.diagnosis.second_opinion import SecondOpinion
from pyro_klmodes.diagnosis.shifts import shift_beyond, worst_shift
from pyro_klmodes.diagnosis.verdict import TrustedEvidence, Verdict, verdict
from pyro_klmodes.diagnosis.weight_summary import summarise_weights
from pyro_klmodes.diagnostics import (
    CorrectedMoments,
    ErrorBounds,
    Evidence,
    MarginalKHat,
    corrected_moments,
    error_bounds,
    evidence,
    iterate_rhat,
    khat,
    marginal_khat,
)
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.given import surveyed
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.posteriors import Guided
from pyro_klmodes.tracing import Draws
from pyro_klmodes.tracing.full_data import FullData

__all__ = ["diagnose_guide"]

# Losses whose optimum covers mass, by the names of their classes: Pyro's are among them.
FORWARD = ("ForwardKL", "IWAE", "CUBO", "RenyiELBO", "ReweightedWakeSleep", "TailAdaptive")
MATCHING = ("ForwardKL", "ScoreClimbing")  # the moments of the posterior, at their optimum
FEWEST_STEPS = 100  # for the loss to be looked at
BOOTSTRAP_ENTRIES, FEWEST_BOOTSTRAP, MOST_BOOTSTRAP = 40_000_000, 20, 200


@dataclass(frozen=True)
class _Seen:
    """Draws of a guide without its auxiliary sites, and the density of each whole draw."""

    data: FullData
    draws: Draws
    values: Mapping[str, Tensor]  # {site: (S, *site_shape)}

    @property
    def log_q(self) -> Tensor:  # (S,)
        return self.draws.log_q.reshape(len(self.draws.log_q), -1).sum(1)


def diagnose_guide(
    posterior: Guided,
    *,
    num_samples: int,
    seed: int,
    log_evidence: float | None,
    opinion: SecondOpinion | None,
    num_starts: int,
) -> Diagnosis:
    """See ``diagnose``."""
    seen = _look(posterior, num_samples, seed)
    settled = _settled(posterior)
    with posterior.scope(), seeded(seed):
        unweighed = seen.data.why_unweighed()
    if unweighed is not None or _is_point(seen.values):
        return _unknown(posterior, num_samples, settled, unweighed or "the guide is a point")
    _check_weights(seen.draws)
    weights = summarise_weights(seen.draws.log_w, rest=float(seen.draws.rest))
    if seen.draws.scale != 1.0:
        note = (
            f"all sites have the poutine.scale {seen.draws.scale:g}: the evidence is that without "
            "it, and there is no look beyond the guide's draws."
        )
        elsewhere = Elsewhere(opinion, notes=(note,))
    else:
        with posterior.scope():
            elsewhere = look_elsewhere(
                posterior,
                seen.values,
                seen.log_q,
                opinion=opinion,
                num_starts=num_starts,
                seed=seed,
            )
    moments, marginal = _by_site(seen)
    shift, combination = worst_shift(moments), worst_combination(seen.draws, seen.values)
    trusted = elsewhere.trusted if log_evidence is None else TrustedEvidence(log_evidence)
    with posterior.scope():
        weights, finer = decided(seen.data, seen.draws, weights, trusted, seed)
    beyond = shift_beyond(moments, weights.effective_draws, elsewhere.moments)
    judged = verdict(weights, trusted, shift, beyond, combination)
    one_by_one = combination is not None and (shift is None or shift.small)
    spreads = combination is None or combination.small_spread
    findings = Findings(
        word=judged.word,
        weights=weights,
        coordinates=sum(x[0].numel() for x in seen.values.values()),
        forward=posterior.attributes.get("loss") in FORWARD,
        matches=posterior.attributes.get("loss") in MATCHING,
        settled=settled,
        worst_site=_worst_site(marginal, weights.k_hat_limit),
        modes=None if elsewhere.coverage is None else len(elsewhere.coverage.masses),
        dependence=one_by_one and not spreads,
        noise=one_by_one and spreads,
    )
    return Diagnosis(
        verdict=replace(judged, advice=advice(findings)),
        num_draws=num_samples,
        attributes=posterior.attributes,
        weights=weights,
        k_hat=khat(seen.draws.log_w),
        marginal_k_hat=marginal,
        evidence=_evidence(seen, seed),
        trusted=trusted,
        moments=moments,
        combination=combination,
        error_bounds=_error_bounds(seen),
        stein=elsewhere.stein,
        opinion=elsewhere.opinion,
        coverage=elsewhere.coverage,
        settled=settled,
        notes=(*elsewhere.notes, *finer),
    )


def _look(posterior: Guided, num_samples: int, seed: int) -> _Seen:
    """Draw and weigh; an autoguide's auxiliary sites are no parameters."""
    with posterior.scope(), seeded(seed):
        data = surveyed(posterior.pair)
        draws = data.draws(num_samples)
        return _Seen(data, draws, {site: draws.values[site] for site in data.latents})


def _by_site(
    seen: _Seen,
) -> tuple[dict[str, CorrectedMoments], dict[str, MarginalKHat]]:
    """Corrected moments and marginal k-hats, the axes of the sites in their order."""
    axes = LocalAxes.of(seen.draws, seen.values)
    values, log_w = axes.in_front(seen.values), seen.draws.log_w
    moments = corrected_moments(log_w, values)
    marginal = marginal_khat(log_w, values)
    return (
        {
            site: CorrectedMoments(
                **{name: axes.put_back(site, moved) for name, moved in vars(found).items()}
            )
            for site, found in moments.items()
        },
        {
            site: MarginalKHat.of(axes.put_back(site, found.value))
            for site, found in marginal.items()
        },
    )


def _worst_site(marginal: Mapping[str, MarginalKHat], limit: float) -> str | None:
    """The site whose marginal is worst, if there is another one to compare it with."""
    bad = {site: found.worst for site, found in marginal.items() if found.worst > limit}
    if not bad or len(marginal) < 2:
        return None
    return max(bad, key=lambda site: bad[site])


def _evidence(seen: _Seen, seed: int) -> dict[str, Evidence]:
    """Bounds and estimates, with fewer bootstrap samples where there are very many cells."""
    affordable = BOOTSTRAP_ENTRIES // seen.draws.log_w.numel()
    count = max(FEWEST_BOOTSTRAP, min(MOST_BOOTSTRAP, affordable))
    return evidence(seen.draws.log_w, num_bootstrap=count, seed=seed)


def _error_bounds(seen: _Seen) -> ErrorBounds:
    """Bounds for all sites together; they need one weight for each whole draw."""
    joint = seen.draws.log_w.reshape(len(seen.draws.log_w), -1).sum(1)
    return error_bounds(joint, {site: x.double() for site, x in seen.values.items()})


def _is_point(values: Mapping[str, Tensor]) -> bool:
    return all(bool((value == value[0]).all()) for value in values.values())


def _unknown(posterior: Guided, num_samples: int, settled: float | None, reason: str) -> Diagnosis:
    return Diagnosis(
        verdict=Verdict(
            "unknown",
            f"The draws have no weights: {reason}. Nothing can be said about a posterior.",
            ("Use a guide that is a distribution, for instance AutoNormal or AutoFullRank.",),
        ),
        num_draws=num_samples,
        attributes=posterior.attributes,
        settled=settled,
    )


def _check_weights(draws: Draws) -> None:
    log_w = draws.log_w
    if bool(log_w.isnan().any()) or bool((log_w == torch.inf).any()):
        raise InvalidArgument(
            f"{int((~(log_w < torch.inf)).sum())} of {log_w.numel()} log-weights of the guide's "
            f"draws are NaN or infinite: {draws.describe_nonfinite()}. Check the data and the "
            "fitted parameters."
        )
    if bool((log_w == -torch.inf).all(0).any()):
        raise InvalidArgument(
            "all draws have weight zero: the model gives none of them a positive density. The "
            f"guide draws outside of the model's support: {draws.describe_nonfinite()}."
        )


def _settled(posterior: Guided) -> float | None:
    """Split R-hat of the loss over the last half of training."""
    losses = posterior.losses[posterior.losses.isfinite()]
    if len(losses) < FEWEST_STEPS:
        return None
    last = losses[len(losses) // 2 :]
    return float(iterate_rhat(last[:, None])[0]) if bool((last != last[0]).any()) else 1.0
