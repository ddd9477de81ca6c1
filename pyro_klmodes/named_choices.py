"""What the names of losses and guides on the command line stand for.

The library itself takes losses and guides as objects; names exist here and nowhere below.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pyro.infer import autoguide

from pyro_klmodes import (
    CUBO,
    IWAE,
    FDivergence,
    ForwardKL,
    Renyi,
    ReverseKL,
    ScoreClimbing,
    TailAdaptive,
    Thermodynamic,
    WakeSleep,
    guides,
)
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.model_spec import did_you_mean
from pyro_klmodes.objectives import f_functions

__all__ = ["OWN", "guides_named", "known_guides", "known_losses", "losses_named"]

# Self-normalised weights of a forward divergence mean something with many particles only: with few,
# most of the weight is on one of them and the fit collapses onto it. The others need no more than
# an average.
FEW, MANY = 8, 128
# Pyro starts its guides at a scale of 0.1. From there hardly a draw reaches another mode or a tail,
# and a forward divergence, which learns from draws that do, settles on what is near.
INITIAL_SCALE = 1.0
COMPONENTS = 8  # of a mixture guide
TEMPERATURES = 8  # steps from prior-like to posterior weights in the thermodynamic bound
RENYI = "renyi_"
OWN = "own"
# Base classes, and a list that is filled by hand.
NOT_GUIDES_BY_THEMSELVES = (
    autoguide.AutoContinuous,
    autoguide.AutoGuide,
    autoguide.AutoGuideList,
    autoguide.AutoMessenger,
)


def known_losses() -> dict[str, Callable[[], Any]]:
    """A function that makes the loss, by name; ``renyi_<alpha>`` is there for any alpha besides."""
    return {
        "reverse_kl": partial(ReverseKL, num_particles=FEW),
        "forward_kl": partial(ForwardKL, num_particles=MANY),
        "forward_kl_psis": partial(ForwardKL, num_particles=MANY, weights="psis"),
        "forward_kl_tempered": partial(ForwardKL, num_particles=MANY, weights="tempered"),
        "iwae": partial(IWAE, num_particles=FEW),
        "cubo": partial(CUBO, num_particles=MANY),
        "wake_sleep": partial(WakeSleep, num_particles=FEW),
        "score_climbing": partial(ScoreClimbing, num_particles=FEW),
        "tail_adaptive": partial(TailAdaptive, num_particles=MANY),
        "thermodynamic": partial(Thermodynamic, TEMPERATURES, num_particles=MANY),
        "jensen_shannon": partial(FDivergence, f_functions.jensen_shannon, num_particles=MANY),
        "hellinger": partial(FDivergence, f_functions.hellinger, num_particles=MANY),
        "chi_square": partial(FDivergence, f_functions.chi_square, num_particles=MANY),
    }


def known_guides() -> dict[str, Callable[[Callable[..., Any]], Any]]:
    """Every guide of this package and of Pyro that can be built from a model alone, by name.

    Guides with an ``init_scale`` start at a scale of 1 in the unconstrained space.
    """
    found = {
        name: _wide(guide)
        for library in (autoguide, guides)
        for name, guide in vars(library).items()
        if inspect.isclass(guide) and name.startswith("Auto") and _needs_a_model_only(guide)
    }
    found["AutoMixture"] = partial(guides.AutoMixture, num_components=COMPONENTS)
    return found


def losses_named(names: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """The losses of these names.

    Raises:
        InvalidArgument: If a name is not known, or the alpha of ``renyi_<alpha>`` is not a number.

    Example:
        >>> list(losses_named(["reverse_kl", "renyi_0.5"]))
        ['reverse_kl', 'renyi_0.5']
    """
    known = known_losses()
    renyi = {name: _renyi(name) for name in names if name.startswith(RENYI)}
    return _select("loss", names, known | renyi, [*known, f"{RENYI}<alpha>"])


def guides_named(
    names: Sequence[str], own: Callable[..., Any] | None = None
) -> dict[str, Callable[[Callable[..., Any]], Any]]:
    """The guides of these names; ``own`` is the name of the guide that comes with the model.

    Raises:
        InvalidArgument: If no autoguide has this name, or it needs more than a model.

    Example:
        >>> list(guides_named(["AutoNormal"]))
        ['AutoNormal']
    """
    known = known_guides()
    if own is not None:
        known[OWN] = lambda model: own
    return _select("guide", names, known, list(known))


def _select(
    kind: str, names: Sequence[str], known: Mapping[str, Any], listed: list[str]
) -> dict[str, Any]:
    if not names:
        raise InvalidArgument(f"no {kind} is named; {did_you_mean('', listed)}")
    for name in names:
        if name not in known:
            raise InvalidArgument(f"there is no {kind} {name!r}; {did_you_mean(name, listed)}")
    return {name: known[name] for name in names}


def _renyi(name: str) -> Callable[[], Any]:
    try:
        alpha = float(name.removeprefix(RENYI))
    except ValueError:
        alpha = math.nan
    if not math.isfinite(alpha):
        raise InvalidArgument(f"{name!r}: after {RENYI!r} comes a number alpha, as in renyi_0.5")
    return partial(Renyi, alpha=alpha, num_particles=MANY)


def _wide(guide: type) -> Callable[[Callable[..., Any]], Any]:
    if "init_scale" in inspect.signature(guide).parameters:
        return partial(guide, init_scale=INITIAL_SCALE)
    return guide


def _needs_a_model_only(guide: type) -> bool:
    if guide in NOT_GUIDES_BY_THEMSELVES:
        return False
    if guide is autoguide.AutoGaussian:
        return True  # its signature hides what it passes on
    required = [
        name
        for name, parameter in inspect.signature(guide).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    return required == ["model"]
