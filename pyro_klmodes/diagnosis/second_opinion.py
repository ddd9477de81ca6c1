"""What is elsewhere: the evidence from draws that do not come from the guide under suspicion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.diagnosis.population import MOST_COORDINATES, StudentMixture, adapt
from pyro_klmodes.guides.joint.modes import find_modes
from pyro_klmodes.guides.joint.spread import Spread
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.target import Target
from pyro_klmodes.tracing.guide_alone import draw_alone
from pyro_klmodes.weights import pareto_smooth

__all__ = ["SecondOpinion", "opinion_on", "second_opinion"]

# Far enough for a unit that fits the problem, as is a common choice of random starts.
RADIUS = 2.0
# Two ends of one climb differ by what the optimiser leaves, in units of the curvature's scale.
SAME_MODE = 0.5
AT_ONCE = 4000  # vectors that are held against all modes
# Curvatures beyond these are those of a flat density, or of a spike that no optimiser reaches.
LARGEST_VARIANCE, SMALLEST_VARIANCE = 1e2, 1e-8


@dataclass(frozen=True)
class SecondOpinion:
    """The evidence and its modes, found without any guide.

    Attributes:
        modes: local maxima in unconstrained space, the highest first, ``(M, D)``.
        masses: share of the posterior's mass around each of them, ``(M,)``.
        log_evidence: importance-sampling estimate.
        error: its standard error.
        effective_draws: effective sample size of its draws.
        num_draws: how many there were.
        starts: how many searches for a mode were made.
    """

    modes: Tensor
    masses: Tensor
    log_evidence: float
    error: float
    effective_draws: float
    num_draws: int
    starts: int


def second_opinion(
    model: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    num_starts: int = 16,
    num_draws: int = 4000,
    seed: int = 0,
) -> SecondOpinion | None:
    r"""Look for modes from many starts, and estimate the evidence from draws around them.

    A guide that sits on one of several modes has well-behaved weights: nothing in its own draws
    tells what it misses. Here L-BFGS climbs from draws of the prior and from random points around
    the initial values. A mixture r of multivariate Student-t densities with five degrees of
    freedom, one at each mode with the curvature there, proposes draws and is adapted to their
    weights in three rounds (population Monte Carlo; Cappé et al., 2008). New draws from the best
    one give :math:`\log \frac1S \sum_s p(x, z_s) / r(z_s)`, which tends to fall short of the
    evidence where it is wrong. If it is *larger* than what the guide's weights say, the guide
    misses mass.

    Finding no other mode proves nothing: a mode that no start climbs to stays unseen.

    Args:
        model: a Pyro model.
        args: its positional arguments, the full data.
        kwargs: its keyword arguments.
        num_starts: how many climbs.
        num_draws: of every round. Of the best proposal up to 64,000 more are taken, until the
            error of the log evidence is 0.0025, if a model can be evaluated at many at once.
        seed: of all of it; random states are restored.

    Returns:
        None where no mode was found, or there are more than 50 unconstrained coordinates.

    Raises:
        UnsupportedStructure: for latents without a place in unconstrained space, for improper
            priors, and for minibatches.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     z = pyro.sample("z", dist.Normal(0.0, 4.0))
        ...     pyro.factor("f", -8.0 * (z.abs() - 3.0) ** 2)
        >>> found = second_opinion(model)
        >>> sorted(found.modes[:, 0].round().tolist()), found.masses.round(decimals=1).tolist()
        ([-3.0, 3.0], [0.5, 0.5])
    """
    with seeded(seed):
        target = Target.of(model, args, kwargs or {})
    return opinion_on(target, num_starts=num_starts, num_draws=num_draws, seed=seed)


def opinion_on(
    target: Target, *, num_starts: int, num_draws: int = 4000, seed: int
) -> SecondOpinion | None:
    """See ``second_opinion``; its target is at hand."""
    if len(target.initial) > MOST_COORDINATES:
        return None
    with seeded(seed):
        starts = _starts(target, num_starts)
        modes, precisions = _distinct(target, find_modes(target, starts, separation=1e-6))
        if len(modes) == 0:
            return None
        heights = target(modes.to(target.initial)).detach().double()
        proposal = _around(heights, modes, precisions)
        found = adapt(target, proposal, num_draws=num_draws, seed=seed)
        weights = torch.softmax(pareto_smooth(found.log_w)[0], 0)
        nearest = torch.cat(
            [_squared(u, modes, precisions).argmin(1) for u in found.u.split(AT_ONCE)]
        )
        return SecondOpinion(
            modes=modes,
            masses=torch.zeros(len(modes)).to(weights).index_add(0, nearest, weights),
            log_evidence=found.log_evidence,
            error=found.error,
            effective_draws=found.effective_draws,
            num_draws=len(found.log_w),
            starts=len(starts),
        )


def _starts(target: Target, count: int) -> Tensor:  # (count, D)
    """Half of them from the prior, where one run can draw many, the others around the initial."""
    around = Spread(RADIUS)(target.initial, count, 1.0)
    try:
        prior = draw_alone(target.model, target.args, target.kwargs, max(1, count // 2))
        drawn = target.vectors(prior).to(around)
    except (RuntimeError, ValueError):  # the model does not broadcast over draws
        return around
    usable = drawn[drawn.isfinite().all(1)]
    return torch.cat([usable, around[len(usable) :]])


def _distinct(
    target: Target,
    modes: Tensor,  # (M, D), the highest first
) -> tuple[Tensor, Tensor]:  # (m, D), (m, D, D)
    """Modes that are no two ends of one climb, with the precision there, in double precision."""
    kept: list[Tensor] = []
    precisions: list[Tensor] = []
    for mode in modes:
        if kept:
            apart = _squared(mode[None].double(), torch.stack(kept), torch.stack(precisions))
            if float(apart.min()) <= SAME_MODE**2:
                continue
        kept.append(mode.double())
        precisions.append(_precision(target, mode))
    size = modes.shape[1]
    if not kept:
        return modes.new_zeros((0, size)), modes.new_zeros((0, size, size))
    return torch.stack(kept), torch.stack(precisions)


def _precision(
    target: Target,
    mode: Tensor,  # (D,)
) -> Tensor:  # (D, D)
    """Minus the Hessian, made positive definite: where it is flat or rises, it is nearly flat."""
    hessian = torch.autograd.functional.hessian(lambda u: target(u[None])[0], mode)
    values, vectors = torch.linalg.eigh(-0.5 * (hessian + hessian.T).double().nan_to_num())
    inside = values.abs().clamp(min=1 / LARGEST_VARIANCE, max=1 / SMALLEST_VARIANCE)
    return vectors * inside @ vectors.T


def _squared(
    u: Tensor,  # (S, D)
    modes: Tensor,  # (M, D)
    precisions: Tensor,  # (M, D, D)
) -> Tensor:  # (S, M), squared distances in units of each mode's scale
    apart = u[:, None] - modes
    return torch.einsum("smi,mij,smj->sm", apart, precisions, apart)


def _around(
    heights: Tensor,  # (M,), log-density at the modes
    modes: Tensor,  # (M, D)
    precisions: Tensor,  # (M, D, D)
) -> StudentMixture:
    """Laplace's approximation of every mode; half of the mass is shared out evenly."""
    log_mass = heights - 0.5 * torch.logdet(precisions)
    shares = 0.5 * torch.softmax(log_mass, 0) + 0.5 / len(modes)
    return StudentMixture(shares.log(), modes, torch.linalg.cholesky(torch.linalg.inv(precisions)))
