"""``boost``: grow a mixture one component at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import init_to_median
from pyro.optim import ClippedAdam, PyroOptim
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, NonFiniteLoss
from pyro_klmodes.guides.joint.mixture import Mixture
from pyro_klmodes.guides.joint.modes import FromModes
from pyro_klmodes.guides.joint.radial import Gaussian, RadialLaw
from pyro_klmodes.guides.joint.scales import Diagonal, ScaleStructure
from pyro_klmodes.guides.joint.spread import Spread, Start
from pyro_klmodes.guides.mixture import AutoMixture
from pyro_klmodes.inference.boosting.base import Booster, BoostingDivergence
from pyro_klmodes.inference.boosting.components import copy_row
from pyro_klmodes.inference.boosting.hellinger import Hellinger
from pyro_klmodes.inference.boosting.result import BoostResult, Round
from pyro_klmodes.inference.boosting.search import climb
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.progress import progress_bar
from pyro_klmodes.inference.result import FittedGuide
from pyro_klmodes.inference.target import Target
from pyro_klmodes.inference.versions import versions
from pyro_klmodes.weights import effective_sample_size

__all__ = ["boost"]

_HELLINGER, _DIAGONAL, _GAUSSIAN, _SPREAD = Hellinger(), Diagonal(), Gaussian(), Spread()
#: the learning rate falls to this share of itself
_COOLING = 0.01


def boost(
    model: Callable[..., Any],
    *args: Any,
    num_components: int,
    divergence: BoostingDivergence = _HELLINGER,
    steps: int = 300,
    num_starts: int = 200,
    num_candidates: int = 10,
    num_draws: int = 100,
    scale: ScaleStructure = _DIAGONAL,
    radial: RadialLaw = _GAUSSIAN,
    start: Start | FromModes = _SPREAD,
    init_loc_fn: Callable[[Any], Tensor] = init_to_median,
    init_scale: float = 1.0,
    optim: PyroOptim | None = None,
    seed: int = 0,
    progress: bool = True,
    **kwargs: Any,
) -> BoostResult:
    r"""Grow a mixture over all latents one component at a time.

    For each new component many starts are looked at, stochastic gradients climb from the best few
    of them at once, and the best end is taken; then the weights of all components are found anew.
    Components stay as they were found. What "best" is depends on the divergence, see ``Hellinger``
    and ``KL``. No number of components has to be known beforehand: the bounds in ``history`` tell
    when more bring nothing.

    The result is an ``AutoMixture``, which ``fit`` can train on under any loss. By ``Hellinger`` it
    has up to C (C + 1) / 2 components for ``num_components`` C.

    Runs in a param store of its own, with all random states restored after it; Ctrl-C returns the
    components so far.

    Args:
        model: a Pyro model with continuous latents and no subsampled plate.
        *args: what the model is called with.
        num_components: number C of components.
        divergence: ``Hellinger()`` or ``KL()``.
        steps: gradient steps for each component.
        num_starts: starts that are looked at for each component.
        num_candidates: how many of them are climbed from.
        num_draws: draws of each candidate in a step.
        scale: ``Diagonal()`` or ``Full()``, or ``LowRank(rank)`` by ``KL``.
        radial: ``Gaussian()``, or ``StudentT(df)`` by ``KL``.
        start: where the starts are, see ``AutoMixture``; called anew for each component, with
            ``num_starts``. A radius of the order of the distance between modes lets them be found.
            In many dimensions random points fall where the density is negligible, and
            ``FromModes(radius=...)`` is better.
        init_loc_fn: initial value by site, the centre of the start.
        init_scale: initial standard deviation of every candidate in unconstrained space.
        optim: a Pyro optimizer; Adam by default, with a learning rate that falls from 0.1 by a
            factor of a hundred.
        seed: for torch's, numpy's and Python's generators.
        progress: whether to show a bar with the bound and the effective sample size.
        **kwargs: what the model is called with.

    Returns:
        The fitted ``AutoMixture`` (``guide``), the negated bounds (``losses``), and the weights and
        bounds after every component (``history``).

    Raises:
        InvalidArgument: for arguments out of range, or that the divergence has no closed form for.
        UnsupportedStructure: as ``AutoMixture``; for a model that looks at a minibatch.
        NonFiniteLoss: if no candidate for a component has a finite objective.

    Source: Campbell and Li (2019); Guo et al. (2016); Miller, Foti and Adams (2017); Locatello et
    al. (2018).

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model():
        ...     z = pyro.sample("z", dist.Normal(0.0, 4.0))
        ...     pyro.factor("f", -8.0 * (z.abs() - 3.0) ** 2)
        >>> result = boost(model, num_components=2, start=Spread(4.0), steps=100, progress=False)
        >>> result.guide.num_components  # two squares and a product, whose weight is next to zero
        2
        >>> result.guide.weights().round(decimals=1)
        tensor([0.5000, 0.5000])
    """
    counts = {
        "num_components": num_components,
        "num_starts": num_starts,
        "num_candidates": num_candidates,
        "num_draws": num_draws,
    }
    _check_arguments(counts, steps, divergence, scale, radial)
    began = time.perf_counter()
    history: list[Round] = []
    interrupted = False
    with seeded(seed), pyro.get_param_store().scope():
        shell = AutoMixture(
            model,
            1,
            scale=scale,
            radial=radial,
            init_loc_fn=init_loc_fn,
            init_scale=init_scale,
        )
        with pyro.get_param_store().scope():  # its one component is not wanted
            shell(*args, **kwargs)
            target = Target(shell, args, kwargs)
        if isinstance(start, FromModes) and start.log_density is None:
            start = replace(start, log_density=target)

        def family(components: int, where: Start) -> Mixture:
            return Mixture(
                target.initial,
                num_components=components,
                init_scale=init_scale,
                scale=scale,
                radial=radial,
                start=where,
            )

        booster = divergence.booster(target, family(num_components, _all_at_once))
        watch = _effective_share(booster) if progress else None
        with progress_bar(num_components, watch) as advance:
            try:
                for _ in range(num_components):
                    starts = family(num_starts, start)
                    found = _best(booster, starts, num_draws, num_candidates)
                    candidates = _rows(starts, found, family(len(found), _all_at_once))
                    chosen = optim or _cooling_adam(steps)
                    climb(candidates, lambda c: booster.score(c, num_draws), steps, chosen)
                    (best,) = _best(booster, candidates, divergence.weight_draws, 1)
                    bound = _accepted(booster, candidates, best)
                    history.append(Round(booster.weights.clone(), bound))
                    advance(-bound)
            except KeyboardInterrupt:
                if not history:
                    raise
                interrupted = True
                booster.size, booster.weights = len(history), history[-1].weights
        guide = _with_family(shell, booster.mixture())
        guide_state, params = _registered(guide, args, kwargs)
    return BoostResult(
        guide=FittedGuide(guide, guide_state),
        losses=torch.tensor([-r.bound for r in history], dtype=torch.float64),
        params=params,
        model=model,
        loss=divergence.loss(num_draws),
        args=args,
        kwargs=kwargs,
        seed=seed,
        versions=versions(),
        seconds=time.perf_counter() - began,
        interrupted=interrupted,
        history=tuple(history),
    )


def _check_arguments(
    counts: dict[str, Any],
    steps: Any,
    divergence: Any,
    scale: ScaleStructure,
    radial: RadialLaw,
) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidArgument(f"{name}={value!r} must be a positive integer.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise InvalidArgument(f"steps={steps!r} must be a non-negative integer.")
    if not isinstance(divergence, BoostingDivergence):
        raise InvalidArgument(f"divergence={divergence!r} must be Hellinger() or KL().")
    divergence.check(scale, radial)


def _all_at_once(
    loc: Tensor,  # (D,)
    num_components: int,
    scale: float,
) -> Tensor:  # (C, D)
    """Places that are overwritten when components are found."""
    return loc.expand(num_components, -1)


def _cooling_adam(steps: int) -> PyroOptim:
    return ClippedAdam({"lr": 0.1, "lrd": _COOLING ** (1 / max(steps, 1))})


@torch.no_grad()
def _best(booster: Booster, candidates: Mixture, num_draws: int, count: int) -> list[int]:
    """The candidates of largest gain, at most ``count``."""
    gains = booster.gain(candidates, num_draws)
    gains = gains.nan_to_num(nan=-math.inf, posinf=-math.inf, neginf=-math.inf)
    order = gains.argsort(descending=True, stable=True)
    found = [i for i in order[:count].tolist() if gains[i] > -math.inf]
    if not found:
        raise NonFiniteLoss(
            f"component {booster.size + 1}: the model's log-density is not finite at draws of any "
            "of the candidates. Use a start nearer to the posterior, or a smaller init_scale."
        )
    return found


def _rows(source: Mixture, rows: list[int], target: Mixture) -> Mixture:
    """Some components of one mixture, in another of that size."""
    for i, row in enumerate(rows):
        copy_row(source, row, target, i)
    return target


def _accepted(booster: Booster, candidates: Mixture, best: int) -> float:
    """Add a component and weigh all; the bound."""
    copy_row(candidates, best, booster.bank, booster.size)
    booster.size += 1
    bound = booster.reweigh()
    if not math.isfinite(bound):
        raise NonFiniteLoss(
            f"component {booster.size} has draws where the model's density is zero, so the bound "
            f"is {bound}. By divergence=Hellinger() it is finite there."
        )
    return bound


def _effective_share(booster: Booster) -> Callable[[], float]:
    """Effective sample size of draws of the mixture so far; it leaves random states as they are."""

    @torch.no_grad()
    def look() -> float:
        with seeded(None):
            density = booster.mixture().density()
            draws = density.rsample(torch.Size([1000]))
            return float(
                effective_sample_size(booster.target(draws) - density.log_prob(draws)) / 1e3
            )

    return look


def _with_family(shell: AutoMixture, family: Mixture) -> AutoMixture:
    guide = shell._like(family.num_components)
    # a copy that no other store has seen, so that it can be trained on
    guide.family = family.pruned(keep=family.num_components)
    return guide


def _registered(
    guide: AutoMixture, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The state of a param store with the guide's parameters, and their constrained values."""
    store = pyro.get_param_store()
    with store.scope() as state:
        guide(*args, **kwargs)
        params = {name: store[name].detach().clone() for name in store}
    return state, params
