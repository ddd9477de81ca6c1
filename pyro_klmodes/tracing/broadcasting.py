"""What particles can share: compare a run of all, or a mapped one, with single runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from pyro import poutine
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, NoDensity, NonFiniteLoss, UnsupportedStructure
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.enumeration import model_terms_summed
from pyro_klmodes.tracing.layout import Layout, Sharing
from pyro_klmodes.tracing.over_particles import NotMapped
from pyro_klmodes.tracing.particles import Single
from pyro_klmodes.tracing.runs import Pair, run_model
from pyro_klmodes.tracing.sampling import sample
from pyro_klmodes.tracing.terms import Term, model_terms

__all__ = ["rounding", "what_is_shared"]

#: enough for both sides of a branch on a latent value to be seen
_PARTICLES = 8
#: how often values are moved, by how many rounding errors at most, and how much more than that
#: the order of sums may change
_NUDGES, _FURTHEST, _MORE = 8, 4, 4.0
_NAMES = {"run": "a vectorised run", "map": "a mapped run"}


@dataclass(frozen=True)
class Shared:
    """What particles can share, and why it is not more.

    Attributes:
        sharing: see ``Layout``.
        reason: why particles are run one after the other, None if they are not.
        independent: what was found out about that on the way, see ``Layout``.
    """

    sharing: Sharing
    reason: str | None = None
    independent: frozenset[str] | None = None


def what_is_shared(
    pair: Pair,
    layout: Layout,
) -> Shared:
    """Whether one run of all particles gives what single runs give, or else a mapped one does.

    Raises:
        UnsupportedStructure, NonFiniteLoss, InvalidArgument: if single runs do not work either.
    """
    with poutine.block(), torch.no_grad():
        found = replace(layout, sharing="run")
        reason = _why_not(pair, found)
        if reason is None or pair.messenger is not None:
            sharing: Sharing = "run" if reason is None else "none"
            return Shared(sharing, reason, found.independent)
        found = replace(layout, sharing="map")
        why_not_mapped = _why_not(pair, found)
    if why_not_mapped is None:
        return Shared("map", None, found.independent)
    return Shared("none", f"{reason}, and torch.func.vmap cannot do that for it: {why_not_mapped}")


def _why_not(pair: Pair, layout: Layout) -> str | None:
    """None if many particles get what single runs give, else what went wrong."""
    try:
        many = sample(pair, layout, _PARTICLES, linear=True)
    except NotMapped as error:
        return str(error)
    except (UnsupportedStructure, NonFiniteLoss):
        raise
    except InvalidArgument as error:  # a value outside of the support, or only of that shape
        for _ in range(_PARTICLES):
            sample(pair, replace(layout, sharing="none"), 1, linear=True)
        return f"the model or guide does not broadcast ({error})"
    except Exception as error:  # whatever a model does with a batch it did not expect
        return f"the model or guide does not broadcast ({type(error).__name__}: {error})"
    for k in range(_PARTICLES):
        one = _single_run(pair, layout, many, k)
        if k == 0 and not _same(one, _single_run(pair, layout, many, k)):
            # random beyond its latent sites: there is nothing to compare, and a map has one number
            # for all particles where a loop has many
            return None if layout.sharing == "run" else "it draws random numbers of its own"
        shared = _log_probs(many.terms, k, -1 - layout.nesting)
        if not _same(one, shared) and not _same(
            one, shared, _sensitivity(pair, layout, many, k, one)
        ):
            return f"{_NAMES[layout.sharing]} gives other log-probabilities than single runs"
    return None


def _single_run(
    pair: Pair, layout: Layout, many: Draws, k: int, nudge: int | None = None
) -> dict[str, Tensor]:
    """Log-probabilities of a run of its own at the values of particle k, or next to them."""
    values = {n: v[k] for n, v in many.values.items()}
    if nudge is not None:
        values = {n: _nudged(v, nudge) for n, v in values.items()}
    drawn = {n: values[n] for n in many.sources}
    try:
        one = sample(pair, layout, 1, linear=True, fixed={**drawn, **many.indices})
    except NoDensity:  # a flow without an inverse; the model can be compared all the same
        everything = {**values, **many.indices}
        trace = run_model(
            pair, Single(layout.nesting), everything, enumerated=bool(layout.enumerated)
        )
        terms = (model_terms_summed if layout.enumerated else model_terms)(trace)
        return _log_probs([("model", t) for t in terms])
    return _log_probs(one.terms)


def _log_probs(
    terms: Iterable[tuple[str, Term]], k: int = 0, particle_dim: int = 0
) -> dict[str, Tensor]:
    """Log-probabilities of particle k, element by element: in a sum small differences would hide.

    Those of a single run have no particle dimension.
    """
    return {
        f"{where} {t.name} {i}": t.log_prob.select(particle_dim, k)
        if particle_dim and t.log_prob.dim() >= -particle_dim
        else t.log_prob
        for i, (where, t) in enumerate(terms)  # the model's come first; names may repeat
    }


def _sensitivity(
    pair: Pair, layout: Layout, many: Draws, k: int, one: dict[str, Tensor]
) -> dict[str, Tensor]:
    """How much a few rounding errors in the values change the log-probabilities of particle k.

    The density of a nearly singular covariance has that many digits and no more. Where particles
    are mixed up a term changes by more than that, unless it says nothing at all.
    """
    changes = {name: torch.zeros_like(x) for name, x in one.items()}
    for nudge in range(_NUDGES):
        try:
            near = _single_run(pair, layout, many, k, nudge)
        except Exception:  # a value that has left its support
            continue
        for name, x in one.items():
            if name in near and near[name].shape == x.shape:
                change = (near[name] - x).abs().nan_to_num(nan=0.0, posinf=0.0)
                changes[name] = torch.maximum(changes[name], _MORE * change)
    return changes


def _nudged(value: Tensor, seed: int) -> Tensor:
    """Every number up or down by a few rounding errors; whole ones, as counts, stay."""
    if not value.is_floating_point():
        return value
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(1, _FURTHEST + 1, value.shape, generator=generator)
    signs = 2 * torch.randint(2, value.shape, generator=generator) - 1
    moved = value * (1 + torch.finfo(value.dtype).eps * (signs * steps).to(value))
    return torch.where(value == value.round(), value, moved)


def _same(
    one: dict[str, Tensor],
    other: dict[str, Tensor],
    slack: dict[str, Tensor] | None = None,
) -> bool:
    """Whether the terms of one are terms of the other, up to rounding and some slack."""
    return all(
        name in other
        and other[name].numel() == x.numel()
        and _close(other[name].reshape(x.shape), x, 0.0 if slack is None else slack[name])
        for name, x in one.items()
    )


def _close(other: Tensor, x: Tensor, slack: Tensor | float) -> bool:
    apart = (other - x).abs()
    close = apart.isfinite() & (apart <= 1e-3 + rounding(x) * x.abs() + slack)
    return bool((close | (other == x) | (other.isnan() & x.isnan())).all())


def rounding(x: Tensor) -> float:
    """The relative error that adding in another order may make, and mixing up particles may not."""
    dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    return 300 * torch.finfo(dtype).eps
