"""What must hold before a guide can learn from dreams: found out once for a pair."""

from __future__ import annotations

from dataclasses import replace

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from pyro.util import get_rng_state, set_rng_state
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.tracing.arguments import described, tensors_in
from pyro_klmodes.tracing.binding import Bind
from pyro_klmodes.tracing.dream import Dream, dream
from pyro_klmodes.tracing.guide_inverse import name_of
from pyro_klmodes.tracing.particles import Single
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import Pair, run_model
from pyro_klmodes.tracing.sleep import Rebind, asleep_of, score, slots_of

__all__ = ["check_binding"]


@same_random_state()
@poutine.block()
def check_binding(pair: Pair, bind: Bind | Rebind) -> None:
    """Refuse a pair that cannot learn from dreams as they are bound.

    Called with the simulated data in the place of its own, the model must observe them, under the
    distributions that they were drawn from. And the density of the guide must depend on them: it
    does if their gradient exists, also where that is zero for now; or, for data without gradients,
    if the density of the same latents is another one given other data.

    Raises:
        InvalidArgument: if the model observes something else, naming the site; or if the guide
            ignores its data, naming the guide.
        UnsupportedStructure: if the likelihood or the prior reads the data, naming the site.
    """
    first = dream(pair)
    if not callable(bind):
        _refuse_copies(pair, first, bind)
    with torch.no_grad():
        _check_model(pair, asleep_of(pair, first, bind), first)
    leaves = {n: x.clone().requires_grad_(x.is_floating_point()) for n, x in first.data.items()}
    state = get_rng_state()  # a guide with random parts of its own is to be compared at the same
    with torch.enable_grad():
        density = score(asleep_of(pair, replace(first, data=leaves), bind), first)
        inputs = [x for x in leaves.values() if x.requires_grad]
        if density.requires_grad and inputs:
            found = torch.autograd.grad(density, inputs, allow_unused=True)
            if any(g is not None for g in found):
                return
    with torch.no_grad():
        others = [dream(pair) for _ in range(2)]
        densities = []
        for other in others:
            set_rng_state(state)
            densities.append(score(asleep_of(pair, other, bind), first))
    if all(torch.equal(d, density.detach()) for d in densities):
        raise InvalidArgument(
            f"sleep: guide {name_of(pair.guide)} ignores the simulated data of "
            f"{', '.join(repr(site) for site in first.data)}: its density of the same latents is "
            "the same whatever the data, so that sleep would teach it the prior. Use a guide that "
            "reads its data from the arguments (an encoder, AutoAmortized); say by bind= where it "
            "reads them; or use the wake phases only (sleep_phi=0)."
        )


def _refuse_copies(pair: Pair, dreamt: Dream, bind: Bind) -> None:
    """An argument with the same numbers in another order would stay real in sleep."""
    slots = slots_of(pair, dreamt, bind)
    bound = {slot.path for found in slots.values() for slot in found}
    for site, found in slots.items():
        arguments = dict(tensors_in(pair.args, pair.kwargs))
        numbers = arguments[found[0].path].flatten().sort().values
        for path, x in arguments.items():
            if path in bound or x.numel() != numbers.numel() or x.dtype != numbers.dtype:
                continue
            if x.numel() > 1 and torch.equal(x.flatten().sort().values, numbers):
                raise InvalidArgument(
                    f"sleep: {described(path)} holds the data of site '{site}' in another order, "
                    "and would show the guide the real ones. Pass bind=, a function "
                    "bind(data, *args, **kwargs) that returns the arguments of a call with the "
                    "simulated data in both."
                )


def _check_model(pair: Pair, asleep: Pair, dreamt: Dream) -> None:
    """The model itself, called with the simulated data."""
    at = {**dreamt.indices, **dreamt.latents}
    again = run_model(asleep, Single(), at, enumerated=False)
    for site, value in dreamt.data.items():
        seen = again.nodes[site]["value"] if site in again.nodes else None
        if seen is None or seen.shape != value.shape or not _same(seen, value):
            raise InvalidArgument(
                f"sleep: called with the simulated data of '{site}' in the place of its own, the "
                "model observes something else there: it transforms or reorders the argument. "
                "Transform the data before they are passed, or pass bind=, a function "
                "bind(data, *args, **kwargs) that returns the arguments of a call with these data."
            )
    if not _log_probs_agree(again, run_model(asleep, Single(), at, enumerated=False)):
        return  # random beyond its sites: there is nothing to compare
    for name, site in dreamt.trace.nodes.items():
        if site["type"] == "sample" and name in again.nodes and not site_is_subsample(site):
            drawn_from, now = (
                n["fn"].log_prob(again.nodes[name]["value"]) for n in (site, again.nodes[name])
            )
            if not _same(drawn_from, now):
                raise UnsupportedStructure(
                    f"sleep: the distribution of site '{name}' depends on the data themselves, and "
                    "not only on latents, so that one run with the real data does not simulate "
                    "the model. Use the wake phases only (sleep_phi=0)."
                )


def _log_probs_agree(one: Trace, other: Trace) -> bool:
    return all(
        _same(s["fn"].log_prob(s["value"]), other.nodes[n]["fn"].log_prob(s["value"]))
        for n, s in one.nodes.items()
        if s["type"] == "sample" and not site_is_subsample(s) and n in other.nodes
    )


def _same(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or not one.is_floating_point():
        return torch.equal(one, other.to(one.dtype))
    precision = 300 * torch.finfo(one.dtype).eps
    return torch.allclose(one, other, rtol=precision, atol=precision, equal_nan=True)
