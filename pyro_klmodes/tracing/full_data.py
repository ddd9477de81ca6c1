"""Draws from a guide for the full data, also where one run sees a minibatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_klmodes.errors import NoDensity
from pyro_klmodes.tracing.cells import Run
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.handlers import Cut, is_delta, is_latent
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.masks import unmasked
from pyro_klmodes.tracing.particles import Particles, Single, Together
from pyro_klmodes.tracing.plates import plates_of
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import GuideRun, Pair, run, run_guide
from pyro_klmodes.tracing.sampling import independent_sites, model_runner, run_of, values_of
from pyro_klmodes.tracing.sites import describe
from pyro_klmodes.tracing.survey import survey
from pyro_klmodes.tracing.terms import Term
from pyro_klmodes.tracing.visits import Kept, Piece, Visit, stitch, visits_of
from pyro_klmodes.tracing.weighing import weigh

__all__ = ["FullData"]


@dataclass(frozen=True)
class FullData:
    """A pair whose subsampled plates are visited until every element was seen.

    Global latents are drawn once for each draw and held fixed; local ones are drawn minibatch by
    minibatch, given the globals, and put together by index.

    Attributes:
        pair: a model, a guide, and their arguments.
        layout: its structure.
        sizes: full sizes of the subsampled plates.
        visits: the minibatches that together see every element.
    """

    pair: Pair
    layout: Layout
    sizes: Mapping[str, int]
    visits: Sequence[Visit]

    @classmethod
    def of(cls, pair: Pair) -> FullData:
        """Survey a pair.

        Raises:
            InvalidArgument: if the arguments themselves hold a minibatch.
            ModelGuideMismatch, UnsupportedStructure: as training would.
        """
        sites = describe(pair.model, pair.args, pair.kwargs)
        sizes, visits = visits_of(sites)
        return cls(pair, survey(pair), sizes, visits)

    @property
    def latents(self) -> tuple[str, ...]:
        """Names of the model's latent sites that the guide draws."""
        with same_random_state(), poutine.block(), torch.no_grad():
            trace = run_guide(self.pair, Single(), self.visits[0], detach=True).trace
        return tuple(_latents(trace))

    @same_random_state()
    def why_unweighed(self) -> str | None:
        """Why draws have no log-weights, or None.

        A point mass has no density with respect to the posterior's; a flow without an inverse
        cannot be evaluated.
        """
        try:
            few = self.draws(4)
        except NoDensity as error:
            return str(error)
        with poutine.block(), torch.no_grad():
            trace = run_guide(self.pair, Single(), self.visits[0], detach=True).trace
        for name in _latents(trace):
            if is_delta(trace.nodes[name]["fn"]) and torch.equal(
                few.values[name], few.values[name][:1].expand_as(few.values[name])
            ):
                return (
                    f"the guide holds site '{name}' fixed at a point, which has no density to "
                    "compare with the posterior's"
                )
        return None

    def draws(self, count: int, *, by_site: bool = False) -> Draws:
        """Draw and weigh, as if model and guide had been given the full data at once."""
        with poutine.block(), torch.no_grad():
            together = self.layout.together and count > 1
            particles = self._particles(count if together else 1)
            runs = [self._stitched(particles) for _ in range(1 if together else count)]
            return weigh(
                runs,
                particle_dim=particles.dim if isinstance(particles, Together) else None,
                independent=partial(independent_sites, self.pair, self.layout),
                linear=True,  # the scales of a density at hand need no exponent
                by_site=by_site,
            )

    def values(self, count: int) -> dict[str, Tensor]:  # {site: (count, *site_shape)}
        """Draw without weights, for guides that have no density."""
        with poutine.block(), torch.no_grad():
            together = self.layout.together and count > 1
            particles = self._particles(count if together else 1)
            found = [self._values(particles) for _ in range(1 if together else count)]
        return {n: torch.cat([values[n] for values in found]) for n in found[0]}

    def _particles(self, count: int) -> Together | Single:
        nesting = self.layout.nesting
        return Together(count, nesting) if count > 1 else Single(nesting)

    def _stitched(self, particles: Together | Single) -> Run:
        kept = Kept()
        runs: list[tuple[Visit, Run]] = []
        axes: dict[str, dict[str, int]] = {}
        for visit in self.visits:
            traces = run(
                self.pair,
                particles=particles,
                cut=Cut.DRAWS,
                fixed=kept.at(visit),
                enumerated=bool(self.layout.enumerated),
                by=model_runner(self.layout),
            )
            together = isinstance(particles, Together)
            runs.append((visit, run_of(traces, Cut.DRAWS, self.layout, together=together)))
            axes |= _keep(kept, traces.guide, visit)
        if len(runs) == 1:
            return runs[0][1]
        first = runs[0][1]
        return replace(
            first,
            p=self._terms([(v, r.p) for v, r in runs]),
            q=self._terms([(v, r.q) for v, r in runs]),
            values={
                n: stitch([(v, Piece(r.values[n], axes[n])) for v, r in runs], self.sizes).value
                for n in first.values
            },
            indices={n: x for n, x in first.indices.items() if n not in self.sizes},
        )

    def _terms(self, runs: Sequence[tuple[Visit, Sequence[Term]]]) -> list[Term]:
        """The terms of all minibatches, one by one: they come in the same order every time."""
        visits = [visit for visit, _ in runs]

        def whole(of: Callable[[Term], Tensor], terms: Sequence[Term]) -> Tensor:
            pieces = [
                (visit, Piece(_filled(of(term), term.plates, visit), term.plates))
                for visit, term in zip(visits, terms, strict=True)
            ]
            return stitch(pieces, self.sizes).value

        return [
            replace(
                terms[0],
                log_prob=whole(lambda t: t.log_prob, terms),
                counts=whole(_counts, terms),
                ratios={n: r for n, r in terms[0].ratios.items() if n not in self.sizes},
                score=0.0,
            )
            for terms in zip(*(terms for _, terms in runs), strict=True)
        ]

    def _values(self, particles: Particles) -> dict[str, Tensor]:
        kept = Kept()
        parts: dict[str, list[tuple[Visit, Piece]]] = {}
        for visit in self.visits:
            guide: GuideRun = run_guide(self.pair, particles, kept.at(visit), detach=True)
            axes = _keep(kept, guide.trace, visit)
            for name in _latents(guide.trace):
                site = guide.trace.nodes[name]
                one = isinstance(particles, Single)
                value = site["value"].detach().unsqueeze(0) if one else values_of(site)
                parts.setdefault(name, []).append((visit, Piece(value, axes[name])))
        return {name: stitch(found, self.sizes).value for name, found in parts.items()}


