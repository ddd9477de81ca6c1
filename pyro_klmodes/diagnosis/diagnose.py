"""``diagnose``: everything that can be found out about a finished inference, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyro_klmodes.diagnosis.of_chains import diagnose_chains
from pyro_klmodes.diagnosis.of_guide import diagnose_guide
from pyro_klmodes.diagnosis.result import Diagnosis
from pyro_klmodes.diagnosis.second_opinion import SecondOpinion
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.posteriors import Chains, as_posterior

__all__ = ["diagnose"]

FEWEST_DRAWS = 100


def diagnose(
    source: Any,
    *,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    num_samples: int = 4000,
    seed: int = 0,
    log_evidence: float | None = None,
    opinion: SecondOpinion | None = None,
    num_starts: int = 16,
) -> Diagnosis:
    """Say whether a posterior can be believed, where it is wrong and what to try next.

    For a guide: Pareto k-hat (joint or per cell of the local plates, and per latent site),
    effective sample size, bounds and estimates of the log evidence, the shift of every parameter's
    mean and standard deviation against the weighted draws, error bounds where the theory gives
    them, a test by the kernelised Stein discrepancy, the modes that a search from other starts
    finds with the mass the guide gives them, and whether the loss had settled. For Markov chains:
    R-hat, effective sample size and divergences. The rules behind the word are those of
    ``verdict``, and behind the advice those of ``advice``.

    What cannot be computed is left out, and ``notes`` says why. Nothing of the fit, the param store
    or the random state is changed.

    Args:
        source: what ``fit`` returned, a pair (model, guide), a ``pyro.infer.SVI``, or a
            ``pyro.infer.MCMC`` that has run.
        args: positional arguments of model and guide: for a pair or an ``SVI``, and the full data
            where the fit saw minibatches.
        kwargs: keyword arguments likewise.
        num_samples: draws S from the guide.
        seed: of the draws.
        log_evidence: the exact log evidence, where it is known.
        opinion: what ``second_opinion`` found for this model, if it is there already.
        num_starts: of the search for modes that the guide may have missed; 0 for none. It takes
            seconds, and is made for at most 50 unconstrained coordinates.

    Returns:
        A ``Diagnosis``, which prints as a table.

    Raises:
        InvalidArgument: for fewer than 100 draws, for draws or weights that are not numbers, for a
            source that is no finished inference, and for arguments that model or guide cannot be
            called with: a pair or an ``SVI`` does not know its data.
        ModelGuideMismatch, UnsupportedStructure: as training would, for instance when the data
            have another shape than those the guide was fitted to.

    Source: Yao, Vehtari, Simpson and Gelman (2018); Vehtari, Simpson, Gelman, Yao and Gabry (2024);
        for the single diagnostics see ``pyro_klmodes.diagnostics``.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> def guide():
        ...     pyro.sample("z", dist.Normal(0.0, 0.3))
        >>> diagnose((model, model)).verdict.word, diagnose((model, guide)).verdict.word
        ('reliable', 'far off')
    """
    if (
        isinstance(num_samples, bool)
        or not isinstance(num_samples, int)
        or num_samples < FEWEST_DRAWS
    ):
        raise InvalidArgument(
            f"num_samples={num_samples!r} must be an integer of at least {FEWEST_DRAWS}: fewer "
            "draws say nothing about a tail. Take 4000."
        )
    posterior = as_posterior(source, args=args, kwargs=kwargs)
    if isinstance(posterior, Chains):
        return diagnose_chains(posterior)
    return diagnose_guide(
        posterior,
        num_samples=num_samples,
        seed=seed,
        log_evidence=log_evidence,
        opinion=opinion,
        num_starts=num_starts,
    )
