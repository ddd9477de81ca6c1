"""Fit every pair of guide and loss to one model and summarise each fit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pyro.infer import Predictive
from pyro.optim import ClippedAdam, PyroOptim
from torch import Tensor

from pyro_klmodes import inference_data
from pyro_klmodes.errors import KLModesWarning, NoDensity
from pyro_klmodes.inference import FitResult, fit
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.model_spec import Moments, Target
from pyro_klmodes.reliability import WeightSummary, summarise_weights
from pyro_klmodes.tracing.visible import without_enumerated

__all__ = ["Failed", "Fitted", "Outcome", "compare"]

LEARNING_RATE, FINAL_SHARE = 0.1, 0.05
# A forward divergence starts with large gradients. Adam's usual average of squares remembers them
# for a thousand steps and hardly moves a full covariance meanwhile; this one forgets in twenty.
MOMENTA = (0.8, 0.95)


@dataclass(frozen=True)
class Fitted:
    """A finished fit: posterior moments, reliability, training curve and its inference data."""

    guide: str
    loss: str
    seconds: float
    weights: WeightSummary
    moments: Mapping[str, Moments]
    training: np.ndarray  # (steps,)
    data: Any
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The pair's name in tables and legends."""
        return f"{self.guide} · {self.loss}"


@dataclass(frozen=True)
class Failed:
    """A fit that could not be done, and why."""

    guide: str
    loss: str
    message: str

    @property
    def label(self) -> str:
        """The pair's name in tables and legends."""
        return f"{self.guide} · {self.loss}"


Outcome = Fitted | Failed


def compare(
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
        One `Fitted` or `Failed` per pair, guides outermost.
    """
    for guide_name, build_guide in guides.items():
        for loss_name, build_loss in losses.items():
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", KLModesWarning)
                    visible = without_enumerated(target.model, target.args, target.kwargs)
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
                    fitted = _summarise(target, guide_name, loss_name, result, num_draws)
                outcome: Outcome = replace(fitted, notes=_notes(caught))
            except Exception as error:
                message = f"{type(error).__name__}: {_one_line(error)}"
                outcome = Failed(guide_name, loss_name, message)
            yield outcome


def _decaying_adam(steps: int) -> PyroOptim:
    """Large steps to get there, small ones to settle; the same for every loss."""
    decay = FINAL_SHARE ** (1 / steps)
    return ClippedAdam({"lr": LEARNING_RATE, "lrd": decay, "betas": MOMENTA})


def _summarise(target: Target, guide: str, loss: str, result: FitResult, num_draws: int) -> Fitted:
    draws = result.draws(num_draws, seed=result.seed)
    # An autoguide has auxiliary sites too, such as the unconstrained vector behind all others.
    latent = {site: draws.values[site] for site in result.sample(1)}
    if all(bool((value == value[0]).all()) for value in latent.values()):
        raise NoDensity(
            f"{guide} draws the same point every time, and a point has no density to weigh draws "
            "by. Choose a guide that is a distribution, for instance AutoNormal."
        )
    values = _with_reference_sites(target, result, latent)
    rest = float(draws.rest)
    weights = summarise_weights(draws.log_w, scale=draws.scale, rest=rest)
    data = inference_data.from_draws(
        values,
        draws.log_p.reshape(num_draws, -1).sum(1) + rest,
        draws.log_q,
        dimensions=inference_data.site_dimensions(result.guide, values),
        attributes={
            "model": target.name,
            "guide": guide,
            "loss": loss,
            "seed": result.seed,
            "steps": result.steps,
            "sampling_time": result.seconds,
            "k_hat": weights.k_hat,
            "effective_draws": weights.effective_draws,
            "log_evidence": weights.log_evidence,
            "log_evidence_error": weights.log_evidence_error,
            "versions": dict(result.versions),
            "inference_library": "pyro_klmodes",
        },
    )
    return Fitted(
        guide=guide,
        loss=loss,
        seconds=result.seconds,
        weights=weights,
        moments={site: _moments(value) for site, value in values.items()},
        training=result.losses.cpu().double().numpy(),
        data=data,
    )


def _with_reference_sites(
    target: Target,
    result: FitResult,
    latent: Mapping[str, Tensor],  # {site: (S, *site_shape)}
) -> dict[str, Tensor]:
    """The draws of the latent sites and of those deterministic sites that have a reference."""
    values = dict(latent)
    missing = [site for site in target.reference if site not in latent]
    if missing:
        given_draws = Predictive(target.model, values, return_sites=missing, parallel=True)
        with result.scope(), seeded(result.seed):
            values |= given_draws(*target.args, **target.kwargs)
    for site, reference in target.reference.items():
        if site not in values:
            raise ValueError(f"the reference names site {site!r}, which the model does not have")
        num_draws, *shape = values[site].shape
        if math.prod(shape) != reference.mean.size:
            raise ValueError(
                f"the reference of site {site!r} has shape {reference.mean.shape}, but the site "
                f"has shape {tuple(shape)}"
            )
        # Predictive keeps axes of size 1 where other sites have plates.
        values[site] = values[site].reshape(num_draws, *reference.mean.shape)
    return values


def _moments(value: Tensor) -> Moments:  # (S, *site_shape)
    value = value.double()
    return Moments(mean=value.mean(0).cpu().numpy(), sd=value.std(0).cpu().numpy())


def _notes(caught: list[warnings.WarningMessage]) -> tuple[str, ...]:
    """The package's own warnings, which belong to this fit; all others go where they would go."""
    for warning in caught:
        if not issubclass(warning.category, KLModesWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    own = (w.message for w in caught if issubclass(w.category, KLModesWarning))
    return tuple(dict.fromkeys(_one_line(message) for message in own))


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
