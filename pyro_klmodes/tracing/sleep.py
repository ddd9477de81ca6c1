"""The sleep phase: a guide's density of simulated latents, given the data they made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, ModelGuideMismatch, NonFiniteLoss
from pyro_klmodes.tracing.binding import Bind, find_slots, rebound
from pyro_klmodes.tracing.dream import Dream, dream
from pyro_klmodes.tracing.guide_inverse import GuideInverse, name_of
from pyro_klmodes.tracing.handlers import is_delta, is_latent
from pyro_klmodes.tracing.observed import parameter_names
from pyro_klmodes.tracing.particles import Single
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import Pair, run_guide
from pyro_klmodes.tracing.terms import guide_terms

__all__ = ["Rebind", "check_sees_data", "sleep_log_density"]

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
    return _score(_rebound(pair, dreamt, bind), dreamt)


@same_random_state()
@poutine.block()
def check_sees_data(pair: Pair, bind: Bind | Rebind) -> None:
    """Refuse a guide whose density does not depend on the simulated data.

    It depends on them if their gradient exists, also where that is zero for now; or, for data
    without gradients, if the density of the same latents is another one given other data.

    Raises:
        InvalidArgument: naming the guide.
    """
    first = dream(pair)
    leaves = {n: x.clone().requires_grad_(x.is_floating_point()) for n, x in first.data.items()}
    with torch.enable_grad():
        density = _score(_rebound(pair, replace(first, data=leaves), bind), first)
        inputs = [x for x in leaves.values() if x.requires_grad]
        if density.requires_grad and inputs:
            found = torch.autograd.grad(density, inputs, allow_unused=True)
            if any(g is not None for g in found):
                return
    with torch.no_grad():
        others = (dream(pair) for _ in range(2))
        densities = [_score(_rebound(pair, other, bind), first) for other in others]
    if all(torch.equal(d, density.detach()) for d in densities):
        raise InvalidArgument(
            f"sleep: guide {name_of(pair.guide)} ignores the simulated data of "
            f"{', '.join(repr(site) for site in first.data)}: its density of the same latents is "
            "the same whatever the data, so that sleep would teach it the prior. Use a guide that "
            "reads its data from the arguments (an encoder, AutoAmortized); say by bind= where it "
            "reads them; or use the wake phases only (sleep_phi=0)."
        )


def _rebound(pair: Pair, dreamt: Dream, bind: Bind | Rebind) -> Pair:
    """The pair with the simulated data in the place of its own."""
    if callable(bind):
        args, kwargs = bind(dict(dreamt.data), *pair.args, **pair.kwargs)
        return Pair(pair.model, pair.guide, tuple(args), kwargs)
    names = parameter_names(pair.model)
    slots = find_slots(dreamt.observed, pair.args, pair.kwargs, bind, names)
    for site, found in slots.items():
        if not found:
            raise InvalidArgument(
                f"sleep: observed site '{site}' has its data from no argument of the model, so the "
                "guide cannot be given simulated ones. Pass the data as an argument, or say which "
                f'argument they come from by bind={{"{site}": position or name}}.'
            )
    args, kwargs = rebound(pair.args, pair.kwargs, slots, dreamt.data)
    return Pair(pair.model, pair.guide, args, kwargs)


def _score(pair: Pair, dreamt: Dream) -> Tensor:
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
    terms = guide_terms(trace)
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
