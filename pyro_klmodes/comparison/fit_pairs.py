"""Fit every pair of guide and loss to one model: what ``klmodes compare`` does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pyro.optim import ClippedAdam, PyroOptim

from pyro_klmodes.comparison.opinions import Opinions
from pyro_klmodes.entries import Failed, Outcome
from pyro_klmodes.entries.summarise import one_line, own_warnings, summarise
from pyro_klmodes.inference import fit
from pyro_klmodes.model_spec import Target
from pyro_klmodes.tracing.visible import without_enumerated

__all__ = ["fit_pairs"]

LEARNING_RATE, FINAL_SHARE = 0.1, 0.05
# A forward divergence starts with large gradients. Adam's usual average of squares remembers them
# for a thousand steps and hardly moves a full covariance meanwhile; this one forgets in twenty.
MOMENTA = (0.8, 0.95)


def fit_pairs(
    target: Target,
    losses: Mapping[str, Callable[[], Any]],
    guides: Mapping[str, Callable[[Callable[..., Any]], Any]],
    *,
    steps: int = 2000,
    seed: int = 0,
    num_draws: int = 4000,
    progress: bool = False,
) -> Iterator[Outcome]:
    """Fit each guide with each loss, one after the other, and yield each outcome when it is there.

    A fit that raises is yielded as `Failed`, with the kind of the error and its message, and the
    rest goes on: a model is the user's, and may raise anything. Sites that the model enumerates are
    hidden from the guides.

    The optimiser is Adam with a learning rate that falls from 0.1 to 0.005 over the steps.

    Args:
        target: The model and what is known about it.
        losses: By name, a function that makes the loss. Each fit gets a loss of its own.
        guides: By name, a function from the model to a guide.
        steps: Optimisation steps of each fit.
        seed: Seed of each fit and of its posterior draws.
        num_draws: Posterior draws S of each fit.
        progress: Whether each fit shows its progress.

    Yields:
        One entry per pair, labelled "guide · loss", guides outermost.
    """
    opinions = Opinions()
    about = (target.model, target.args, target.kwargs)
    for guide_name, build_guide in guides.items():
        for loss_name, build_loss in losses.items():
            label = f"{guide_name} · {loss_name}"
            outcome: Outcome
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    visible = without_enumerated(*about)
                    result = fit(
                        target.model,
                        build_guide(visible),
                        build_loss(),
                        *target.args,
                        steps=steps,
                        optim=_decaying_adam(steps),
                        seed=seed,
                        progress=progress,
                        **target.kwargs,
                    )
                if result.interrupted:
                    raise KeyboardInterrupt  # comparing with half a fit says nothing
                fitted = summarise(
                    label,
                    result,
                    num_samples=num_draws,
                    seed=seed,
                    log_evidence=target.log_evidence,
                    guide=guide_name,
                    loss=loss_name,
                    **opinions.of(*about),
                )
                target.known.check({site: m.mean.shape for site, m in fitted.moments.items()})
                notes = dict.fromkeys([*own_warnings(caught), *fitted.notes])
                outcome = replace(fitted, notes=tuple(notes))
            except Exception as error:
                message = f"{type(error).__name__}: {one_line(error)}"
                outcome = Failed(label, message, guide_name, loss_name)
            opinions.remember(*about, outcome)
            yield outcome


def _decaying_adam(steps: int) -> PyroOptim:
    """Large steps to get there, small ones to settle; the same for every loss."""
    decay = FINAL_SHARE ** (1 / steps)
    return ClippedAdam({"lr": LEARNING_RATE, "lrd": decay, "betas": MOMENTA})
