"""From one finished inference to its entry in a comparison."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pyro_klmodes import inference_data
from pyro_klmodes.conversion import to_arviz
from pyro_klmodes.diagnosis import Diagnosis, diagnose
from pyro_klmodes.diagnosis.second_opinion import SecondOpinion
from pyro_klmodes.entries.chain_coverage import chain_coverage
from pyro_klmodes.entries.costs import gradient_evaluations
from pyro_klmodes.entries.entry import USABLE, Failed, Fitted, Outcome
from pyro_klmodes.entries.leave_one_out import leave_one_out
from pyro_klmodes.entries.moments import Moments
from pyro_klmodes.entries.recipe import Recipe
from pyro_klmodes.errors import KLModesError, KLModesWarning
from pyro_klmodes.posteriors import Chains, Posterior, as_posterior
from pyro_klmodes.tracing.simulate import learned_names

__all__ = ["one_line", "outcome_of", "own_warnings", "summarise"]

GROUPS = ("posterior", "sample_stats", "log_likelihood", "observed_data", "constant_data")


def outcome_of(label: str, source: Any, **options: Any) -> Outcome:
    """The entry of a fit, or `Failed` with the kind of the error and its message.

    A model is the user's and may raise anything; a comparison goes on with the other fits.
    """
    try:
        return summarise(label, source, **options)
    except Exception as error:
        return Failed(label, f"{type(error).__name__}: {one_line(error)}")


def summarise(
    label: str,
    source: Any,
    *,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    num_samples: int = 4000,
    seed: int = 0,
    log_evidence: float | None = None,
    opinion: SecondOpinion | None = None,
    num_starts: int = 16,
    guide: str | None = None,
    loss: str | None = None,
) -> Fitted:
    """Diagnose a finished inference and convert its draws.

    Args:
        label: What to call it.
        source: Whatever `as_posterior` takes.
        args: As in `as_posterior`.
        kwargs: As in `as_posterior`.
        num_samples: Draws of a guide.
        seed: Of the draws.
        log_evidence: The exact one, if it is known.
        opinion: Modes and evidence that were found for this model before.
        num_starts: Of the search for them, 0 for none.
        guide: The guide's name, that of its class by default.
        loss: The loss's name, that of its class by default.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        posterior = as_posterior(source, args=args, kwargs=kwargs)
        diagnosis = _diagnosed(
            posterior,
            num_samples=num_samples,
            seed=seed,
            log_evidence=log_evidence,
            opinion=opinion,
            num_starts=num_starts,
        )
        data, missing = _converted(posterior, num_samples=num_samples, seed=seed)
    elpd, without_loo = leave_one_out(data)
    known = posterior.attributes
    draws = inference_data.site_draws(data)
    notes = [*own_warnings(caught), *diagnosis.notes, *missing]
    return Fitted(
        label=label,
        guide=guide or str(known.get("guide") or known.get("kernel") or "unknown"),
        loss=loss or known.get("loss"),
        diagnosis=diagnosis,
        moments={site: Moments.of_draws(values) for site, values in draws.items()},
        data=data,
        corrected=_corrected(diagnosis),
        seconds=known.get("seconds"),
        gradient_evaluations=gradient_evaluations(source),
        training=_training(posterior),
        loo=elpd,
        without_loo=without_loo,
        notes=tuple(dict.fromkeys(notes)),
        model=posterior.model,
        learns=_learns(posterior),
        recipe=Recipe.of(source),
    )


def _learns(posterior: Posterior) -> bool:
    """Whether the model has parameters of its own."""
    if isinstance(posterior, Chains) or posterior.model is None:
        return False
    with posterior.scope():
        return bool(learned_names(posterior.model, posterior.args, posterior.kwargs))


def one_line(message: object) -> str:
    """A message without line breaks."""
    return " ".join(str(message).split())


def _diagnosed(posterior: Posterior, *, opinion: SecondOpinion | None, **options: Any) -> Diagnosis:
    found = diagnose(posterior, opinion=opinion, **options)
    if not isinstance(posterior, Chains) or opinion is None:
        return found
    return replace(found, opinion=opinion, coverage=chain_coverage(posterior, opinion))


def _converted(posterior: Posterior, **options: Any) -> tuple[Any, tuple[str, ...]]:
    """Inference data, without the log-likelihood where it cannot be had."""
    try:
        return to_arviz(posterior, groups=GROUPS, **options), ()
    except KLModesError as error:
        fewer = [group for group in GROUPS if group != "log_likelihood"]
        data = to_arviz(posterior, groups=fewer, **options)
        return data, (f"no log-likelihood: {one_line(error)}",)


def _corrected(diagnosis: Diagnosis) -> dict[str, Moments]:
    if diagnosis.verdict.word not in USABLE:
        return {}
    return {
        site: Moments.of(found.corrected_mean, found.corrected_sd)
        for site, found in diagnosis.moments.items()
    }


def _training(posterior: Posterior) -> np.ndarray:  # (steps,)
    if isinstance(posterior, Chains):
        return np.empty(0)
    return posterior.losses.detach().cpu().double().numpy()


def own_warnings(caught: list[warnings.WarningMessage]) -> list[str]:
    """The package's own warnings, which belong to this fit; all others go where they would go."""
    for warning in caught:
        if not issubclass(warning.category, KLModesWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return [one_line(w.message) for w in caught if issubclass(w.category, KLModesWarning)]
