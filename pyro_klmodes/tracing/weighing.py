"""From the terms of a run to log-weights: reduce each to particles and local cells, and add."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_klmodes.tracing.by_site import densities_by_site
from pyro_klmodes.tracing.cells import Cells, Run
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.local_structure import LocalStructure
from pyro_klmodes.tracing.terms import Term

__all__ = ["weigh", "without_dead_cells"]

#: given what finds out which terms vary over particles, the sites that depend on no latent value
Independent = Callable[[Callable[[], frozenset[str]]], frozenset[str]]


def weigh(
    runs: Sequence[Run],
    *,
    particle_dim: int | None,
    independent: Independent,
    linear: bool = False,
    outer: int = 1,
    by_site: bool = False,
    settled: bool = False,
) -> Draws:
    """Reduce the terms of one vectorised run, or of K single runs, to log-weights.

    Args:
        runs: a single run with a particle dimension, or one run per particle.
        particle_dim: the batch dimension of the particles, None for single runs.
        independent: names of the observed sites that depend on no latent value (asked only where
            it matters, because finding out costs a run of the model).
        linear: whether the objective is linear in the weights: then scales may differ by site.
        outer: number M of outer particles; the particles of the runs are K times M.
        by_site: whether to give the densities of every latent site too.
        settled: whether the same terms were weighed before, so that no value need be looked at.

    Raises:
        UnsupportedStructure: if a subsampled plate does not enclose every latent site, or, with
            ``by_site``, if the prior of a latent is summed over together with data.
    """
    structure = LocalStructure.of(
        [t for r in runs for t in (*r.p, *r.q)],
        lambda: independent(lambda: _varying(runs, particle_dim)),
        linear=linear,
        settled=settled,
    )
    cells = Cells(structure, particle_dim)
    parts = [_reduce(r, cells) for r in runs]
    rows = [
        torch.cat(column) if len(column) > 1 else column[0] for column in zip(*parts, strict=True)
    ]
    if outer > 1:
        rows = [x.reshape(x.shape[0] // outer, outer, *x.shape[1:]) for x in rows]
    log_p, log_q, score = without_dead_cells(rows[0], rows[1], rows[2])
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
        log_share=first.shares.by_outer(outer) if first.shares else None,
        tempered=structure.tempered(first.q),
        by_site=densities_by_site(runs, cells, log_p, outer) if by_site else None,
        terms=[("model", t) for r in runs for t in r.p] + [("guide", t) for r in runs for t in r.q],
    )


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
    return (
        torch.where(dead, log_p.detach(), log_p),
        torch.where(dead, log_q.detach(), log_q),
        torch.where(dead, torch.zeros_like(score), score),
    )


def _reduce(run: Run, cells: Cells) -> tuple[Tensor, Tensor, Tensor]:
    """Reduce log p, log q and score of a run, each ``(particles, *local)``."""
    zero = cells.empty(run)
    log_p = cells.weighed([t for t in run.p if t.name not in cells.structure.rest], zero)
    log_q = cells.weighed(run.q, zero)
    score = cells.sum([t.score for t in run.q if isinstance(t.score, Tensor)], zero)
    log_p, log_q, score, _ = torch.broadcast_tensors(log_p, log_q, score, zero)
    return log_p, log_q, score


def _rest(run: Run, structure: LocalStructure) -> Tensor:
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
