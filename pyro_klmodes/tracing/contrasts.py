"""How likely the draws for one datum are for others: a guide at values moved along a plate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, NoDensity
from pyro_klmodes.tracing.cells import to_cells
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.full_data import FullData
from pyro_klmodes.tracing.handlers import Cut, is_delta, is_latent
from pyro_klmodes.tracing.masks import unmasked
from pyro_klmodes.tracing.obs_mask import drawn_for, replaced
from pyro_klmodes.tracing.particles import Single, Together
from pyro_klmodes.tracing.plates import plates_of
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import GuideRun, run, run_guide
from pyro_klmodes.tracing.terms import Term, guide_terms

__all__ = ["contrasts", "data_plate", "kept_data"]


def data_plate(full: FullData, wanted: str | None = None) -> str:
    """The plate whose elements are the data: the one around every latent that is in any.

    Raises:
        InvalidArgument: if there is none or a choice.
    """
    with same_random_state(), poutine.block(), torch.no_grad():
        trace = run_guide(full.pair, Single(), full.visits[0], detach=True).trace
    around = []
    for name, site in _drawn(trace).items():
        if site["infer"].get("couples_plates", False):
            raise InvalidArgument(
                f"the guide draws site '{name}' for all data together, so there is no distribution "
                "of one datum. Use a guide with parameters by datum, such as AutoAmortized."
            )
        if plates_of(site):
            around.append(plates_of(site))
    names = [n for n in (around[0] if around else ()) if all(n in plates for plates in around)]
    every = sorted({n for plates in around for n in plates})
    if wanted is not None:
        if wanted not in every:
            raise InvalidArgument(f"plate={wanted!r} holds no latent site of the guide: {every}.")
        return wanted
    if len(names) != 1:
        raise InvalidArgument(
            f"the guide's latent sites are in plates {every}: pass plate=..., the one whose "
            "elements are the data."
            if every
            else "the guide draws no latent site in a plate, so there are no data to tell apart."
        )
    return names[0]


def contrasts(
    full: FullData,
    plate: str,
    *,
    draws: int,
    most: int,
) -> Tensor:  # (draws, N, M)
    """Log-density of draws for every datum in the guide of M data, the datum itself first.

    The draws are moved along the plate, one step after the other, and the guide is evaluated at
    them; latents outside of the plate stay as they are, those inside move together. Minibatches are
    taken one after the other, and only data of the same one are compared. Data that are masked out
    are left out. So are sites some of whose draws ``obs_mask`` replaces: which of them are latent
    differs between the data, so that their densities cannot be compared.

    Args:
        full: a pair.
        plate: the data.
        draws: S, for each datum.
        most: M at most; the minibatch, if that is smaller. Every datum is compared with the M - 1
            data after it.

    Raises:
        NoDensity: if the guide cannot be evaluated at given values, or has no other site in the
            plate than those that ``obs_mask`` replaces.
    """
    together = full.layout.vectorised and draws > 1
    count = draws if together else 1
    particles = Together(count, full.layout.nesting) if together else Single(full.layout.nesting)
    rows = []
    with poutine.block(), torch.no_grad():
        for _ in range(1 if together else draws):
            visits = [_Visit.of(full, plate, particles, indices) for indices in full.visits]
            visits = [v for v in visits if len(v.kept) > 1]  # the rest has nobody to compare with
            if not visits:
                raise InvalidArgument(
                    f"no minibatch of plate '{plate}' holds two data to compare. Take larger ones."
                )
            steps = min(most, *(len(v.kept) for v in visits))
            rows.append(torch.cat([v.contrasts(steps) for v in visits], 1))
    return torch.cat(rows)


@dataclass(frozen=True)
class _Visit:
    """A minibatch, and the guide's draws for it."""

    full: FullData
    plate: str
    particles: Together | Single
    drawn: GuideRun
    indices: Mapping[str, Tensor]
    kept: Tensor  # positions of the data that are not masked out
    replaced: frozenset[str]  # sites some of whose draws were observed

    @classmethod
    def of(
        cls, full: FullData, plate: str, particles: Together | Single, indices: Mapping[str, Tensor]
    ) -> _Visit:
        traces = run(full.pair, particles=particles, cut=Cut.DRAWS, fixed=indices)
        drawn = GuideRun(traces.guide, traces.indices, traces.model)
        terms = guide_terms(drawn.trace, cut=True)
        counts = {n: unmasked(s) for n, s in traces.model.nodes.items() if is_latent(s)}
        kept = _kept(terms, plate, counts)
        some = set(replaced(traces.model))
        hidden = frozenset(t.name for t in terms if drawn_for(t.name, traces.model) in some)
        return cls(full, plate, particles, drawn, {**indices, **drawn.indices}, kept, hidden)

    def contrasts(self, steps: int) -> Tensor:  # (particles, N, steps)
        return torch.stack([self._log_q(step) for step in range(steps)], -1)

    def _log_q(self, step: int) -> Tensor:  # (particles, N)
        """Entry n: the draw for the n-th datum in the distribution of the one ``step`` after it."""
        moved = {n: self._moved(site, step) for n, site in _drawn(self.drawn.trace).items()}
        at = {**self.indices, **moved}
        trace = run_guide(self.full.pair, self.particles, at, detach=True).trace
        return self._of_plate(trace)[:, self.kept.roll(-step)]

    def _of_plate(self, trace: Trace) -> Tensor:  # (particles, N)
        """Unmasked log-density of the sites in a plate, element by element."""
        dim = self.particles.dim if isinstance(self.particles, Together) else None
        parts: Sequence[Tensor] = [
            to_cells(torch.as_tensor(t.score), dim, [t.plates[self.plate]])
            for t in guide_terms(trace, cut=True)
            if self.plate in t.plates and t.latent and t.name not in self.replaced
        ]
        if not parts:
            raise NoDensity(
                f"obs_mask replaces draws of every site in plate '{self.plate}' "
                f"({sorted(self.replaced)}), so that the data have no latents in common"
            )
        return sum(parts[1:], start=parts[0])

    def _moved(self, site: Mapping[str, Any], step: int) -> Tensor:
        """The value of a site where every datum has that of the one ``step`` before it."""
        value: Tensor = site["value"]
        dim = plates_of(site).get(self.plate)
        if dim is None:
            return value
        axis = dim - site["fn"].event_dim
        return value.index_copy(axis, self.kept, value.index_select(axis, self.kept.roll(step)))


