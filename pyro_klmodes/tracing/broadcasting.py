"""Whether all particles can share one run: compare a vectorised run with single ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from pyro import poutine
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, NoDensity, NonFiniteLoss, UnsupportedStructure
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.enumeration import model_terms_summed
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.particles import Single
from pyro_klmodes.tracing.runs import Pair, run_model
from pyro_klmodes.tracing.sampling import sample
from pyro_klmodes.tracing.terms import Term, model_terms

__all__ = ["rounding", "why_not_vectorised"]

#: enough for both sides of a branch on a latent value to be seen
_PARTICLES = 8


def why_not_vectorised(
    pair: Pair,
    layout: Layout,
) -> str | None:
    """None if one vectorised run gives what single runs give, else what went wrong.

    Raises:
        UnsupportedStructure, NonFiniteLoss, InvalidArgument: if single runs do not work either.
    """
    with poutine.block(), torch.no_grad():
        try:
            many = sample(pair, replace(layout, vectorised=True), _PARTICLES, linear=True)
        except (UnsupportedStructure, NonFiniteLoss):
            raise
        except InvalidArgument as error:  # a value outside of the support, or only of that shape
            for _ in range(_PARTICLES):
                sample(pair, layout, 1, linear=True)
            return f"the model or guide does not broadcast ({error})"
        except Exception as error:  # whatever a model does with a batch it did not expect
            return f"the model or guide does not broadcast ({type(error).__name__}: {error})"
        for k in range(_PARTICLES):
            one = _single_run(pair, layout, many, k)
            if k == 0 and not _same(one, _single_run(pair, layout, many, k)):
                return None  # random beyond its latent sites: there is nothing to compare
            if not _same(one, _log_probs(many.terms, k, -1 - layout.nesting)):
                return "a vectorised run gives other log-probabilities than single runs"
    return None


def _single_run(pair: Pair, layout: Layout, many: Draws, k: int) -> dict[str, Tensor]:
    """Log-probabilities of a run of its own at the values of particle k."""
    drawn = {n: many.values[n][k] for n in many.sources}
    try:
        one = sample(pair, layout, 1, linear=True, fixed={**drawn, **many.indices})
    except NoDensity:  # a flow without an inverse; the model can be compared all the same
        everything = {**{n: v[k] for n, v in many.values.items()}, **many.indices}
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


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether the terms of one are terms of the other, up to rounding."""
    return all(
        name in other
        and other[name].numel() == x.numel()
        and torch.allclose(
            other[name].reshape(x.shape), x, rtol=rounding(x), atol=1e-3, equal_nan=True
        )
        for name, x in one.items()
    )


def rounding(x: Tensor) -> float:
    """The relative error that adding in another order may make, and mixing up particles may not."""
    dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    return 300 * torch.finfo(dtype).eps
