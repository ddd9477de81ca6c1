"""Laws of guides: a true density at given values, and no surprises when copied or vectorised."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pyro
import torch

from pyro_klmodes.losses import IWAE, ForwardKL, ReverseKL
from pyro_klmodes.tracing import draws, log_density
from pyro_klmodes.weights import effective_sample_size, log_evidence

__all__ = ["GUIDE_LAWS", "assert_integrates_to_one"]

Model = Callable[..., Any]
Guide = Callable[..., Any]


def density_matches_own_draws(model: Model, guide: Guide) -> None:
    """``log_density`` at the guide's own draws is the density they were drawn with."""
    drawn = draws(model, guide, num_particles=20)
    values = {n: v for n, v in drawn.values.items() if n in _latents(model, guide)}
    log_q = drawn.log_q.reshape(20, -1).sum(1)
    torch.testing.assert_close(log_density(guide, values).detach(), log_q, rtol=1e-4, atol=1e-4)


def density_is_differentiable(model: Model, guide: Guide) -> None:
    """At fixed values the density has a gradient in the guide's parameters."""
    drawn = draws(model, guide, num_particles=5)
    values = {n: v for n, v in drawn.values.items() if n in _latents(model, guide)}
    total = log_density(guide, values).sum()
    parameters = [p for _, p in pyro.get_param_store().named_parameters()]
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    assert any(g is not None and bool((g != 0).any()) for g in gradients)


def works_with_losses(model: Model, guide: Guide) -> None:
    """Losses of every kind give a finite value, all particles in one run."""
    for loss in (ReverseKL(4), IWAE(4), ForwardKL(4)):
        assert math.isfinite(loss.loss_and_grads(model, guide))


def survives_a_deep_copy(model: Model, guide: Guide) -> None:
    """A copy has the same density."""
    drawn = draws(model, guide, num_particles=5)
    values = {n: v for n, v in drawn.values.items() if n in _latents(model, guide)}
    expected = log_density(guide, values)
    torch.testing.assert_close(log_density(copy.deepcopy(guide), values), expected)


def assert_integrates_to_one(
    model: Model,
    guide: Guide,
    *,
    num_draws: int = 20_000,
    z: float = 4.0,
) -> None:
    """The guide's density integrates to one, by importance sampling from the model's prior.

    ``model`` must be a prior without observations, wide enough to cover the guide: the estimate of
    the integral must be within z standard errors of one, with an effective sample size of at
    least a hundred.
    """
    prior = draws(model, model, num_particles=num_draws)
    values = {n: v for n, v in prior.values.items() if n in _latents(model, guide)}
    log_ratio = log_density(guide, values).detach() - prior.log_q.reshape(num_draws, -1).sum(1)
    assert float(effective_sample_size(log_ratio)) >= 100, "the prior does not cover the guide"
    estimate, error = (float(x) for x in log_evidence(log_ratio))
    assert abs(estimate) <= z * error, f"log integral {estimate:.4f} with error {error:.4f}"


def _latents(model: Model, guide: Guide) -> set[str]:
    own = draws(model, guide, num_particles=1).terms
    model_sites = {t.name for where, t in own if where == "model" and t.latent}
    return model_sites & {t.name for where, t in own if where == "guide"}


GUIDE_LAWS: tuple[Callable[[Model, Guide], None], ...] = (
    density_matches_own_draws,
    density_is_differentiable,
    works_with_losses,
    survives_a_deep_copy,
)