def _latents(trace: Any) -> list[str]:
    """What a guide draws for the model."""
    return [
        n
        for n, s in trace.nodes.items()
        if is_latent(s) and not s["infer"].get("is_auxiliary", False)
    ]


def _keep(kept: Kept, trace: Any, visit: Visit) -> dict[str, dict[str, int]]:
    """Remember where randomness entered; point masses are recomputed. Returns the plates' axes."""
    axes = {}
    for name, site in trace.nodes.items():
        if not is_latent(site):
            continue
        axes[name] = {p: d - site["fn"].event_dim for p, d in plates_of(site).items()}
        if not is_delta(site["fn"]):
            kept.keep(name, site["value"], axes[name], visit)
    return axes


def _counts(term: Term) -> Tensor:
    """Which elements of a term no mask takes out."""
    ones = torch.ones_like(term.log_prob)
    if term.site is not None:
        return ones * unmasked(term.site).to(ones)
    return ones if term.summed or term.counts is None else ones * term.counts.to(ones)


def _filled(x: Tensor, plates: Mapping[str, int], visit: Visit) -> Tensor:
    """What there is of a term, with all elements of the minibatch, also where they are equal."""
    shape = list(x.shape)
    shape = [1] * (max((-d for d in plates.values()), default=0) - len(shape)) + shape
    for plate, dim in plates.items():
        if plate in visit:
            shape[dim] = len(visit[plate])
    return x.expand(shape)
