"""From traces to log-weights: one weight per particle and independent local cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.nonfinite import describe_nonfinite
from pyro_klmodes.tracing.terms import Term

__all__ = ["Draws", "Run", "to_cells", "weigh", "without_dead_cells"]


@dataclass(frozen=True)
class Draws:
    r"""K draws from a guide and what they weigh.

    A *cell* is an element of the local plates, those that enclose every latent site of model and
    guide: a datum of a latent-variable model. Log-weights :math:`\log w = \log p(x, z) - \log q(z)`
    are per particle and cell. Without such plates there is a single weight per particle.

    Attributes:
        log_p: ``(K, *local)``, or ``(K, M, *local)`` with M > 1 outer particles.
        log_q: same shape, the guide's log-density.
        scale: what a divergence of the weights is multiplied by after the reduction over
            particles: full over batch size of the local plates, times a ``poutine.scale`` common
            to all sites.
        plates: names of the local plates, in the order of their axes.
        values: latent values by guide site, ``(K * M, *site_shape)``, detached.
        sources: the sites of ``values`` in which randomness enters (point masses follow them).
        indices: the minibatch, by name of the subsampled plate.
        rest: scalar, log-probability (scaled) of sites that depend on no latent value.
        score: ``(K, *local)`` log-density of the draws that carry no path, or None.
        leaves: pairs (draw with its graph, leaf at which the densities were evaluated).
        log_r: ``(K, *local)`` log-density of the proposal, where that is not the guide.
        outer: number M of outer particles.
        terms: the summands, for messages.
    """

    log_p: Tensor
    log_q: Tensor
    scale: float
    plates: tuple[str, ...]
    values: Mapping[str, Tensor]
    sources: tuple[str, ...]
    indices: Mapping[str, Tensor]
    rest: Tensor
    score: Tensor | None = None
    leaves: tuple[tuple[Tensor, Tensor], ...] = ()
    log_r: Tensor | None = None
    outer: int = 1
    terms: Sequence[tuple[str, Term]] = field(default=(), repr=False)

    @property
    def log_w(self) -> Tensor:  # (K, *local)
        """Log-weights against the density that proposed the draws."""
        return self.log_p - (self.log_q if self.log_r is None else self.log_r)

    @property
    def weight(self) -> float:
        """What the sum of an objective over cells and outer particles is multiplied by."""
        return self.scale / self.outer

    def describe_nonfinite(self) -> str:
        """Where a log-probability is NaN or infinite, in words."""
        return describe_nonfinite(self.terms)


@dataclass(frozen=True)
class Run:
    """The terms of one run, vectorised over particles or of a single one."""

    p: list[Term]
    q: list[Term]
    values: Mapping[str, Tensor]  # (K, *site_shape), or (1, *site_shape)
    sources: tuple[str, ...]
    indices: Mapping[str, Tensor]
    leaves: tuple[tuple[Tensor, Tensor], ...] = ()


def weigh(
    runs: Sequence[Run],
    *,
    particle_dim: int | None,
    independent: Callable[[], frozenset[str]],
    linear: bool = False,
    outer: int = 1,
) -> Draws:
    """Reduce the terms of one vectorised run, or of K single runs, to log-weights.

    Args:
        runs: a single run with a particle dimension, or one run per particle.
        particle_dim: the batch dimension of the particles, None for single runs.
        independent: names of the observed sites that depend on no latent value (asked only where
            it matters, because finding out costs a run of the model).
        linear: whether the objective is linear in the weights: then scales may differ by site.
        outer: number M of outer particles; the particles of the runs are K times M.

    Raises:
        UnsupportedStructure: if a subsampled plate does not enclose every latent site.
    """
    structure = _Structure.of(
        [t for r in runs for t in (*r.p, *r.q)],
        lambda: independent() - _varying(runs, particle_dim),
        linear=linear,
    )
    parts = [_reduce(r, structure, particle_dim) for r in runs]
    rows = [
        torch.cat(column) if len(column) > 1 else column[0] for column in zip(*parts, strict=True)
    ]
    log_p, log_q, score = without_dead_cells(rows[0], rows[1], rows[2])
    if outer > 1:
        log_p, log_q, score = (
            x.reshape(x.shape[0] // outer, outer, *x.shape[1:]) for x in (log_p, log_q, score)
        )
    no_path = any(isinstance(t.score, Tensor) for r in runs for t in r.q)
    first = runs[0]
    return Draws(
        log_p=log_p,
        log_q=log_q,
        scale=structure.scale,
        plates=tuple(structure.plates),
        values={
            n: torch.cat([r.values[n] for r in runs])
            for n in first.values
            if all(n in r.values for r in runs)  # a branch may draw a site in some runs only
        },
        sources=first.sources,
        indices=first.indices,
        rest=_rest(first, structure),
        score=score if no_path else None,
        leaves=tuple(pair for r in runs for pair in r.leaves),
        outer=outer,
        terms=[("model", t) for r in runs for t in r.p] + [("guide", t) for r in runs for t in r.q],
    )


@dataclass(frozen=True)
class _Structure:
    """What is local, what is outside of the weights, and which scales stay in them."""

    plates: Mapping[str, int]  # name -> batch dimension, leftmost first
    scale: float
    rest: frozenset[str]
    user_scale_inside: bool

    @classmethod
    def of(
        cls, terms: Sequence[Term], independent: Callable[[], frozenset[str]], *, linear: bool
    ) -> _Structure:
        plates, rest = _local_plates(terms, independent)
        weighted = [t for t in terms if t.name not in rest]
        scales = [t.scale for t in weighted]
        common = bool(scales) and all(not isinstance(s, Tensor) and s == scales[0] for s in scales)
        ratios: dict[str, float] = {}
        for t in weighted:
            ratios.update(t.ratios)
        inside = set(ratios) - set(plates)
        if inside and not linear and any(t.latent for t in weighted):
            raise UnsupportedStructure(_subsampling_message(sorted(inside)[0], weighted))
        outside = math.prod(r for n, r in ratios.items() if n in plates)
        return cls(plates, outside * (float(scales[0]) if common else 1.0), rest, not common)

    def weighed(self, term: Term, log_prob: Tensor) -> Tensor:
        """A term's log-probability with the scales that stay inside of the weights."""
        factor: Any = term.scale if self.user_scale_inside else 1.0
        for name, ratio in (term.ratios or {}).items():
            if name not in self.plates:
                factor = factor * ratio
        if isinstance(factor, Tensor) or factor != 1.0:
            return log_prob * factor
        return log_prob