def _drawn(trace: Trace) -> dict[str, Mapping[str, Any]]:
    """The sites in which randomness enters; point masses follow them."""
    return {n: s for n, s in trace.nodes.items() if is_latent(s) and not is_delta(s["fn"])}


def kept_data(draws: Draws, plate: str) -> Tensor:  # (N,)
    """Positions of the data that no mask takes out of the guide."""
    counts = {
        t.name: _counts(t)
        for where, t in draws.terms
        if where == "model" and not t.summed and (t.site or t.counts is not None)
    }
    return _kept([term for where, term in draws.terms if where == "guide"], plate, counts)


def _kept(
    terms: Sequence[Term],
    plate: str,
    model: Mapping[str, Tensor],  # which elements of the model's sites count
) -> Tensor:  # (N,)
    inside = [t for t in terms if plate in t.plates and t.latent]
    keep = torch.zeros((), dtype=torch.bool)
    for term in inside:
        counts = _counts(term)
        drawn = drawn_for(term.name, model)
        if drawn is not None:  # obs_mask replaces the rest of them
            counts = counts & model[drawn]
        dim = term.plates[plate]
        keep = keep | counts.movedim(dim, 0).reshape(counts.shape[dim], -1).any(1)
    return keep.nonzero()[:, 0]


def _counts(term: Term) -> Tensor:
    if term.counts is not None:
        return term.counts > 0
    assert term.site is not None
    return unmasked(term.site)
