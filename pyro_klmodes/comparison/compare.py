"""``compare``: several inferences of one model side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyro_klmodes.comparison.opinions import Opinions
from pyro_klmodes.comparison.result import Comparison
from pyro_klmodes.diagnosis.diagnose import FEWEST_DRAWS
from pyro_klmodes.entries import Failed, Fitted, Outcome, Reference, Settings
from pyro_klmodes.entries.summarise import one_line, outcome_of
from pyro_klmodes.errors import InvalidArgument, KLModesError
from pyro_klmodes.posteriors import Chains, Posterior, as_posterior

__all__ = ["compare"]


def compare(
    fits: Mapping[str, Any],
    *,
    reference: Any = None,
    log_evidence: float | None = None,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    num_samples: int = 4000,
    seed: int = 0,
    name: str = "Comparison",
) -> Comparison:
    """Put several inferences side by side: which to believe, what they miss and what they cost.

    Every fit is diagnosed as by `diagnose` and converted as by `to_arviz`. The search for modes
    that a guide may have missed is made once per model and shared by all of its fits. Per parameter
    the table has mean and standard deviation of the fit's own draws, those of the weighted draws
    where they can be believed, and against the reference

        z-shift = (mean - reference mean) / reference sd,    sd ratio = sd / reference sd.

    A fit that cannot be diagnosed or converted becomes `Failed` with its message, and the rest goes
    on. Sites that not all fits have, as after a change of parametrisation, are left out of the
    table of parameters, and named.

    Args:
        fits: By label, whatever `as_posterior` takes: what ``fit`` returned, a pair (model, guide),
            a ``pyro.infer.SVI``, or a ``pyro.infer.MCMC`` that has run.
        reference: What to hold the fits against: the label of one of them, whose moments are then
            the reference; a dictionary from site to (mean, sd); or an object with ``reference``
            (such a dictionary) and ``log_evidence``.
        log_evidence: The exact log evidence, where it is known.
        args: Positional arguments of models and guides, for those that do not remember theirs (a
            pair, an ``SVI``) or saw minibatches.
        kwargs: Keyword arguments likewise.
        num_samples: Posterior draws of each guide, at least 100.
        seed: Of the draws.
        name: What to call the comparison on its page.

    Returns:
        A `Comparison`, which prints as a table.

    Raises:
        InvalidArgument: If there are no fits, a label is no text, the reference is the label of no
            fit or of one that failed, names a site that no fit has, or has another shape than the
            site.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> def narrow():
        ...     pyro.sample("z", dist.Normal(0.0, 0.5))
        >>> found = compare({"exact": (model, model), "narrow": (model, narrow)},
        ...                 reference={"z": (0.0, 1.0)}, log_evidence=0.0)
        >>> found.parameters()["sd_ratio"].round(1).to_dict()
        {('z', 'exact'): 1.0, ('z', 'narrow'): 0.5}
    """
    labels = _checked_labels(fits)
    if isinstance(num_samples, bool) or not isinstance(num_samples, int):
        raise InvalidArgument(f"num_samples={num_samples!r} must be an integer")
    if num_samples < FEWEST_DRAWS:
        raise InvalidArgument(f"num_samples={num_samples} must be at least {FEWEST_DRAWS}")
    standard = Reference.of(reference, labels, log_evidence)
    opinions, outcomes = Opinions(), dict[str, Outcome]()
    # Chains come last: they are counted around the modes that a guide's diagnosis found.
    posteriors = {label: _recognised(source, args, kwargs) for label, source in fits.items()}
    for label in sorted(labels, key=lambda label: isinstance(posteriors[label], Chains)):
        posterior = posteriors[label]
        if isinstance(posterior, Failed):
            outcomes[label] = Failed(label, posterior.message)
            continue
        about = (posterior.model, posterior.args, posterior.kwargs)
        outcomes[label] = outcome_of(
            label,
            fits[label],
            args=args,
            kwargs=kwargs,
            num_samples=num_samples,
            seed=seed,
            log_evidence=standard.log_evidence,
            **opinions.of(*about),
        )
        opinions.remember(*about, outcomes[label])
    return Comparison(
        tuple(outcomes[label] for label in labels),
        _completed(standard, outcomes),
        name=name,
        settings=Settings(num_draws=num_samples, seed=seed),
    )


def _checked_labels(fits: Mapping[str, Any]) -> list[str]:
    if not isinstance(fits, Mapping):
        raise InvalidArgument(
            f"fits is of type {type(fits).__name__}; pass a dictionary from label to fit, as in "
            "compare({'reverse': first, 'forward': second})"
        )
    if not fits:
        raise InvalidArgument("there are no fits to compare; pass at least one, with its label")
    for label in fits:
        if not isinstance(label, str) or not label.strip():
            raise InvalidArgument(f"the label {label!r} must be a text that is not empty")
    return list(fits)


def _recognised(source: Any, args: Any, kwargs: Any) -> Posterior | Failed:
    try:
        return as_posterior(source, args=args, kwargs=kwargs)
    except KLModesError as error:
        return Failed("", f"{type(error).__name__}: {one_line(error)}")


def _completed(standard: Reference, outcomes: Mapping[str, Outcome]) -> Reference:
    """The reference with the moments of the fit it names, checked against the sites of the fits."""
    if standard.label is not None:
        named = outcomes[standard.label]
        if isinstance(named, Failed):
            raise InvalidArgument(
                f"the reference, fit {named.label!r}, failed: {named.message}; choose another one"
            )
        return standard.with_moments(named.moments)
    shapes: dict[str, tuple[int, ...]] = {}
    for outcome in outcomes.values():
        if isinstance(outcome, Fitted):
            shapes |= {site: found.mean.shape for site, found in outcome.moments.items()}
    if shapes:
        standard.check(shapes)
    return standard
