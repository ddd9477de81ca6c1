"""The sleep phase: a guide's density of simulated latents, given the data they made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pyro_klmodes.errors import (
    InvalidArgument,
    ModelGuideMismatch,
    NonFiniteLoss,
    UnsupportedStructure,
)
from pyro_klmodes.tracing.binding import Bind, Slot, find_slots, rebound
from pyro_klmodes.tracing.dream import Dream, dream
from pyro_klmodes.tracing.guide_inverse import GuideInverse
from pyro_klmodes.tracing.handlers import is_delta, is_latent
from pyro_klmodes.tracing.observed import parameter_names
from pyro_klmodes.tracing.particles import Single
from pyro_klmodes.tracing.plates import plates_of
from pyro_klmodes.tracing.runs import Pair, run_guide
from pyro_klmodes.tracing.terms import guide_terms

__all__ = ["Rebind", "asleep_of", "score", "sleep_log_density", "slots_of"]

#: from simulated data by site, and the arguments of a call, to the arguments of another
Rebind = Callable[..., tuple[Sequence[Any], dict[str, Any]]]


def sleep_log_density(pair: Pair, bind: Bind | Rebind) -> Tensor:
    """Scalar ``log q(z | x)`` of one simulation ``(z, x)``, with the graph of the guide.

    Minibatches count as often as the data they stand for.

    Raises:
        InvalidArgument: if an observed site cannot be bound to an argument.
        ModelGuideMismatch: if the guide draws what the model does not know.
        NoDensity: if the guide has no density at given values.
        NonFiniteLoss: naming the site, if the density is zero or not a number.
        UnsupportedStructure, NotDefined: see ``dream``.
    """
    dreamt = dream(pair)
    return score(asleep_of(pair, dreamt, bind), dreamt)


def asleep_of(pair: Pair, dreamt: Dream, bind: Bind | Rebind) -> Pair:
    """The pair with the simulated data in the place of its own."""
    if callable(bind):
        call = bind(dict(dreamt.data), *pair.args, **pair.kwargs)
        match call:
            case (tuple() | list() as args, dict() as kwargs):
                return Pair(pair.model, pair.guide, tuple(args), kwargs)
        raise InvalidArgument(
            "bind=: the function must return a pair, the positional arguments as a tuple and the "
            f"others as a dict, for instance ((x,), {{}}); it returned {type(call).__name__}."
        )
    slots = slots_of(pair, dreamt, bind)
    args, kwargs = rebound(pair.args, pair.kwargs, slots, dreamt.data)
    return Pair(pair.model, pair.guide, args, kwargs)


def slots_of(pair: Pair, dreamt: Dream, bind: Bind) -> dict[str, tuple[Slot, ...]]:
    """Where the observed sites have their data from, all of them.

    Raises:
        InvalidArgument: naming a site whose data are not among the arguments.
        UnsupportedStructure: for minibatches that cannot be written in the place of real ones.
    """
    names = parameter_names(pair.model)
    slots = find_slots(dreamt.observed, pair.args, pair.kwargs, bind, names)
    for site, found in slots.items():
        if not found:
            raise InvalidArgument(
                f"sleep: observed site '{site}' has its data from no argument of the model, so the "
                "guide cannot be given simulated ones. Pass the data as an argument; or bind=, a "
                "function bind(data, *args, **kwargs) that returns the arguments of a call with "
                "the simulated data."
            )
        _check_rows(site, found, dreamt)
    return slots


def _check_rows(site: str, slots: Sequence[Slot], dreamt: Dream) -> None:
    """A minibatch must be written as it is read, and be all that the latents depend on."""
    seen = dreamt.observed[site]
    if not any(slot.rows for slot in slots):
        return
    for plate, index in seen.indices.items():
        if index.unique().numel() < index.numel():
            raise UnsupportedStructure(
                f"sleep: the minibatch of plate '{plate}' has an element twice, which cannot have "
                "two simulated values. Draw minibatches without replacement."
            )
    for plate in sorted(seen.subsampled):
        for name in dreamt.latents:
            if plate not in plates_of(dreamt.trace.nodes[name]):
                raise UnsupportedStructure(
                    f"sleep: latent site '{name}' is outside of subsampled plate '{plate}', and a "
                    "guide that reads all data would see real ones beside the simulated. Use the "
                    "full data, or the wake phases only (sleep_phi=0)."
                )


def score(pair: Pair, dreamt: Dream) -> Tensor:
    """Scalar log-density of the guide, called as the pair says, at the latents of a dream."""
    at = {**dreamt.indices, **dreamt.latents}
    trace = run_guide(pair, Single(), at, detach=False).trace
    drawn = {n: s for n, s in trace.nodes.items() if is_latent(s)}
    if any(n not in at or is_delta(s["fn"]) for n, s in drawn.items()):
        # what the guide really draws must follow from the latents
        inverse = GuideInverse.of(pair, dreamt.supports)
        unknown = inverse.undetermined(dreamt.latents)
        if unknown:
            raise ModelGuideMismatch(
                f"sleep: guide site '{unknown[0]}' is no latent site of the model, so that "
                "simulations say nothing about it. Use the wake phases only (sleep_phi=0)."
            )
        at = inverse(at, None, inverse.nesting)
        trace = run_guide(pair, Single(), at, detach=False).trace
    terms = guide_terms(trace, model=dreamt.trace)
    total: Any = 0.0
    for term in terms:
        log_prob = term.log_prob.sum() * math.prod(term.ratios.values())
        if not math.isfinite(float(log_prob.detach())):
            raise NonFiniteLoss(
                f"sleep: the guide's density at site '{term.name}' is zero or nan at simulated "
                "latents. The guide must be positive wherever the prior is; check also that the "
                "simulated data are on the scale that the guide expects."
            )
        total = total + log_prob
    if not isinstance(total, Tensor):
        raise ModelGuideMismatch("sleep: the guide draws no latent site.")
    return total