def _local_plates(
    terms: Sequence[Term], independent: Callable[[], frozenset[str]]
) -> tuple[dict[str, int], frozenset[str]]:
    """Plates around everything that depends on a latent value, and the sites that do not."""
    latent = [t for t in terms if t.latent]
    if not latent:
        return {}, frozenset()
    names = set.intersection(*(set(t.plates) for t in latent))
    outside = [t for t in terms if not t.latent and not names <= set(t.plates)]
    free = independent() & {t.name for t in outside} if outside else frozenset()
    for t in outside:
        if t.name not in free:
            names &= set(t.plates)
    dims = {n: d for n, d in latent[0].plates.items() if n in names}
    return dict(sorted(dims.items(), key=lambda item: item[1])), frozenset(free)


def _varying(runs: Sequence[Run], particle_dim: int | None) -> frozenset[str]:
    """Names of the model's terms that are not the same for all particles, whatever was inferred."""
    varying = set()
    for term in runs[0].p:
        if particle_dim is None:
            same = [t.log_prob for r in runs for t in r.p if t.name == term.name]
            constant = all(torch.equal(x, term.log_prob) for x in same)
        else:
            x = term.log_prob
            alone = x.dim() < -particle_dim
            constant = alone or torch.equal(x, x.narrow(particle_dim, 0, 1).expand_as(x))
        if not constant:
            varying.add(term.name)
    return frozenset(varying)


