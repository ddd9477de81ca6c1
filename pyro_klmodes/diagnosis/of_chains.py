"""The diagnosis of Markov chains."""

from __future__ import annotations

from pyro_klmodes.diagnosis.result import ChainSummary, Diagnosis
from pyro_klmodes.diagnosis.verdict import Verdict
from pyro_klmodes.diagnostics import iterate_ess, iterate_rhat
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.posteriors import Chains

__all__ = ["diagnose_chains"]

# Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021).
LARGEST_R_HAT, FEWEST_EFFECTIVE = 1.01, 400.0
FEWEST_DRAWS = 100


def diagnose_chains(posterior: Chains) -> Diagnosis:
    """R-hat, effective sample size and divergences of every parameter.

    "reliable" if R-hat is at most 1.01, the bulk effective sample size at least 400 for every
    parameter, and nothing diverged (Vehtari et al., 2021); otherwise "not converged".
    """
    chains, length = posterior.shape
    if length < FEWEST_DRAWS:
        raise InvalidArgument(
            f"these chains have {length} draws each; diagnose needs at least {FEWEST_DRAWS}."
        )
    r_hat, effective = {}, {}
    for site, values in posterior.values.items():
        if not bool(values.isfinite().all()):
            raise InvalidArgument(f"draws of site '{site}' are NaN or infinite.")
        shape, flat = values.shape[2:], values.reshape(chains, length, -1)
        if bool((flat == flat[:1, :1]).all()):
            continue  # a constant has no convergence
        r_hat[site] = iterate_rhat(flat).reshape(shape)
        effective[site] = iterate_ess(flat).reshape(shape)
    divergences = posterior.statistics.get("diverging")
    summary = ChainSummary(r_hat, effective, 0 if divergences is None else int(divergences.sum()))
    notes = ("R-hat of one chain compares its halves only; run four.",) if chains == 1 else ()
    return Diagnosis(
        verdict=_verdict(summary, chains * length),
        num_draws=chains * length,
        attributes=posterior.attributes,
        chains=summary,
        notes=notes,
    )


def _verdict(found: ChainSummary, draws: int) -> Verdict:
    wrong = []
    if not found.worst_r_hat <= LARGEST_R_HAT:
        wrong.append(f"R-hat is {found.worst_r_hat:.3f}")
    if not found.fewest_effective >= FEWEST_EFFECTIVE:
        wrong.append(f"only {found.fewest_effective:.0f} of {draws} draws are effective")
    if found.divergences:
        wrong.append(f"{found.divergences} transitions diverged")
    if not wrong:
        return Verdict(
            "reliable",
            f"R-hat is at most {found.worst_r_hat:.3f} and at least {found.fewest_effective:.0f} "
            "draws are effective for every parameter.",
        )
    remedy = (
        "Reparameterise (pyro.infer.reparam.LocScaleReparam), or raise target_accept_prob to .95."
        if found.divergences
        else "Run the chains longer, and at least four of them."
    )
    return Verdict("not converged", f"{_joined(wrong)}.", (remedy,))


def _joined(parts: list[str]) -> str:
    sentence = ", ".join(parts)
    return sentence[0].upper() + sentence[1:]