def without_dead_cells(
    log_p: Tensor,  # (K, *local)
    log_q: Tensor,  # (K, *local)
    score: Tensor,  # (K, *local)
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the graph of cells all of whose particles have weight zero: they know no direction."""
    dead = (log_p == -math.inf).all(0)
    if not bool(dead.any()):
        return log_p, log_q, score
    return (
        torch.where(dead, log_p.detach(), log_p),
        torch.where(dead, log_q.detach(), log_q),
        torch.where(dead, torch.zeros_like(score), score),
    )


def _subsampling_message(plate: str, terms: Sequence[Term]) -> str:
    outside = next((t.name for t in terms if t.latent and plate not in t.ratios), "?")
    return (
        f"subsampled plate '{plate}' does not enclose latent site '{outside}': a divergence that "
        "is not linear in log w is biased on minibatches of such a model. Use ReverseKL, the full "
        f"data in '{plate}', or, where '{plate}' holds local latents, IWAE, Renyi (alpha >= 0) or "
        "Thermodynamic with a pathwise estimator, which then nest: exact expectation over the "
        "global latents, importance weights over the local ones."
    )


def _reduce(
    run: Run, structure: _Structure, particle_dim: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Reduce log p, log q and score of a run, each ``(particles, *local)``."""
    sizes = _sizes(run, structure)
    dims = list(structure.plates.values())
    zero = (run.p or run.q)[0].log_prob.new_zeros((1, *sizes))

    def total(parts: list[Tensor]) -> Tensor:
        return (
            reduce(torch.add, (to_cells(x, particle_dim, dims) for x in parts)) if parts else zero
        )

    log_p = total([structure.weighed(t, t.log_prob) for t in run.p if t.name not in structure.rest])
    log_q = total([structure.weighed(t, t.log_prob) for t in run.q])
    score = total([t.score for t in run.q if isinstance(t.score, Tensor)])
    log_p, log_q, score, _ = torch.broadcast_tensors(log_p, log_q, score, zero)
    return log_p, log_q, score


def _sizes(run: Run, structure: _Structure) -> list[int]:
    """Number of elements of every local plate."""
    return [
        max((t.log_prob.shape[d] for t in (*run.p, *run.q) if t.log_prob.dim() >= -d), default=1)
        for d in structure.plates.values()
    ]


def to_cells(
    log_prob: Tensor,
    particle_dim: int | None,
    dims: Sequence[int],  # batch dimensions of the local plates, leftmost first
) -> Tensor:  # (particles, *local), sizes of one where it does not vary
    """Sum out every batch dimension that is neither the particles' nor a local plate's."""
    keep = list(dims) if particle_dim is None else [particle_dim, *dims]
    drop = [d for d in range(-log_prob.dim(), 0) if d not in keep]
    # torch sums over everything when asked to sum over no dimension
    summed = log_prob.sum(drop) if drop else log_prob
    present = {d for d in keep if d >= -log_prob.dim()}
    missing = len(keep) - len(present)
    if missing:
        summed = summed.reshape((1,) * missing + summed.shape)
    return summed if particle_dim is not None else summed.unsqueeze(0)


def _rest(run: Run, structure: _Structure) -> Tensor:
    """Scaled log-probability of the terms outside of the weights, averaged over particles."""
    reference = (run.p or run.q)[0].log_prob
    total = reference.new_zeros(())
    for t in run.p:
        if t.name in structure.rest:
            scaled = t.log_prob * t.scale * math.prod(dict(t.ratios).values())
            total = total + scaled.sum() / _copies(t)
    return total


def _copies(term: Term) -> int:
    """How often the particle plate repeated a term that does not depend on the particles."""
    inner = max((-d for d in term.plates.values()), default=0)
    return math.prod(term.log_prob.shape[: max(term.log_prob.dim() - inner, 0)])
